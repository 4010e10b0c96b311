"""The line of a recording: the moment that is looked at, where it lies between start and end, the keys."""

from __future__ import annotations

from datetime import datetime

from kanary.replay import ReplayHub
from kanary.text import duration
from tui.look import Spans

WIDE = 150  # columns in which one line has room for all
_KEYS = (
    ("Space", "{pause}"),
    (",", "back"),
    (".", "step"),
    ("-", "slower"),
    ("+", "faster"),
    ("<", "start"),
    (">", "end"),
)


def lines(hub: ReplayHub, width: int) -> list[Spans]:
    """One line, or two where it is narrow."""
    moment = datetime.fromtimestamp(hub.position).astimezone()
    gone, all_of_it = hub.position - hub.recording.start, hub.recording.end - hub.recording.start
    sign, style = ("‖", "bold warn") if hub.paused else ("▶", "bold good")
    end = "  end" if hub.at_end else ""
    cut = ": not whole" if hub.at_end and hub.recording.cut else ""
    left: list[tuple[str, str]] = [
        (f"{sign} ×{hub.speed:g}  ", style),
        (f"{moment:%a %Y-%m-%d %H:%M:%S}", "bold"),
        ("  ", ""),
    ]
    right: list[tuple[str, str]] = [(f"  {_span(gone)} of {_span(all_of_it)}{end}{cut}", "dim")]
    keys: list[tuple[str, str]] = []
    for key, what in _KEYS:
        keys += [
            ("  " if keys else "", ""),
            (key, "accent"),
            (f" {what.format(pause='play' if hub.paused else 'hold')}", "dim"),
        ]
    wide = width >= WIDE
    tail = [*right, ("    ", ""), *keys] if wide else right
    taken = sum(len(text) for text, _ in (*left, *tail))
    bar = _bar(gone / all_of_it if all_of_it > 0 else 1.0, max(5, width - taken))
    first = [*left, *bar, *tail]
    return [first] if wide else [first, keys]


def _bar(share: float, width: int) -> Spans:
    at = min(width - 1, int(share * width))
    return (("━" * at, "info"), ("●", "bold info"), ("─" * (width - at - 1), "dim"))


def _span(seconds: float) -> str:
    return duration(float(int(seconds))).replace(".0", "")
