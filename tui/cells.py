"""Cells that several tables have."""

from __future__ import annotations

from datetime import datetime

from kanary.snapshot_timeline import BAD, GOOD, RUN, WARNING, Entry
from tui.look import clock_time, state_sign
from tui.table import Cell, Row

_SIGNS = {GOOD: ("✓", "good"), WARNING: ("!", "warn"), BAD: ("✗", "bold bad")}


def state_cell(state: str, note: str = "") -> Cell:
    """`✓ SUCCEEDED cached`; a state that nobody knows keeps its name."""
    sign, style = state_sign(state)
    return Cell(f"{sign} {state} {note}".rstrip(), style)


def progress_cell(done: int, total: int, state: str, width: int = 12) -> Cell:
    """A bar of tasks done."""
    if not total:
        return Cell("")
    full = width * done // total
    style = {"FAILED": "bad", "SUCCEEDED": "good", "CANCELED": "warn"}.get(state, "info")
    return Cell("", spans=(("━" * full, style), ("─" * (width - full), "dim")))


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
