"""The monitor's application and the `kanary monitor` verb."""

from __future__ import annotations

import argparse
import logging
import os
from typing import TYPE_CHECKING

from textual.app import App

from kanary.config import Config, state_folder
from kanary.errors import InputError
from tui.actions import bindings
from tui.help import HelpScreen
from tui.runs import RunsScreen
from tui.source import Source

if TYPE_CHECKING:
    from kanary.cli import Action


class Monitor(App[None]):
    """Watches one Kubeflow Pipelines server. `refresh` is in seconds."""

    TITLE = "kanary"
    BINDINGS = bindings("app")
    COMMAND_PALETTE_BINDING = "ctrl+p"

    def __init__(self, config: Config, refresh: float = 2.0) -> None:
        super().__init__()
        self._source = Source(config)
        self._interval = refresh

    def on_mount(self) -> None:
        self.push_screen(RunsScreen(self._source, self._interval))

    async def on_unmount(self) -> None:
        await self._source.close()

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())


def monitor(parser: argparse.ArgumentParser) -> Action:
    """Watch pipeline runs in the terminal: their tasks, why they failed, their logs.

    Keys are shown at the bottom; `?` lists all of them.
    """
    parser.add_argument(
        "--refresh", type=_seconds, default=2.0, metavar="SECONDS", help="how often to ask the server (default: 2)"
    )
    return _monitor


def _monitor(given: argparse.Namespace, config: Config) -> int:
    if not (os.isatty(0) and os.isatty(1)):
        raise InputError("The monitor needs a terminal.", "In a script, use `kanary runs` and `kanary run RUN`.")
    _log_to_file()
    app = Monitor(config, given.refresh)
    app.run()
    return app.return_code or 0


def _log_to_file() -> None:
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
