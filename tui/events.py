"""View 4: one timeline of runs, releases, operators' acts, drift, alerts and Kubernetes' events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from textual import on

from kanary.snapshot import Snapshot
from kanary.snapshot_hub import ALERTS, EVENTS, RUNS, SERVICES
from kanary.snapshot_timeline import BAD, WARNING, Entry, timeline
from tui.entries import entry_row
from tui.table import Column, KeyedTable
from tui.view import Listing, OpenRun, OpenService, View

COLUMNS = (
    Column("when", "WHEN", 11),
    Column("kind", "KIND", 9),
    Column("subject", "ABOUT", 28, at=100),
    Column("name", "ABOUT", 16, until=100),
    Column("who", "WHO", 12, at=120),
    Column("text", "WHAT", 0),
)
_WEIGHTS = (BAD, WARNING)

SORTS: Mapping[str, Callable[[Entry, datetime], Any]] = {
    "time": lambda entry, now: -entry.when.timestamp(),
    "weight": lambda entry, now: _WEIGHTS.index(entry.weight) if entry.weight in _WEIGHTS else len(_WEIGHTS),
    "subject": lambda entry, now: entry.subject.casefold(),
}


def words(entry: Entry) -> Sequence[str]:
    return entry.kind, entry.subject, entry.text, entry.who


class EventsView(View[Entry]):
    """The timeline."""

    LISTING: ClassVar[Listing[Entry]] = Listing("events", "Events", COLUMNS, SORTS, lambda e: e.key, entry_row, words)
    SOURCES: ClassVar[tuple[str, ...]] = (EVENTS, SERVICES, RUNS, ALERTS)

    def items(self) -> Sequence[Entry]:
        hub, runs = self.hub, self.hub.runs.value
        known = runs.by_id.values() if runs else ()
        services, events = hub.services.value or {}, hub.events.value or {}
        return timeline(known, services, events, hub.stretches, hub.scope.everywhere)

    def snapshot(self) -> Snapshot[Any]:
        """Whichever of the four is there: half a timeline is better than none."""
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
            self.post_message(OpenRun(runs.by_id[entry.ref]))
        elif entry.ref in services:
            self.post_message(OpenService(entry.ref))
        else:
            self.notify("What it is about is not there any more.", timeout=3)
