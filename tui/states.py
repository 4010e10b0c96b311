"""How states look: a sign, the word and a colour, so that colour is never the only signal."""

from __future__ import annotations

from datetime import datetime

from tui.table import Cell

_LOOKS = {
    "PENDING": ("…", "dim"),
    "RUNNING": ("▶", "cyan"),
    "SUCCEEDED": ("✓", "green"),
    "SKIPPED": ("↷", "dim"),
    "FAILED": ("✗", "bold red"),
    "CANCELING": ("◌", "yellow"),
    "CANCELED": ("■", "yellow"),
    "PAUSED": ("‖", "yellow"),
}


def state_cell(state: str, note: str = "") -> Cell:
    """`✓ SUCCEEDED cached`; a state that nobody knows keeps its name."""
    sign, style = _LOOKS.get(state, ("?", "bold"))
    return Cell(f"{sign} {state} {note}".rstrip(), style)


def clock_time(moment: datetime | None, now: datetime) -> str:
    """`07:31:08` for today, `11-21 07:31` for another day, in local time."""
    if moment is None:
        return ""
    local = moment.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone().date() else f"{local:%m-%d %H:%M}"
