"""A view: a list of one kind of thing with its title, filter and order. Shows snapshots, asks nobody itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input

from kanary.kfp_types import Run
from kanary.snapshot import Snapshot
from kanary.snapshot_hub import Hub
from tui.actions import bindings
from tui.search import SearchField
from tui.still import StillText
from tui.table import Column, KeyedTable, Row

T = TypeVar("T")


@dataclass(frozen=True)
class Listing(Generic[T]):
    """What a view lists. `sorts`: name -> sort key; the first is what it begins with."""

    name: str
    title: str
    columns: Sequence[Column]
    sorts: Mapping[str, Callable[[T, datetime], Any]]
    key: Callable[[T], str]
    row: Callable[[T, datetime], Row]
    words: Callable[[T], Sequence[str]]  # what the filter looks at


class OpenRun(Message):
    """Somebody wants to see a run."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run


class OpenService(Message):
    """Somebody wants to see a service (namespace/name)."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key


class OpenColumn(Message):
    """Somebody wants to see a column of a model that is watched for drift: its key, and those in the list's order."""

    def __init__(self, key: str, order: Sequence[str]) -> None:
        super().__init__()
        self.key, self.order = key, tuple(order)


def matches(words: Sequence[str], pattern: str) -> bool:
    """Whether one of the words holds the text, upper and lower case alike; `!text`: none of them does."""
    inverted, text = pattern.startswith("!"), pattern.removeprefix("!").strip().casefold()
    if not text:
        return True
    return any(text in word.casefold() for word in words) != inverted


def visible(items: Sequence[T], listing: Listing[T], pattern: str, sort: str, now: datetime) -> list[T]:
    """The items that the filter lets through, in order; equals by the listing's first order."""
    first = next(iter(listing.sorts.values()))
    kept = sorted((item for item in items if matches(listing.words(item), pattern)), key=lambda i: first(i, now))
    by = listing.sorts[sort]
    return kept if by is first else sorted(kept, key=lambda item: by(item, now))


