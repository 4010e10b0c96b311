"""The root of the monitor: its numbered views, one shown at a time."""

from __future__ import annotations

import asyncio
import importlib
from typing import ClassVar

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import ContentSwitcher

from kanary.snapshot_hub import RIGHTS, Hub
from tui.actions import bindings
from tui.header import Header
from tui.keys import KeyLine
from tui.runs import RunsView
from tui.view import View

# The first picture waits for the first view alone.
_LATER = {
    "services": "tui.services:ServicesView",
    "drift": "tui.drift:DriftView",
    "events": "tui.events:EventsView",
}


class MainScreen(Screen[None]):
    """Header, the view that is looked at, and the keys."""

    PLACES: ClassVar[tuple[str, ...]] = ("main",)
    BINDINGS = bindings("main")
    DEFAULT_CSS = """
    MainScreen > ContentSwitcher { height: 1fr; }
    """

    def __init__(self, hub: Hub, begin: str = "") -> None:
        super().__init__()
        self._hub, self._begin = hub, begin
        first = RunsView(hub)
        self._views: dict[str, View[object]] = {"runs": first}  # type: ignore[dict-item]
        # Held, not queried: an answer may still come while the screen is being taken down.
        self._header = Header(hub, "runs", RunsView.SOURCES)
        self._switcher = ContentSwitcher(first, initial="runs")
        self._making = asyncio.Lock()

    def compose(self) -> ComposeResult:
        yield self._header
        yield self._switcher
        yield KeyLine()

    def on_mount(self) -> None:
        self.view.table.focus()
        self.set_interval(1.0, self._tick)
        self.call_after_refresh(lambda: self.run_worker(self._make_the_rest(), group="views"))

    async def _make_the_rest(self) -> None:
        if self._begin in _LATER:
            await self._show(self._begin)
        for name in _LATER:
            await self._make(name)

    async def _make(self, name: str) -> None:
        async with self._making:
            if name not in self._views:
                module, _, kind = _LATER[name].partition(":")
                loaded = await asyncio.to_thread(importlib.import_module, module)
                view: View[object] = getattr(loaded, kind)(self._hub)
                view.display = False
                await self._switcher.mount(view)
                self._views[name] = view

    @property
    def view(self) -> View[object]:
        """The view that is shown."""
        return self._views[self._switcher.current or "runs"]

    def changed(self, name: str) -> None:
        """A source has a new snapshot."""
        if name == RIGHTS and self._hub.rights.value and self._hub.rights.value.sentence:
            self.notify(self._hub.rights.value.sentence, title="What may not be done", markup=False, timeout=10)
        if name in self.view.SOURCES:
            self.view.update()
        self._tell()

    def acted(self) -> None:
        """An action was done: the header may have to say so."""
        self._tell()

    def on_screen_resume(self) -> None:
        self.view.update()
        self._tell()

    def _tick(self) -> None:
        if self.is_current:
            self.view.tick()

    def _tell(self) -> None:
        self._header.show(self.view.LISTING.name, self.view.SOURCES, paused=self.view.paused)

    async def _show(self, name: str) -> None:
        if name in _LATER:
            await self._make(name)
        self._switcher.current = name
        self.view.update()
        self.set_focus(self.view.table)  # at once: the next key may have been pressed already
        self._tell()

    async def act_runs(self) -> None:
        await self._show("runs")

    async def act_services(self) -> None:
        await self._show("services")

    async def act_drift(self) -> None:
        await self._show("drift")

    async def act_events(self) -> None:
        await self._show("events")

    def act_quit(self) -> None:
        self.app.exit()
