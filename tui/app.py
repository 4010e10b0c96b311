"""The monitor's application and the `kanary monitor` verb."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import logging
import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual.app import App
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.dom import DOMNode
from textual.screen import Screen
from textual.worker import Worker, WorkerError

from kanary.config import Config, state_folder
from kanary.errors import InputError
from kanary.snapshot_connections import Connections
from kanary.snapshot_hub import Hub, Scope
from tui.actions import ACTIONS, BY_ID, PLACES, bindings, key_names
from tui.actions import Action as Entry
from tui.header import VIEWS
from tui.look import DARK, LIGHT, THEMES, default_theme
from tui.main import MainScreen
from tui.view import OpenColumn, OpenRun, OpenService

if TYPE_CHECKING:
    from kanary.cli import Action


_BY_CALL = {entry.call: entry for entry in ACTIONS}
_DRIVER = "TEXTUAL_DRIVER"  # set where Textual speaks to something else than a terminal: `kanary web`


class Commands(Provider):
    """The actions that the screen below the palette offers, by name."""

    async def discover(self) -> Hits:
        for entry in self._offered():
            yield DiscoveryHit(_title(entry), partial(self._run, entry), help=entry.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for entry in self._offered():
            title = _title(entry)
            score = max(matcher.match(title), matcher.match(entry.id))
            if score > 0:
                yield Hit(score, matcher.highlight(title), partial(self._run, entry), help=entry.help)

    def _offered(self) -> Iterator[Entry]:
        app = self.app
        assert isinstance(app, Monitor)
        places = {place for node in app.nodes(self.screen) for place in getattr(node, "PLACES", ())}
        return (entry for entry in ACTIONS if entry.place in places and entry.call.startswith("app.act"))

    async def _run(self, entry: Entry) -> None:
        app = self.app
        assert isinstance(app, Monitor)
        await app.action_act(entry.id)


class Monitor(App[None]):
    """Watches one Kubeflow: its pipeline runs, its services, what happens. `scope` says where and how often."""

    TITLE = "kanary"
    BINDINGS = bindings("app")
    COMMANDS: ClassVar[set[Any]] = App.COMMANDS | {Commands}
    COMMAND_PALETTE_BINDING = "ctrl+p"
    CSS = """
    MainScreen, RunScreen, ServiceScreen, ColumnScreen { background: $background; }
    VerticalScroll { scrollbar-size-vertical: 1; scrollbar-background: $background; scrollbar-color: $foreground 25%;
        scrollbar-corner-color: $background; }
    Toast { max-width: 70; }
    """

    def __init__(
        self,
        config: Config,
        scope: Scope | None = None,
        theme: str = "",
        view: str = "",
        *,
        hub: Hub | None = None,
    ) -> None:
        super().__init__()
        for own in (DARK, LIGHT):
            self.register_theme(own)
        # Before the style sheets are read: set later, they would be read twice.
        self.set_reactive(App.theme, theme or default_theme(os.environ))
        self.stylesheet.set_variables(self.get_css_variables())
        self.hub = hub or Hub(Connections(config), scope or Scope(config.namespace))
        self.hub.on_change = self._changed
        self._following: Worker[None] | None = None
        self._view = view
        self._server = os.getppid() if os.environ.get(_DRIVER) else None

    def get_default_screen(self) -> Screen[None]:
        # Not one above an empty one: that would be laid out, too.
        return MainScreen(self.hub, self._view)

    def on_mount(self) -> None:
        if self._server is not None:
            # Nobody could reach a monitor whose server is gone; it would go on asking the cluster.
            self.set_interval(1.0, lambda: self.exit() if os.getppid() != self._server else None)
        # The first picture waits for no import and no network.
        self.call_after_refresh(self._start)

    def _start(self) -> None:
        self._following = self.run_worker(self.hub.run(), group="hub", exclusive=True)

    async def on_unmount(self) -> None:
        # First who asks, then what they ask through: a request on a closed client would be logged as a fault.
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(WorkerError):
                await self._following.wait()
        await self.hub.connections.close()

    def _changed(self, name: str) -> None:
        for screen in self.screen_stack:
            changed = getattr(screen, "changed", None)
            # Screens below others look when they come up again.
            if changed is not None and (screen.is_current or not isinstance(screen, MainScreen)):
                changed(name)

    def on_open_run(self, event: OpenRun) -> None:
        from tui.run import RunScreen  # here and below: not before the first picture

        self.push_screen(RunScreen(self.hub, event.run))

    def on_open_service(self, event: OpenService) -> None:
        from tui.service import ServiceScreen

        self.push_screen(ServiceScreen(self.hub, event.key))

    def on_open_column(self, event: OpenColumn) -> None:
        from tui.drift_column import ColumnScreen

        self.push_screen(ColumnScreen(self.hub, event.key, event.order))

    def on_key(self, event: events.Key) -> None:
        """A key that was pressed before the field it is meant for had the focus goes into the field."""
        focused = self.focused
        if focused is not None and focused.check_consume_key(event.key, event.character):
            event.prevent_default()
            focused.post_message(events.Key(event.key, event.character))

    # ---- every action goes through here

    async def action_act(self, action_id: str) -> None:
        """Does what an action of the registry says, if it may be done here; else says why not."""
        entry = BY_ID[action_id]
        node = self._node(entry, self.screen)
        if node is None:
            return
        if entry.destructive and (why := self._forbidden(entry)):
            self.notify(why, title=f"{entry.label} is refused", severity="warning", markup=False)
            return
        done = getattr(node, f"act_{entry.method}")()
        if inspect.isawaitable(done):
            await done
        acted = getattr(self.screen, "acted", None)
        if acted is not None:
            acted()

    def offers(self, action: str, screen: Screen[object]) -> bool:
        """Whether a screen's key line names it: nothing that is refused here in any case, or has no object."""
        entry = _BY_CALL.get(action)
        if entry is None:
            return True
        if entry.destructive and (self.hub.recorded or self.hub.readonly):
            return False
        asked = getattr(self._node(entry, screen), f"offers_{entry.method}", None)
        return asked is None or bool(asked())

    def _node(self, entry: Entry, screen: Screen[object]) -> DOMNode | None:
        """What does it there, if there is such a thing."""
        return next((node for node in self.nodes(screen) if entry.place in getattr(node, "PLACES", ())), None)

    def nodes(self, screen: Any) -> Iterator[DOMNode]:
        """Where an action may belong to: from the focus upwards, then the view that is shown."""
        focused = screen.focused
        if focused is not None:
            yield from focused.ancestors_with_self
        else:
            yield from screen.ancestors_with_self
        if isinstance(screen, MainScreen):
            yield screen.view

    def _forbidden(self, entry: Entry) -> str:
        """Why it may not be done; empty where it may."""
        if self.hub.recorded:
            return "This is a recording: nothing can be changed."
        if self.hub.readonly:
            where = "by its settings" if self.hub.connections.config.readonly else f"in {self.hub.context}"
            return f"The monitor is read-only {where}: nothing is changed. `kanary info` says where that is set."
        rights = self.hub.rights.value
        missing = rights.lacks.get("change services", ()) if rights and entry.place == "services" else ()
        return f"{rights.user} may not: {', '.join(missing)}." if rights and missing else ""

    def action_help(self) -> None:
        from tui.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(recorded=self.hub.recorded))


