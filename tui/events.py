"""View 4: one timeline of runs, releases, operators' acts and Kubernetes' events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from textual import on

from kanary.snapshot import Snapshot
from kanary.snapshot_hub import EVENTS, RUNS, SERVICES
from kanary.snapshot_timeline import BAD, GOOD, RUN, WARNING, Entry, timeline
from tui.look import clock_time
from tui.table import Cell, Column, KeyedTable, Row
from tui.view import Listing, View

COLUMNS = (
    Column("when", "WHEN", 11),
    Column("kind", "KIND", 9),
    Column("subject", "ABOUT", 28, at=100),
    Column("name", "ABOUT", 16, until=100),
    Column("who", "WHO", 12, at=120),
    Column("text", "WHAT", 0),
)
_SIGNS = {GOOD: ("✓", "good"), WARNING: ("!", "warn"), BAD: ("✗", "bold bad")}
_WEIGHTS = (BAD, WARNING)

SORTS: Mapping[str, Callable[[Entry, datetime], Any]] = {
    "time": lambda entry, now: -entry.when.timestamp(),
    "weight": lambda entry, now: _WEIGHTS.index(entry.weight) if entry.weight in _WEIGHTS else len(_WEIGHTS),
    "subject": lambda entry, now: entry.subject.casefold(),
}


def row(entry: Entry, now: datetime) -> Row:
    sign, style = _SIGNS.get(entry.weight, (" ", ""))
    return (
        Cell(clock_time(entry.when, now), "dim"),
        Cell(f"{sign} {entry.kind}", style),
        Cell(entry.subject),
        Cell(entry.subject if entry.kind == RUN else entry.subject.rpartition("/")[2]),
        Cell(entry.who, "dim"),
        Cell(entry.text, style if entry.weight in (BAD, WARNING) else ""),
    )


def words(entry: Entry) -> Sequence[str]:
    return entry.kind, entry.subject, entry.text, entry.who


class EventsView(View[Entry]):
    """The timeline."""

    LISTING: ClassVar[Listing[Entry]] = Listing("events", "Events", COLUMNS, SORTS, lambda e: e.key, row, words)
    SOURCES: ClassVar[tuple[str, ...]] = (EVENTS, SERVICES, RUNS)

    def items(self) -> Sequence[Entry]:
        runs = self.hub.runs.value
        return timeline(runs.by_id.values() if runs else (), self.hub.services.value or {}, self.hub.events.value or {})

    def snapshot(self) -> Snapshot[Any]:
        """Whichever of the three is there: half a timeline is better than none."""
        there = [s for s in map(self.hub.snapshot, self.SOURCES) if s.value is not None]
        return there[0] if there else self.hub.events

    def empty_text(self) -> str:
        return "Nothing has happened yet, as far as the servers remember."

    @on(KeyedTable.Selected, "#events-table")
    def _open(self, event: KeyedTable.Selected) -> None:
        """Opens what the entry is about."""
        entry = self.item(event.key)
        runs, services = self.hub.runs.value, self.hub.services.value or {}
        if entry is None:
            return
        if runs and entry.ref in runs.by_id:
            from tui.run import RunScreen

            self.app.push_screen(RunScreen(self.hub, runs.by_id[entry.ref]))
        elif entry.ref in services:
            from tui.service import ServiceScreen

            self.app.push_screen(ServiceScreen(self.hub, entry.ref))
        else:
            self.notify("What it is about is not there any more.", timeout=3)
