"""The monitor on a recording, and the `kanary replay` verb: pause, step, speed. Asks no server."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding
from textual.screen import ModalScreen
from textual.widgets import Input

from kanary.commands.numbers import from_zero
from kanary.config import Config
from kanary.recording import read
from kanary.replay import SPEEDS, ReplayHub
from tui.actions import bindings
from tui.app import Monitor, log_to_file, needs_terminal
from tui.look import THEMES

if TYPE_CHECKING:
    from kanary.cli import Action

_NOT_THERE = {
    "runs.archived": "A recording holds the runs that were listed when it was made.",
    "drift.span": "A recording holds the span of the past that was read when it was made.",
    "refresh": "This is a recording: there is no server to ask.",
}


class Replay(Monitor):
    """What a monitor saw, at the moment that is looked at; its keys work wherever nobody types."""

    PLACES: ClassVar[tuple[str, ...]] = ("replay",)
    # Before those of the screens: the space bar holds the recording, not the picture.
    BINDINGS: ClassVar = [replace(one, priority=True) for one in bindings("replay") if isinstance(one, Binding)]

    def __init__(self, hub: ReplayHub, theme: str = "") -> None:
        super().__init__(hub.connections.config, theme=theme, hub=hub)
        self._hub = hub

    def _start(self) -> None:
        super()._start()
        if self._hub.recording.cut:
            text = f"It is shown up to there, as far as it is whole: {self._hub.recording.cut}."
            self.notify(text, title="The recording is not whole", severity="warning", markup=False, timeout=15)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        ours = action == "act" and bool(parameters) and str(parameters[0]).startswith("replay.")
        if ours and (isinstance(self.focused, Input) or isinstance(self.screen, ModalScreen)):
            return False
        return super().check_action(action, parameters)

    async def action_act(self, action_id: str) -> None:
        place, _, method = action_id.partition(".")
        if why := _NOT_THERE.get(action_id) or _NOT_THERE.get(method):
            self.notify(why, markup=False, timeout=4)
            return
        await super().action_act("replay.pause" if method == "pause" and place != "replay" else action_id)

    def act_pause(self) -> None:
        if self._hub.paused:
            self._hub.go_on()
        else:
            self._hub.pause()

    def act_forward(self) -> None:
        self._hub.step(1)

    def act_backward(self) -> None:
        self._hub.step(-1)

    def act_faster(self) -> None:
        self._hub.faster(1)

    def act_slower(self) -> None:
        self._hub.faster(-1)

    def act_start(self) -> None:
        self._hub.seek(self._hub.recording.start)

    def act_end(self) -> None:
        self._hub.seek(self._hub.recording.end)


def replay(parser: argparse.ArgumentParser) -> Action:
    """Show in the monitor what `kanary record` has written to a file. Asks no server, changes nothing.

    The line below the header says the time, and the keys: Space holds and goes on, `,` and `.` step from change to
    change, `-` and `+` set the speed, `<` and `>` go to the start and the end.
    """
    parser.add_argument("file", type=Path, metavar="FILE", help="what `kanary record` has written")
    parser.add_argument("--at", type=from_zero, metavar="SECONDS", help="begin so long after its start, and wait there")
    speeds = ", ".join(f"{speed:g}" for speed in SPEEDS)
    parser.add_argument("--speed", type=_speed, default=1.0, metavar="N", help=f"how fast: {speeds} (default: 1)")
    parser.add_argument("--theme", choices=THEMES, metavar="NAME", default="", help="a theme, as of `kanary monitor`")
    return _replay


def _replay(given: argparse.Namespace, config: Config) -> int:
    needs_terminal("In a script, read its lines: zcat FILE.")
    hub = ReplayHub(read(given.file), config, paused=given.at is not None, speed=given.speed)
    if given.at is not None:
        hub.seek(hub.recording.start + given.at)
    log_to_file()
    app = Replay(hub, given.theme)
    app.run()
    return app.return_code or 0


def _speed(text: str) -> float:
    speed = float(text)
    if speed not in SPEEDS:
        raise ValueError
    return speed
