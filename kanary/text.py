"""Text for people: durations, rates, tables, and server text made harmless for a terminal. Never prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movements
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS: titles, clipboard
    r"|\x1b[ -/]*[0-~]"
)
# What a terminal would act on, and the marks that make text read in another order than it is.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069]")


def plain(text: str) -> str:
    """`text` without terminal escapes; any other control character but newline and tab becomes U+FFFD."""
    return _CONTROLS.sub("\ufffd", _ESCAPES.sub("", text))


def one_line(text: str) -> str:
    """`text`, harmless, with every run of white space made one blank: for a cell or a title."""
    return plain(" ".join(text.split()))


def log_lines(text: str) -> list[str]:
    """The lines of a log as a terminal would leave them: harmless, and only the last state of a progress bar."""
    return [plain(line.rstrip("\r").rpartition("\r")[2]).expandtabs() for line in text.split("\n")]


def timed(line: str) -> tuple[datetime | None, str]:
    """When a line was written, and the line, where its server put the time before it (RFC 3339); else the line."""
    head, _, rest = line.partition(" ")
    if len(head) < 20 or not head[0].isdigit() or head[10] != "T":
        return None, line
    try:
        moment = datetime.fromisoformat(head)
    except ValueError:
        return None, line
    return (moment, rest) if moment.tzinfo else (None, line)


def duration(seconds: float | None) -> str:
    """`0.4 s`, `12 s`, `3m 05s`, `2h 07m`, `3d 04h`; empty for None."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def rate(value: float | None) -> str:
    """Requests a second: `0`, `0.42`, `8.1`, `120`, `12k`."""
    if value is None:
        return "–"
    if value >= 9950:
        return f"{value / 1000:.0f}k"
    if value < 0.005:
        return "0"
    return f"{value:.{2 if value < 0.995 else 1 if value < 99.5 else 0}f}"


def percent(share: float | None) -> str:
    """A share as `0 %`, `0.3 %`, `12 %`; `–` where none is known."""
    if share is None:
        return "–"
    value = 100 * share
    return f"{value:.{0 if value == 0 else 2 if value < 0.1 else 1 if value < 10 else 0}f} %"


def latency(seconds: float | None) -> str:
    """A latency as `0.8 ms`, `12 ms`, `1.3 s`; `–` where none is known."""
    if seconds is None:
        return "–"
    ms = 1000 * seconds
    return f"{ms:.1f} ms" if ms < 9.95 else f"{ms:.0f} ms" if ms < 999.5 else f"{seconds:.1f} s"


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` characters, the end cut with an ellipsis."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, two blanks between them, nothing cut: for eyes, grep and awk alike."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [headers, *cells])
    return "\n".join(line.rstrip() for line in lines)
