"""View 1: the runs of all experiments, as far back as they go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from textual import on

from kanary.kfp_types import Run, progress
from kanary.snapshot_hub import RUNS
from kanary.text import duration
from tui.actions import bindings
from tui.cells import progress_cell, state_cell
from tui.look import clock_time
from tui.run_acts import RunActs
from tui.table import Cell, Column, KeyedTable, Row
from tui.view import Listing, OpenRun, View

COLUMNS = (
    Column("state", "STATE", 11),
    Column("name", "NAME", 0),
    Column("pipeline", "PIPELINE", 22, at=110),
    Column("progress", "PROGRESS", 12, at=96),
    Column("tasks", "TASKS", 5, right=True),
    Column("started", "STARTED", 11),
    Column("duration", "DURATION", 8, right=True),
    Column("run", "RUN", 8),
    Column("error", "WHY", 50, at=170),
)

_OLDEST = datetime.min.replace(tzinfo=UTC)
# What a person wants to see first when sorting by state.
_URGENCY = ("FAILED", "RUNNING", "CANCELING", "PAUSED", "PENDING", "CANCELED", "SKIPPED", "SUCCEEDED")
SORTS: Mapping[str, Callable[[Run, datetime], Any]] = {
    "started": lambda run, now: -(run.created_at or _OLDEST).timestamp(),
    "name": lambda run, now: run.name.casefold(),
    "state": lambda run, now: _URGENCY.index(run.state) if run.state in _URGENCY else -1,
    "duration": lambda run, now: -(run.seconds(now) or 0.0),
}


def row(run: Run, now: datetime) -> Row:
    done, total = progress(run)
    return (
        state_cell(run.state, "archived" if run.archived else ""),
        Cell(run.name),
        Cell(run.pipeline_name, "dim"),
        progress_cell(done, total, run.state),
        # A list of runs may count the tasks without naming them.
        Cell(f"{done}/{total}" if total else str(run.task_count or "")),
        Cell(clock_time(run.created_at, now)),
        Cell(duration(run.seconds(now))),
        Cell(run.run_id[:8], "dim"),
        Cell(run.error, "bad"),
    )


def words(run: Run) -> Sequence[str]:
    return run.name, run.state, run.run_id, run.pipeline_name


class RunsView(View[Run], RunActs):
    """The list of runs."""

    PLACES: ClassVar[tuple[str, ...]] = ("view", "runs", "onerun")
    LISTING: ClassVar[Listing[Run]] = Listing("runs", "Runs", COLUMNS, SORTS, lambda run: run.run_id, row, words)
    SOURCES: ClassVar[tuple[str, ...]] = (RUNS,)
    BINDINGS = bindings("runs", "onerun")

    def items(self) -> Sequence[Run]:
        return tuple(self.hub.runs.value.by_id.values()) if self.hub.runs.value else ()

    def source(self) -> object:
        # By duration those that run pass those that have ended, with nothing new from anywhere.
        return self.hub.runs.value.by_id if self.hub.runs.value and self.sort != "duration" else None

    def total(self, known: int) -> int:
        return max(known, self.hub.runs.value.total if self.hub.runs.value else 0)

    def empty_text(self) -> str:
        return "No runs yet. S starts one here, `kanary submit PIPELINE.yaml` or `kfp run create` elsewhere."

    def the_run(self) -> Run | None:
        return self.current

    @on(KeyedTable.Highlighted, "#runs-table")
    def _page_on(self) -> None:
        """The cursor on the last row asks for older runs."""
        if self.table.cursor_row >= self.table.row_count - 1:
            self.hub.page_on()

    @on(KeyedTable.Selected, "#runs-table")
    def _open(self, event: KeyedTable.Selected) -> None:
        run = self.item(event.key)
        if run is not None:
            self.post_message(OpenRun(run))

    def act_archived(self) -> None:
        self.hub.show_archived(not self.hub.archived)
        said = "The archived runs are shown too." if self.hub.archived else "The archived runs are left out."
        self.notify(said, timeout=3)
