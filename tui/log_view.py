"""Lines of a log: followed, searched, wrapped, saved. What it is given has been made harmless already."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.actions import bindings

_STAMP = 13  # characters of a time: `07:31:08.123`, `~07:31:08`, `11-21 07:31`


class LogView(ScrollView, can_focus=True):
    """At most `max_lines` lines; the oldest go first."""

    BINDINGS = bindings("log")
    COMPONENT_CLASSES: ClassVar[set[str]] = {"log--match"}
    DEFAULT_CSS = """
    LogView { height: 1fr; overflow-x: auto; overflow-y: auto; scrollbar-size-vertical: 1;
        scrollbar-size-horizontal: 1; scrollbar-background: $background; scrollbar-color: $foreground 25%;
        scrollbar-corner-color: $background; background: $background; color: $foreground; }
    LogView > .log--match { background: $primary; color: $background; }
    LogView:ansi > .log--match { text-style: reverse; }
    """

    class Changed(Message):
        """Following, wrapping or the matches have changed."""

    class Find(Message):
        """Somebody wants to find something."""

    class Save(Message):
        """Somebody wants the log in a file."""

    def __init__(self, *, max_lines: int = 20_000, id: str | None = None) -> None:
        super().__init__(id=id)
        self._max_lines = max_lines
        self.lines: list[str] = []
        self._drawn: list[tuple[int, str]] = []  # (line, piece), where wrapped
        self.stamps: list[str] = []  # when each line was written, as it is shown; empty where nobody knows
        self.follow = True
        self.wrap = False
        self.times = False
        self.pattern = ""
        self.match = -1  # the line of the current match
        self._widest = 0

    @property
    def line_count(self) -> int:
        return len(self.lines)

    @property
    def matches(self) -> list[int]:
        """The lines that hold the pattern."""
        text = self.pattern.casefold()
        return [index for index, line in enumerate(self.lines) if text in line.casefold()] if text else []

    def clear(self) -> None:
        self.lines, self.stamps, self._drawn, self._widest, self.match, self.follow = [], [], [], 0, -1, True
        self._measure()

    def write_lines(self, lines: Sequence[str], stamps: Sequence[str] = ()) -> None:
        """Adds lines, each with when it was written, or none with any."""
        self.lines.extend(lines)
        self.stamps.extend(stamps or [""] * len(lines))
        over = len(self.lines) - self._max_lines
        if over > 0:
            del self.lines[:over], self.stamps[:over]
            self.match = max(-1, self.match - over)
            self._fold()
        elif self.wrap:
            self._drawn.extend(self._folded(len(self.lines) - len(lines)))
        self._widest = max([self._widest, *map(cell_len, lines)])
        self._measure()

    def find(self, pattern: str) -> None:
        """The next match of this text from where we are, or no pattern at all."""
        self.pattern = pattern
        self.match = -1
        if pattern:
            self._go_to_match(1, self._first_line())
        self.refresh()
        self.post_message(self.Changed())

    def save(self, folder: Path, name: str, now: datetime) -> Path:
        """Writes the log into a new file of the folder, and gives its path. Raises OSError."""
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "log"
        path = folder / f"kanary-{safe[:80]}-{now:%Y%m%d-%H%M%S}.log"
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            beside.write_text("".join(f"{self._text(i)}\n" for i in range(len(self.lines))), encoding="utf-8")
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
        return path

    # ---- keys

    def action_follow(self) -> None:
        self.follow = not self.follow
        self._measure()
        self.post_message(self.Changed())

    def action_wrap(self) -> None:
        self.wrap = not self.wrap
        self._fold()
        self._measure()
        self.post_message(self.Changed())

    def action_times(self) -> None:
        self.times = not self.times
        self._fold()
        self._measure()
        self.post_message(self.Changed())

    def action_find(self) -> None:
        self.post_message(self.Find())

    def action_save(self) -> None:
        self.post_message(self.Save())

    def action_next_match(self) -> None:
        self._go_to_match(1, self.match + 1)

    def action_previous_match(self) -> None:
        self._go_to_match(-1, self.match - 1)

    def action_line_down(self) -> None:
        self._scroll(1)

    def action_line_up(self) -> None:
        self._scroll(-1)

    def action_page_down(self) -> None:
        self._scroll(max(1, self.size.height - 1))

    def action_page_up(self) -> None:
        self._scroll(-max(1, self.size.height - 1))

    def action_top(self) -> None:
        self._leave_end()
        self.scroll_to(y=0, animate=False)

    def action_bottom(self) -> None:
        self.follow = True
        self._measure()
        self.post_message(self.Changed())

    def _scroll(self, lines: int) -> None:
        if lines < 0:
            self._leave_end()
        self.scroll_to(y=max(0, min(self.max_scroll_y, round(self.scroll_y) + lines)), animate=False)

    def on_mouse_scroll_up(self) -> None:
        self._leave_end()

    def _leave_end(self) -> None:
        """Who scrolls back wants to read: new lines must not carry the picture away."""
        if self.follow and self.max_scroll_y > 0:
            self.follow = False
            self.post_message(self.Changed())

    def _go_to_match(self, step: int, start: int) -> None:
        found = self.matches
        if not found:
            self.post_message(self.Changed())
            return
        ahead = [line for line in found if line >= start] if step > 0 else [line for line in found if line <= start]
        self.match = (ahead[0] if step > 0 else ahead[-1]) if ahead else (found[0] if step > 0 else found[-1])
        self._leave_end()
        row = next((i for i, (line, _) in enumerate(self._drawn) if line == self.match), 0) if self.wrap else self.match
        if not round(self.scroll_y) <= row < round(self.scroll_y) + self.size.height:
            self.scroll_to(y=max(0, row - self.size.height // 2), animate=False)
        self.refresh()
        self.post_message(self.Changed())

    def _first_line(self) -> int:
        row = round(self.scroll_y)
        if self.wrap:
            return self._drawn[row][0] if row < len(self._drawn) else 0
        return row

    # ---- drawing

    def _text(self, index: int) -> str:
        """A line as it is shown and saved: after its time, where times are wanted."""
        return f"{self.stamps[index]:{_STAMP}} {self.lines[index]}" if self.times else self.lines[index]

    def on_resize(self) -> None:
        if self.wrap:
            self._fold()
        self._measure()

    def _fold(self) -> None:
        self._drawn = self._folded(0) if self.wrap else []

    def _folded(self, start: int) -> list[tuple[int, str]]:
        width = max(10, self.scrollable_content_region.width)
        return [
            (index, piece)
            for index in range(start, len(self.lines))
            for piece in (chop_cells(self._text(index), width) or [""])
        ]

    def _measure(self) -> None:
        height = len(self._drawn) if self.wrap else len(self.lines)
        before = _STAMP + 1 if self.times else 0
        width = self.scrollable_content_region.width if self.wrap else max(self._widest + before, 1)
        self.virtual_size = Size(width, height)
        if self.follow:
            self.scroll_to(y=max(0, height - self.scrollable_content_region.height), animate=False)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        row, base, width = round(self.scroll_y) + y, self.rich_style, self.size.width
        if self.wrap:
            line, text = self._drawn[row] if row < len(self._drawn) else (-1, "")
        else:
            line, text = (row, self._text(row)) if row < len(self.lines) else (-1, "")
        style = base + Style(reverse=True) if line == self.match and line >= 0 else base
        segments = self._marked(text, style)
        strip = Strip(segments)
        left = 0 if self.wrap else round(self.scroll_x)
        return strip.adjust_cell_length(max(width + left, strip.cell_length), style).crop(left, left + width)

    def _marked(self, text: str, base: Style) -> list[Segment]:
        """The text with every match marked."""
        wanted, low = self.pattern.casefold(), text.casefold()
        # Some characters change their length when they are folded: then the line is found, its match not marked.
        if not wanted or len(low) != len(text) or wanted not in low:
            return [Segment(text, base)]
        marked = self.get_component_rich_style("log--match")
        segments, at = [], 0
        while (found := low.find(wanted, at)) >= 0:
            segments += [Segment(text[at:found], base), Segment(text[found : found + len(wanted)], marked)]
            at = found + len(wanted)
        return [*segments, Segment(text[at:], base)]
