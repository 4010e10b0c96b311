"""Entries of the timeline as rows: in the Events view, and in an opened service."""

from __future__ import annotations

from datetime import datetime

from kanary.snapshot_timeline import BAD, GOOD, RUN, WARNING, Entry
from tui.look import clock_time
from tui.table import Cell, Row

_SIGNS = {GOOD: ("✓", "good"), WARNING: ("!", "warn"), BAD: ("✗", "bold bad")}


def entry_row(entry: Entry, now: datetime) -> Row:
    """An entry of the timeline: when, kind, subject, the subject's name, who, what."""
    sign, style = _SIGNS.get(entry.weight, (" ", ""))
    return (
        Cell(clock_time(entry.when, now), "dim"),
        Cell(f"{sign} {entry.kind}", style),
        Cell(entry.subject),
        Cell(entry.subject if entry.kind == RUN else entry.subject.rpartition("/")[2]),
        Cell(entry.who, "dim"),
        Cell(entry.text, style if entry.weight in (BAD, WARNING) else ""),
    )
