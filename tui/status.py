"""The line that always says which server this is, whether it may be changed, and how old the picture is."""

from __future__ import annotations

import time
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from kanary.config import Config
from kanary.text import duration, one_line, shortened
from tui.feed import Snapshot


class StatusBar(Vertical):
    """The top of every screen. It grows by a few lines while its source does not answer."""

    DEFAULT_CSS = """
    StatusBar { height: auto; dock: top; }
    StatusBar > #where { height: 1; background: $panel; color: $foreground; padding: 0 1; }
    StatusBar > #problem { height: auto; max-height: 4; display: none; background: $error 20%; padding: 0 1; }
    StatusBar.problem > #problem { display: block; }
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config
        self._snapshot: Snapshot[Any] = Snapshot()
        self._paused = False
        # Held, not queried: an answer may still come while the screen is being taken down.
        self._where = Static(id="where", markup=False)
        self._problem = Static(id="problem", markup=False)

    def compose(self) -> ComposeResult:
        yield self._where
        yield self._problem

    def on_mount(self) -> None:
        self._tell()
        self.set_interval(1.0, self._tell)

    def on_resize(self) -> None:
        self._tell()

    def show(self, snapshot: Snapshot[Any], *, paused: bool) -> None:
        """What is known of the screen's source now."""
        self._snapshot, self._paused = snapshot, paused
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        self.set_class(bool(self._snapshot.error), "problem")
        self._where.update(where_line(self._config, self._snapshot, self._paused, now, self.size.width - 2))
        self._problem.update(problem_text(self._snapshot, now))


def where_line(config: Config, snapshot: Snapshot[Any], paused: bool, now: float, width: int) -> Text:
    """`kanary  HOST  ns team-a  read-only` and, at the right end, the age of what is shown."""
    mode = "read-only" if config.readonly else ""
    age = age_words(snapshot, now)
    right = f"PAUSED  {age}" if paused else age
    place = f"ns {config.namespace}" if config.namespace else ""
    fixed = sum(len(part) + 2 for part in ("kanary", mode, place, right) if part)
    endpoint = shortened(config.kfp_endpoint.partition("://")[2], max(8, width - fixed))
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("kanary", "bold")
    line.append(f"  {endpoint}")
    if place:
        line.append(f"  {place}")
    if mode:
        line.append(f"  {mode}", "bold")
    line.append(" " * max(2, width - len(line.plain) - len(right)))
    return line.append(right, "bold" if paused or snapshot.error else "")


def age_words(snapshot: Snapshot[Any], now: float) -> str:
    """When the data that are shown came."""
    if snapshot.at is None:
        return "no data" if snapshot.error else "asking ..."
    age = now - snapshot.at
    return "updated now" if age < 1.5 else f"updated {duration(round(age)).replace('.0', '')} ago"


def problem_text(snapshot: Snapshot[Any], now: float) -> Text:
    """Why the newest attempt failed, what to do, and when the next one is; empty where it did not fail."""
    if not snapshot.error:
        return Text("")
    left = max(0, round((snapshot.retry_at or now) - now))
    again = f"next try in {left} s, r tries now" if left else "trying again"
    first = f"✗ {one_line(snapshot.error)} ({again})"
    return Text(f"{first}\n{one_line(snapshot.hint)}" if snapshot.hint else first, overflow="fold")
