"""A table whose rows have keys: showing new data changes only the cells that differ and keeps cursor and scroll."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text
from textual.coordinate import Coordinate
from textual.widgets import DataTable

from kanary.text import one_line
from tui.actions import bindings

_SLICE = 0.010  # seconds of changes before keys get their turn


@dataclass(frozen=True)
class Cell:
    """One cell: text that is never markup, a style of the terminal's own colours, and blanks before the text."""

    text: str
    style: str = ""
    indent: int = 0


@dataclass(frozen=True)
class Column:
    """A column `width` characters wide; the one with width 0 takes what is left."""

    key: str
    label: str
    width: int


class _Shown(Text):
    """A cell's text that knows its row, because a DataTable sorts by cells only."""

    row_key = ""


class KeyedTable(DataTable[Text]):
    """Rows by key, in the order that they are given."""

    BINDINGS = bindings("list")
    DEFAULT_CSS = "KeyedTable { overflow-x: hidden; scrollbar-gutter: stable; }"

    def __init__(self, columns: Sequence[Column], *, id: str) -> None:
        super().__init__(id=id, cursor_type="row", zebra_stripes=False, header_height=1)
        self._specs = columns
        self._rows_shown: dict[str, tuple[Cell, ...]] = {}
        self._order: list[str] = []
        self._updating = asyncio.Lock()

    def on_mount(self) -> None:
        for column in self._specs:
            self.add_column(Text(column.label), width=column.width or 10, key=column.key)

    def on_resize(self) -> None:
        """Gives the one flexible column what the others leave."""
        width = self.scrollable_content_region.width
        taken = sum(column.width for column in self._specs) + 2 * self.cell_padding * len(self._specs)
        for spec, column in zip(self._specs, self.ordered_columns, strict=True):
            if spec.width == 0 and column.width != max(10, width - taken):
                column.width = max(10, width - taken)
                self._require_update_dimensions = True
                self._clear_caches()
                self.refresh()

    @property
    def selected(self) -> str | None:
        """The key of the row under the cursor."""
        if not self.is_valid_row_index(self.cursor_row):
            return None
        return self.coordinate_to_cell_key(Coordinate(self.cursor_row, 0)).row_key.value

    async def show(self, rows: Mapping[str, Sequence[Cell]]) -> None:
        """Makes the table hold exactly `rows`, in their order."""
        async with self._updating:
            selected, cursor = self.selected, self.cursor_row
            offset = cursor - round(self.scroll_y)
            deadline = time.monotonic() + _SLICE
            for key in [key for key in self._rows_shown if key not in rows]:
                self.remove_row(key)
                del self._rows_shown[key]
                deadline = await _breathe(deadline)
            for key, cells in rows.items():
                self._show_row(key, tuple(cells))
                deadline = await _breathe(deadline)
            if self._arrange(list(rows)) and selected is not None and selected in rows:
                index = self.get_row_index(selected)
                if index != cursor:
                    # The row stays where it is on the screen, the others move around it.
                    self.move_cursor(row=index, scroll=False)
                    if round(self.scroll_y) > 0:
                        self.scroll_to(y=max(0, index - offset), animate=False)

    def _show_row(self, key: str, cells: tuple[Cell, ...]) -> None:
        shown = self._rows_shown.get(key)
        if shown is None:
            self.add_row(*(_text(key, cell) for cell in cells), key=key)
        else:
            for column, old, new in zip(self._specs, shown, cells, strict=True):
                if old != new:
                    self.update_cell(key, column.key, _text(key, new))
        self._rows_shown[key] = cells

    def _arrange(self, order: list[str]) -> bool:
        if order == self._order:
            return False
        self._order = order
        rank = {key: position for position, key in enumerate(order)}
        self.sort(self._specs[0].key, key=lambda cell: rank[cell.row_key])
        return True


def _text(key: str, cell: Cell) -> Text:
    text = _Shown(" " * cell.indent + one_line(cell.text), style=cell.style, no_wrap=True, overflow="ellipsis", end="")
    text.row_key = key
    return text


async def _breathe(deadline: float) -> float:
    if time.monotonic() < deadline:
        return deadline
    await asyncio.sleep(0)
    return time.monotonic() + _SLICE
