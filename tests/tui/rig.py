"""Driving the monitor as a person would: keys in, the picture out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from kanary import config
from kanary.config import Config
from kanary.snapshot_hub import Scope
from tui.app import Monitor
from tui.table import KeyedTable

SIZE = (80, 24)


def settings(folder: Path, given: Mapping[str, Any]) -> Config:
    """Settings that know nothing of whoever runs the tests; without a Kubernetes API unless one is given."""
    defaults = {"kubeconfig": str(folder / "no-kubeconfig"), "home": str(folder / "home"), "timeout": 5}
    return config.load(defaults | dict(given), {"HOME": str(folder)}, folder)


def monitor(folder: Path, given: Mapping[str, Any], *, interval: float = 0.2, everywhere: bool = False) -> Monitor:
    """A monitor that asks five times a second."""
    made = settings(folder, given)
    return Monitor(made, Scope(made.namespace, everywhere, interval), theme="kanary")


async def until(pilot: Pilot[None], condition: Callable[[], bool], seconds: float = 40) -> None:
    """Waits until the condition holds; fails with the picture."""
    deadline = time.monotonic() + seconds
    while True:
        await pilot.pause(0.02)
        if condition():
            return
        assert time.monotonic() < deadline, f"not within {seconds} s; the screen:\n{picture(pilot)}"


async def sees(pilot: Pilot[None], text: str, seconds: float = 40) -> None:
    """Waits until the text stands on the screen."""
    await until(pilot, lambda: text in picture(pilot), seconds)


def picture(pilot: Pilot[None]) -> str:
    """What stands on the screen, as text."""
    lines = pilot.app.screen._compositor.render_strips(pilot.app.size)
    return "\n".join(strip.text.rstrip() for strip in lines)


def flat(pilot: Pilot[None]) -> str:
    """The picture in one line: what is wrapped is whole again."""
    return " ".join(picture(pilot).split())


def table(pilot: Pilot[None], name: str = "runs-table") -> KeyedTable:
    return pilot.app.screen.query_one(f"#{name}", KeyedTable)


def text(shown: KeyedTable, key: str, column: str) -> str:
    """A cell as it would be drawn now."""
    return "".join(part for part, _ in shown.cell(key, column).parts)


def column(pilot: Pilot[None], name: str = "runs-table", of: str = "name") -> list[str]:
    shown = table(pilot, name)
    return [text(shown, key, of) for key in shown.keys]


def loaded(pilot: Pilot[None], name: str = "runs-table") -> Callable[[], bool]:
    return lambda: bool(pilot.app.screen.query(f"#{name}")) and table(pilot, name).row_count > 0