def _title(entry: Entry) -> str:
    return f"{PLACES[entry.place]}: {entry.label}  ({key_names(entry)})"


def monitor(parser: argparse.ArgumentParser) -> Action:
    """Watch pipeline runs, services and their traffic in the terminal, and steer them.

    Keys are shown at the bottom; `?` lists all of them.
    """
    parser.add_argument(
        "--refresh",
        type=_seconds,
        default=2.0,
        metavar="SECONDS",
        help="how often to ask servers while something moves (default: 2)",
    )
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="services of all namespaces")
    parser.add_argument("--view", choices=tuple(VIEWS), default="runs", help="the view to begin with (default: runs)")
    parser.add_argument("--theme", choices=THEMES, metavar="NAME", default="", help=f"one of {', '.join(THEMES)}")
    return _monitor


def _monitor(given: argparse.Namespace, config: Config) -> int:
    needs_terminal("In a script, use `kanary runs`, `run` and `status`.")
    log_to_file()
    app = Monitor(config, Scope(config.namespace, given.all_namespaces, given.refresh), given.theme, given.view)
    app.run()
    return app.return_code or 0


def needs_terminal(instead: str) -> None:
    """Raises InputError where there is none."""
    if not (os.environ.get(_DRIVER) or (os.isatty(0) and os.isatty(1))):
        raise InputError("The monitor needs a terminal.", instead)


def log_to_file() -> None:
    """What goes wrong inside the monitor is written where `kanary info` says, never on the picture."""
    folder = state_folder(os.environ)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(folder / "monitor.log", encoding="utf-8", delay=True)
    except OSError:
        return  # a read-only home folder keeps nobody from looking
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.getLogger("kanary").addHandler(handler)
    logging.getLogger("kanary").propagate = False


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.2 <= seconds <= 3600:
        raise ValueError
    return seconds
