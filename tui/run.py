"""One run: what it is, why it failed, its tasks as a tree, and the log of the task under the cursor."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Static

from kanary import kfp
from kanary.kfp_types import Run, TaskDetail, progress, task_tree
from kanary.text import duration, one_line
from tui.actions import bindings
from tui.feed import Snapshot, poll
from tui.source import Source
from tui.states import clock_time, state_cell
from tui.status import StatusBar
from tui.table import Cell, Column, KeyedTable
from tui.task_log import TaskLog

COLUMNS = (
    Column("task", "TASK", 28),
    Column("state", "STATE", 18),
    Column("duration", "DURATION", 8),
    Column("error", "ERROR", 0),
)


def rows(run: Run, now: datetime) -> Mapping[str, tuple[Cell, ...]]:
    """The tasks by id, parents before children, children indented."""
    return {
        task.task_id: (
            Cell(task.name, indent=2 * depth),
            state_cell(task.state, "cached" if task.cached else ""),
            Cell(duration(task.seconds(now))),
            Cell(task.error, "red"),
        )
        for depth, task in task_tree(run.tasks)
    }


def facts(run: Run, now: datetime) -> Text:
    """Name, state, times and, where it failed, the reason of the innermost task that did."""
    state = state_cell(run.state)
    done, total = progress(run)
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{one_line(run.name)}\n", "bold")
    text.append(state.text, state.style)
    parts = (
        f"{done}/{total} tasks",
        f"started {clock_time(run.created_at, now)}",
        duration(run.seconds(now)),
        run.run_id,
    )
    text.append("  " + "  ".join(parts))
    return text


def failure(run: Run) -> str:
    """Why it failed, in one line; empty where it did not."""
    failed = [task for _, task in task_tree(run.tasks) if task.error and task.state in ("FAILED", "CANCELED")]
    if failed:
        return f"{one_line(failed[-1].name)}: {one_line(failed[-1].error)}"
    return one_line(run.error)


class RunScreen(Screen[None]):
    """One run, kept up to date while it is looked at."""

    BINDINGS = bindings("run")
    DEFAULT_CSS = """
    RunScreen > #facts { height: 2; padding: 0 1; }
    RunScreen > #failure { height: auto; max-height: 3; padding: 0 1; color: $text-error; display: none; }
    RunScreen.failed > #failure { display: block; }
    RunScreen > #tasks { height: 1fr; min-height: 4; }
    RunScreen > TaskLog { height: 1fr; }
    RunScreen.stale > #tasks { opacity: 60%; }
    """

    def __init__(self, source: Source, run: Run, refresh: float) -> None:
        super().__init__()
        self._source = source
        self._run = run
        self._interval = refresh
        self._wake = asyncio.Event()
        self._snapshot: Snapshot[Run] = Snapshot()
        self._paused = False
        # Held, not queried: an answer may still come while the screen is being taken down.
        self._status = StatusBar(source.config)
        self._facts = Static(facts(run, datetime.now(UTC)), id="facts", markup=False)
        self._failure = Static("", id="failure", markup=False)
        self._table = KeyedTable(COLUMNS, id="tasks")
        self._task_log = TaskLog(source)

    def compose(self) -> ComposeResult:
        yield self._status
        yield self._facts
        yield self._failure
        yield self._table
        yield self._task_log
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self._table.focus()
        self.call_after_refresh(self._start)

    def _start(self) -> None:
        self.run_worker(poll(self._fetch, self._receive, self._wake, self._pause_after), group="run", exclusive=True)

    async def _fetch(self) -> Run:
        return await self._source.call(kfp.get_run(self._run.run_id))

    def _pause_after(self, run: Run) -> float:
        # An ended run changes only if somebody retries it.
        return self._interval * 5 if run.final else self._interval

    async def _receive(self, snapshot: Snapshot[Run]) -> None:
        self._snapshot = snapshot
        await self._display()

    async def _display(self) -> None:
        self._status.show(self._snapshot, paused=self._paused)
        if self._paused:
            return
        self.set_class(bool(self._snapshot.error), "stale")
        run = self._snapshot.value
        if run is None:
            return
        now = datetime.now(UTC)
        self._run = run
        self._facts.update(facts(run, now))
        self._failure.update(Text(failure(run), overflow="fold"))
        self.set_class(bool(failure(run)), "failed")
        first = not self._table.row_count
        await self._table.show(rows(run, now))
        if first and (broken := _first_failed(run)):
            self._table.move_cursor(row=self._table.get_row_index(broken.task_id))
        self._tell_log()

    def _tell_log(self) -> None:
        task = next((task for task in self._run.tasks if task.task_id == self._table.selected), None)
        self._task_log.watch_task(self._run, task)

    @on(DataTable.RowHighlighted, "#tasks")
    def _task_chosen(self) -> None:
        self._tell_log()

    @on(DataTable.RowSelected, "#tasks")
    def _go_to_log(self) -> None:
        self._task_log.focus_log()

    def action_back(self) -> None:
        if self._task_log.has_focus_within:
            self._table.focus()
        else:
            self.dismiss()

    def action_follow(self) -> None:
        self._task_log.toggle_follow()

    def action_refresh(self) -> None:
        self._wake.set()

    async def action_pause(self) -> None:
        self._paused = not self._paused
        await self._display()


def _first_failed(run: Run) -> TaskDetail | None:
    """The innermost task that failed: its log says why."""
    failed = [(depth, task) for depth, task in task_tree(run.tasks) if task.state == "FAILED"]
    return max(failed, key=lambda item: item[0])[1] if failed else None
