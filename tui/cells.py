"""Cells that several tables have."""

from __future__ import annotations

from tui.look import state_sign
from tui.table import Cell


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
