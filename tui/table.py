"""A table that holds keys and draws what is seen: thousands of rows cost what a screenful costs.

Showing new data keeps cursor and scroll with their row, and draws only the lines that differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.actions import bindings
from tui.look import harmless, style_of, styles

GAP = 2  # blanks between two columns


@dataclass(frozen=True)
class Cell:
    """One cell: text that is never markup, a style's name (tui.look), blanks before it; `spans` for several styles."""

    text: str
    style: str = ""
    indent: int = 0
    spans: tuple[tuple[str, str], ...] = ()

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        return self.spans or ((" " * self.indent + self.text, self.style),)


@dataclass(frozen=True)
class Column:
    """A column `width` characters wide, 0 for what the others leave.

    It is there in tables that are at least `at` and less than `until` characters wide.
    """

    key: str
    label: str
    width: int
    at: int = 0
    right: bool = False
    until: int = 10_000


Row = tuple[Cell, ...]


class KeyedTable(ScrollView, can_focus=True):
    """Rows by key, in the order that they are given; a row's cells are made when it is drawn."""

    BINDINGS = bindings("list")
    COMPONENT_CLASSES: ClassVar[set[str]] = {"table--header", "table--cursor", "table--cursor-blurred"}
    DEFAULT_CSS = """
    KeyedTable { overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; scrollbar-gutter: stable;
        scrollbar-background: $background; scrollbar-color: $foreground 25%; background: $background;
        color: $foreground; }
    KeyedTable > .table--header { color: $foreground 60%; text-style: bold; }
    KeyedTable > .table--cursor { background: $primary 22%; }
    KeyedTable > .table--cursor-blurred { background: $foreground 10%; }
    KeyedTable:ansi > .table--header { color: ansi_default; }
    KeyedTable:ansi > .table--cursor { background: ansi_default; text-style: reverse; }
    KeyedTable:ansi > .table--cursor-blurred { background: ansi_default; text-style: underline; }
    """

    class Highlighted(Message):
        """The cursor stands on another row, or on the last one again."""

        def __init__(self, table: KeyedTable, key: str) -> None:
            super().__init__()
            self.table, self.key = table, key

        @property
        def control(self) -> KeyedTable:
            return self.table

    class Selected(Message):
        """Enter, or a second click, on a row."""

        def __init__(self, table: KeyedTable, key: str) -> None:
            super().__init__()
            self.table, self.key = table, key

        @property
        def control(self) -> KeyedTable:
            return self.table

    def __init__(self, columns: Sequence[Column], *, id: str, header: bool = True) -> None:
        super().__init__(id=id)
        self._columns = tuple(columns)
        self._head = 1 if header else 0
        self._keys: list[str] = []
        self._index: dict[str, int] = {}
        self._cells: Callable[[str], Row] = lambda key: ()
        self._cursor = 0
        self._widths: list[tuple[int, Column, int]] = []  # position, column, width
        self._drawn: dict[int, tuple[str, Row]] = {}  # by line of the screen
        self._strips: dict[object, Strip] = {}
        self._looks: Mapping[str, Style] = {}

    # ---- what is shown

    @property
    def keys(self) -> Sequence[str]:
        return self._keys

    @property
    def row_count(self) -> int:
        return len(self._keys)

    @property
    def cursor_row(self) -> int:
        return self._cursor

    @property
    def selected(self) -> str | None:
        """The key of the row under the cursor."""
        return self._keys[self._cursor] if self._cursor < len(self._keys) else None

    def cell(self, key: str, column: str) -> Cell:
        """One cell as it would be drawn now."""
        position = next(index for index, spec in enumerate(self._columns) if spec.key == column)
        return self._cells(key)[position]

    @property
    def visible_columns(self) -> list[str]:
        return [column.key for _, column, _ in self._widths]

    def show(self, keys: Sequence[str], cells: Callable[[str], Row]) -> None:
        """Makes the table hold exactly these rows. `cells(key)` is asked whenever a row is drawn."""
        before, selected, above = self._keys, self.selected, self._cursor - round(self.scroll_y)
        self._cells = cells
        if keys != before:
            self._keys = list(keys)
            self._index = {key: index for index, key in enumerate(self._keys)}
            self.virtual_size = Size(self.scrollable_content_region.width, len(self._keys) + self._head)
            if selected is not None and selected in self._index:
                self._cursor = self._index[selected]
                if round(self.scroll_y) > 0:
                    # The row stays where it is on the screen, the others move around it.
                    self.scroll_to(y=max(0, self._cursor - above), animate=False)
            else:
                self._cursor = max(0, min(self._cursor, len(self._keys) - 1))
            if self.selected != selected and self.selected is not None:
                self.post_message(self.Highlighted(self, self.selected))
        self.redraw()

    def redraw(self) -> None:
        """Draws the lines whose cells have changed since they were drawn."""
        top = round(self.scroll_y)
        for line in range(self._head, self.size.height):
            key = self._key_at(top + line - self._head)
            drawn = self._drawn.get(line)
            if (drawn is None and key is None) or (drawn is not None and key is not None and drawn[0] == key
                                                   and drawn[1] == self._cells(key)):  # fmt: skip
                continue
            self._refresh_line(line)

    def move_to(self, key: str) -> None:
        """Puts the cursor on that row, if it is there."""
        if key in self._index:
            self._move(self._index[key])

    # ---- keys and mouse

    def action_select_cursor(self) -> None:
        if self.selected is not None:
            self.post_message(self.Selected(self, self.selected))

    def action_cursor_down(self) -> None:
        self._move(self._cursor + 1)

    def action_cursor_up(self) -> None:
        self._move(self._cursor - 1)

    def action_page_down(self) -> None:
        self._move(self._cursor + max(1, self.size.height - self._head - 1))

    def action_page_up(self) -> None:
        self._move(self._cursor - max(1, self.size.height - self._head - 1))

    def action_scroll_top(self) -> None:
        self._move(0)

    def action_scroll_bottom(self) -> None:
        self._move(len(self._keys) - 1)

    def on_click(self, event: events.Click) -> None:
        index = round(self.scroll_y) + event.y - self._head
        if event.y < self._head or self._key_at(index) is None:
            return
        if index == self._cursor:
            self.action_select_cursor()
        else:
            self._move(index)

    def _move(self, index: int) -> None:
        index = max(0, min(index, len(self._keys) - 1))
        before, self._cursor = self._cursor, index
        if self.selected is None:
            return
        rows, top = max(1, self.size.height - self._head), round(self.scroll_y)
        if index < top:
            self.scroll_to(y=index, animate=False)
        elif index >= top + rows:
            self.scroll_to(y=index - rows + 1, animate=False)
        for row in {before, index}:
            self._refresh_line(row - round(self.scroll_y) + self._head)
        self.post_message(self.Highlighted(self, self._keys[index]))

    # ---- drawing

    def on_resize(self) -> None:
        self._lay_out()
        self.virtual_size = Size(self.scrollable_content_region.width, len(self._keys) + self._head)
        self.call_after_refresh(self._keep_in_sight)

    def on_mount(self) -> None:
        self.watch(self.app, "theme", self._forget, init=False)

    def on_focus(self) -> None:
        self._refresh_line(self._cursor - round(self.scroll_y) + self._head)

    def on_blur(self) -> None:
        self._refresh_line(self._cursor - round(self.scroll_y) + self._head)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._forget()

    def _forget(self) -> None:
        self._looks = {}
        self._strips.clear()
        self.refresh()

    def _keep_in_sight(self) -> None:
        rows, top = max(1, self.size.height - self._head), round(self.scroll_y)
        if self._cursor >= top + rows:
            self.scroll_to(y=self._cursor - rows + 1, animate=False)

    def _lay_out(self) -> None:
        width = self.scrollable_content_region.width
        shown = [(index, column) for index, column in enumerate(self._columns) if column.at <= width < column.until]
        taken = sum(column.width for _, column in shown) + GAP * (len(shown) - 1) + 2
        self._widths = [(index, column, column.width or max(8, width - taken)) for index, column in shown]
        self._strips.clear()

    def _key_at(self, index: int) -> str | None:
        return self._keys[index] if 0 <= index < len(self._keys) else None

    def _refresh_line(self, line: int) -> None:
        if 0 <= line < self.size.height:
            self.refresh(Region(0, line, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if not self._looks:
            self._looks = styles(self.app)
        if y < self._head:
            labels = tuple(Cell(column.label) for column in self._columns)
            return self._strip(labels, self.get_component_rich_style("table--header"), width)
        index = round(self.scroll_y) + y - self._head
        key = self._key_at(index)
        if key is None:
            self._drawn.pop(y, None)
            return Strip.blank(width, self.rich_style)
        cells = self._cells(key)
        self._drawn[y] = (key, cells)
        base = self.rich_style
        if index == self._cursor:
            name = "table--cursor" if self.has_focus else "table--cursor-blurred"
            base = self.get_component_rich_style(name)
        return self._strip(cells, base, width)

    def _strip(self, cells: Row, base: Style, width: int) -> Strip:
        cached = self._strips.get((cells, base))
        if cached is None:
            if len(self._strips) > 1000:
                self._strips.clear()
            segments = [Segment(" ", base)]
            for place, (position, column, wide) in enumerate(self._widths):
                if place:
                    segments.append(Segment(" " * GAP, base))
                segments.extend(_drawn(cells[position], wide, column.right, base, self._looks))
            cached = Strip(segments).adjust_cell_length(width, base)
            self._strips[(cells, base)] = cached
        return cached


def _drawn(cell: Cell, width: int, right: bool, base: Style, looks: Mapping[str, Style]) -> list[Segment]:
    """A cell's segments, exactly `width` wide: what is too long ends with an ellipsis."""
    parts = [(harmless(text), style) for text, style in cell.parts]
    total = sum(cell_len(text) for text, _ in parts)
    left = width
    segments = []
    if right and total < width:
        segments.append(Segment(" " * (width - total), base))
        left = total
    for text, style in parts:
        if left <= 0:
            break
        size = cell_len(text)
        if size > left:
            text, size = f"{set_cell_size(text, left - 1)}…", left
        look = style_of(style, looks)
        # In a row in reverse video every colour would be a patch of its own.
        segments.append(Segment(text, base + (Style(bold=look.bold) if base.reverse else look)))
        left -= size
    if left > 0:
        segments.append(Segment(" " * left, base))
    return segments
