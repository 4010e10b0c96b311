"""The runs of all experiments: filter, sort, paging to the oldest, Enter for one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, Static

from kanary import kfp
from kanary.kfp_types import Run, RunPage, progress
from kanary.text import duration
from tui.actions import bindings
from tui.feed import Snapshot, poll
from tui.run import RunScreen
from tui.source import Source
from tui.states import clock_time, state_cell
from tui.status import StatusBar
from tui.table import Cell, Column, KeyedTable

COLUMNS = (
    Column("state", "STATE", 11),
    Column("name", "NAME", 0),
    Column("tasks", "TASKS", 7),
    Column("started", "STARTED", 11),
    Column("duration", "DURATION", 8),
    Column("run", "RUN", 8),
)

_PAGE = 50  # runs more, each time that the cursor reaches the end
_OLDEST = datetime.min.replace(tzinfo=UTC)
# What a person wants to see first when sorting by state.
_URGENCY = ("FAILED", "RUNNING", "CANCELING", "PAUSED", "PENDING", "CANCELED", "SKIPPED", "SUCCEEDED")
SORTS: Mapping[str, Callable[[Run, datetime], Any]] = {
    "started": lambda run, now: -(run.created_at or _OLDEST).timestamp(),
    "name": lambda run, now: run.name.casefold(),
    "state": lambda run, now: _URGENCY.index(run.state) if run.state in _URGENCY else -1,
    "duration": lambda run, now: -(run.seconds(now) or 0.0),
}


def matches(run: Run, pattern: str) -> bool:
    """Whether the run shows the text (name, state, id, pipeline), upper and lower case alike; `!text`: does not."""
    inverted, text = pattern.startswith("!"), pattern.removeprefix("!").strip().casefold()
    if not text:
        return True
    found = any(text in part.casefold() for part in (run.name, run.state, run.run_id, run.pipeline_name))
    return found != inverted


def visible(runs: Sequence[Run], pattern: str, sort: str, now: datetime) -> list[Run]:
    """The runs that the filter lets through, in order; equals by start, newest first."""
    newest_first = sorted((run for run in runs if matches(run, pattern)), key=lambda run: SORTS["started"](run, now))
    return sorted(newest_first, key=lambda run: SORTS[sort](run, now))


def row(run: Run, now: datetime) -> tuple[Cell, ...]:
    done, total = progress(run)
    return (
        state_cell(run.state),
        Cell(run.name),
        # A list of runs may count the tasks without naming them.
        Cell(f"{done}/{total}" if total else str(run.task_count or "")),
        Cell(clock_time(run.created_at, now)),
        Cell(duration(run.seconds(now))),
        Cell(run.run_id[:8], "dim"),
    )


class RunsScreen(Screen[None]):
    """The list of runs; the monitor's root."""

    BINDINGS = bindings("runs")
    DEFAULT_CSS = """
    RunsScreen > #title { height: 1; padding: 0 1; text-style: bold; }
    RunsScreen > #runs { height: 1fr; }
    RunsScreen.stale > #runs { opacity: 60%; }
    RunsScreen > #filter { display: none; height: 1; border: none; padding: 0 1; }
    RunsScreen.filtering > #filter { display: block; }
    RunsScreen > #empty { display: none; height: 1fr; padding: 1 2; color: $text-muted; }
    RunsScreen.empty > #empty { display: block; }
    RunsScreen.empty > #runs { display: none; }
    """

    def __init__(self, source: Source, refresh: float) -> None:
        super().__init__()
        self._source = source
        self._interval = refresh
        self._wake = asyncio.Event()
        self._snapshot: Snapshot[RunPage] = Snapshot()
        self._paused = False
        self._sort = "started"
        self._limit = _PAGE
        # Held, not queried: an answer may still come while the screen is being taken down.
        self._status = StatusBar(source.config)
        self._title = Static("Runs", id="title", markup=False)
        self._table = KeyedTable(COLUMNS, id="runs")
        self._empty = Static("", id="empty", markup=False)
        self._filter = Input(id="filter", placeholder="text to find; !text to leave out", compact=True)

    def compose(self) -> ComposeResult:
        yield self._status
        yield self._title
        yield self._table
        yield self._empty
        yield self._filter
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self._table.focus()
        self.call_after_refresh(self._start)

    def _start(self) -> None:
        self.run_worker(poll(self._fetch, self._receive, self._wake, self._pause_after), group="runs", exclusive=True)

    async def _fetch(self) -> RunPage:
        return await self._source.call(kfp.newest_runs(self._limit, namespace=self._source.config.namespace))

    def _pause_after(self, page: RunPage) -> float:
        # Who has scrolled far down asks for much each time, so less often.
        return self._interval * max(1.0, len(page.runs) / kfp.PAGE_SIZE)

    async def _receive(self, snapshot: Snapshot[RunPage]) -> None:
        self._snapshot = snapshot
        await self._display()

    async def _display(self) -> None:
        self._status.show(self._snapshot, paused=self._paused)
        if self._paused:
            return
        self.set_class(bool(self._snapshot.error), "stale")
        page = self._snapshot.value
        if page is None:
            return
        now = datetime.now(UTC)
        shown = visible(page.runs, self._pattern, self._sort, now)
        self._title.update(self._title_text(len(shown), page))
        self._empty.update(self._empty_text(page))
        self.set_class(not shown, "empty")
        await self._table.show({run.run_id: row(run, now) for run in shown})

    def _title_text(self, shown: int, page: RunPage) -> str:
        count = f"{shown} of {page.total}" if shown != page.total else str(shown)
        found = f"  filter: {self._pattern}" if self._pattern else ""
        return f"Runs ({count}), by {self._sort}{found}"

    def _empty_text(self, page: RunPage) -> str:
        if page.runs:
            return "No run matches the filter. Esc takes it away."
        return "No runs yet. Start one with `kanary submit PIPELINE.yaml` or `kfp run create`."

    @property
    def _pattern(self) -> str:
        return self._filter.value

    @on(DataTable.RowHighlighted, "#runs")
    def _page_on(self, event: DataTable.RowHighlighted) -> None:
        """The cursor on the last row asks for older runs."""
        page = self._snapshot.value
        if (
            page
            and page.next_page_token
            and len(page.runs) >= self._limit
            and event.cursor_row == self._table.row_count - 1
        ):
            self._limit += _PAGE
            self._wake.set()

    @on(DataTable.RowSelected, "#runs")
    def _open(self) -> None:
        page, selected = self._snapshot.value, self._table.selected
        run = next((run for run in page.runs if run.run_id == selected), None) if page else None
        if run is not None:
            self.app.push_screen(RunScreen(self._source, run, self._interval))

    def action_filter(self) -> None:
        self.add_class("filtering")
        self._filter.focus()

    async def action_clear(self) -> None:
        self._filter.value = ""
        self.remove_class("filtering")
        self._table.focus()

    @on(Input.Changed, "#filter")
    async def _filter_changed(self) -> None:
        await self._display()

    @on(Input.Submitted, "#filter")
    def _filter_kept(self) -> None:
        self.set_class(bool(self._pattern), "filtering")
        self._table.focus()

    async def action_sort(self) -> None:
        names = list(SORTS)
        self._sort = names[(names.index(self._sort) + 1) % len(names)]
        await self._display()

    def action_refresh(self) -> None:
        self._wake.set()

    async def action_pause(self) -> None:
        self._paused = not self._paused
        await self._display()

    def action_quit(self) -> None:
        self.app.exit()