class View(Vertical, Generic[T]):
    """One of the monitor's numbered views. Subclasses say what they list and where it comes from."""

    PLACES: ClassVar[tuple[str, ...]] = ("view",)
    LISTING: ClassVar[Listing[Any]]
    SOURCES: ClassVar[tuple[str, ...]] = ()
    BINDINGS = bindings("view")
    DEFAULT_CSS = """
    View { height: 1fr; }
    View > .title { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; text-style: bold; }
    View > KeyedTable { height: 1fr; }
    View.stale > KeyedTable { opacity: 55%; }
    View > .filter { display: none; height: 1; border: none; padding: 0 1; background: $panel; }
    View.filtering > .filter { display: block; }
    View > .empty { display: none; height: 1fr; padding: 1 2; color: $foreground 60%; }
    View.empty > .empty { display: block; }
    View.empty > KeyedTable { display: none; }
    """

    def __init__(self, hub: Hub) -> None:
        super().__init__(id=self.LISTING.name)
        self.hub = hub
        self.paused = False
        self.sort = next(iter(self.LISTING.sorts))
        self._shown: dict[str, T] = {}
        self._listed: tuple[object, str] = (None, "")
        # Held, not queried: an answer may still come while the screen is being taken down.
        self._title = StillText(classes="title")
        self.table = KeyedTable(self.LISTING.columns, id=f"{self.LISTING.name}-table")
        self._empty = StillText(classes="empty")
        self._empty.can_focus = True
        self._filter = SearchField("text to find; !text to leave out", classes="filter")

    def compose(self) -> ComposeResult:
        yield self._title
        yield self.table
        yield self._empty

    def on_mount(self) -> None:
        # The first picture does not wait for it; who types at once finds it there.
        self.call_after_refresh(self._add_filter)

    def _add_filter(self) -> None:
        self.mount(self._filter)

    # ---- what subclasses say

    def items(self) -> Sequence[T]:
        """What there is to list now."""
        raise NotImplementedError

    def source(self) -> object:
        """What `items` come from, where it is another object whenever they or their order change; else None."""
        return None

    def snapshot(self) -> Snapshot[Any]:
        """The snapshot that the list depends on most."""
        return self.hub.snapshot(self.SOURCES[0])

    def total(self, known: int) -> int:
        """How many there are, read or not."""
        return known

    def empty_text(self) -> str:
        """What to say where there is nothing."""
        return "Nothing there."

    # ---- showing

    @property
    def pattern(self) -> str:
        return self._filter.value

    @property
    def current(self) -> T | None:
        """What is under the cursor."""
        return self._shown.get(self.table.selected or "")

    def item(self, key: str) -> T | None:
        return self._shown.get(key)

    def update(self) -> None:
        """Shows what is known now, unless the picture is held."""
        if self.paused or not self.is_mounted:
            return
        snapshot = self.snapshot()
        self.set_class(bool(snapshot.error), "stale")
        if snapshot.value is None:
            self._listed = (None, "")
            self._title.tell(Text(self.LISTING.title, no_wrap=True))
            return
        source, wanted = self.source(), f"{self.sort} {self.pattern}"
        if source is not None and source is self._listed[0] and wanted == self._listed[1]:
            return  # thousands of rows need not be put in order again
        self._listed = (source, wanted)
        now, items = self.hub.now(), self.items()
        shown = visible(items, self.LISTING, self.pattern, self.sort, now)
        self._shown = {self.LISTING.key(item): item for item in shown}
        self._title.tell(self._title_text(len(shown), self.total(len(items))))
        self._empty.tell(Text("Nothing matches the filter. Esc takes it away." if items else self.empty_text()))
        self.set_class(not shown, "empty")
        self.table.show(list(self._shown), self._row)
        self.call_after_refresh(self._keep_keys)

    def _keep_keys(self) -> None:
        """Where the table with the focus has gone, or came back, the view's keys go on working."""
        if self.display and self.is_mounted and self.screen.focused in (None, self._empty):
            self.screen.set_focus(self._empty if self.has_class("empty") else self.table)

    def tick(self) -> None:
        """A second has passed: ages and durations go on."""
        if not self.paused:
            self.table.redraw()

    def _row(self, key: str) -> Row:
        return self.LISTING.row(self._shown[key], self.hub.now())

    def _title_text(self, shown: int, total: int) -> Text:
        count = f"{shown} of {total}" if shown != total else str(shown)
        found = f"  filter: {self.pattern}" if self.pattern else ""
        return Text(f"{self.LISTING.title} ({count}), by {self.sort}{found}", no_wrap=True, overflow="ellipsis")

    # ---- acts

    def act_filter(self) -> None:
        self.add_class("filtering")
        self.screen.set_focus(self._filter)

    def act_clear(self) -> None:
        self._filter.value = ""
        self.remove_class("filtering")
        self.screen.set_focus(self.table)
        self.screen.refresh_bindings()
        self.update()

    def offers_clear(self) -> bool:
        """Whether there is a filter to take away."""
        return self.has_class("filtering")

    @on(Input.Changed, ".filter")
    def _filter_changed(self) -> None:
        self.update()

    @on(Input.Submitted, ".filter")
    def _filter_kept(self) -> None:
        self.set_class(bool(self.pattern), "filtering")
        self.screen.set_focus(self.table)

    def act_sort(self) -> None:
        names = list(self.LISTING.sorts)
        self.sort = names[(names.index(self.sort) + 1) % len(names)]
        self.update()

    def act_refresh(self) -> None:
        self.hub.wake(*self.SOURCES)

    def act_pause(self) -> None:
        self.paused = not self.paused
        self.update()

    def act_copy(self) -> None:
        if self.table.selected:
            self.app.copy_to_clipboard(self.table.selected)
            self.notify(f"Copied: {self.table.selected}", markup=False, timeout=3)
