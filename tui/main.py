"""The root of the monitor: its numbered views, one shown at a time."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Footer

from kanary.snapshot_hub import RIGHTS, Hub
from tui.actions import bindings
from tui.events import EventsView
from tui.header import Header
from tui.runs import RunsView
from tui.services import ServicesView
from tui.view import View


class MainScreen(Screen[None]):
    """Header, the view that is looked at, and the keys."""

    PLACES: ClassVar[tuple[str, ...]] = ("main",)
    BINDINGS = bindings("main")
    DEFAULT_CSS = """
    MainScreen > ContentSwitcher { height: 1fr; }
    """

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub
        self._views: dict[str, View[object]] = {}
        for view in (RunsView(hub), ServicesView(hub), EventsView(hub)):
            self._views[view.LISTING.name] = view  # type: ignore[assignment]
        # Held, not queried: an answer may still come while the screen is being taken down.
        self._header = Header(hub, "runs", RunsView.SOURCES)
        self._switcher = ContentSwitcher(*self._views.values(), initial="runs")

    def compose(self) -> ComposeResult:
        yield self._header
        yield self._switcher
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.view.table.focus()
        self.set_interval(1.0, self._tick)

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

    def _show(self, name: str) -> None:
        self._switcher.current = name
        self.view.update()
        self.view.table.focus()
        self._tell()

    def act_runs(self) -> None:
        self._show("runs")

    def act_services(self) -> None:
        self._show("services")

    def act_events(self) -> None:
        self._show("events")

    def act_quit(self) -> None:
        self.app.exit()
