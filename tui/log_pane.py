"""A log with its title line, read by a worker as long as it is looked at. Its text is never markup or an escape."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input, Static

from kanary import kfp
from kanary.errors import KanaryError
from kanary.text import log_lines, one_line, shortened, timed
from tui.log_view import LogView
from tui.look import clock_time
from tui.search import SearchField

_KEPT_LINES = 20_000
_FIRST = 1.5  # seconds after its opening in which lines may have been there before
_REREAD = 1.0  # seconds before a log is read again where the server ended its answer too early


@dataclass(frozen=True)
class Tail:
    """A log to read. `key` says whose it is; `open(follow)` reads it; `over()`: nothing more comes.

    It is read from its start each time, unless it is `partial`: then only its end is, and what it gives when it is read
    again takes the place of what it gave before. `missing` says why there is none to read. `timed`: each line comes
    after its time.
    """

    key: str
    name: str
    open: Callable[[bool], Awaitable[AsyncIterator[str]]] | None
    over: Callable[[], bool] = lambda: True
    missing: str = ""
    partial: bool = False
    timed: bool = False


class LogPane(Vertical):
    """Shows one log at a time; another one as soon as it is told of it."""

    DEFAULT_CSS = """
    LogPane { height: 1fr; }
    LogPane > .log-title { height: 1; padding: 0 1; background: $panel; }
    LogPane > LogView { height: 1fr; padding: 0 1; }
    LogPane > .find { display: none; height: 1; border: none; padding: 0 1; background: $panel; }
    LogPane.finding > .find { display: block; }
    """

    def __init__(self, now: Callable[[], datetime], id: str | None = None) -> None:
        super().__init__(id=id)
        self._now = now  # the moment that is looked at
        self._tail: Tail | None = None
        self._note = ""
        self._opened = 0.0  # when its reading began
        # Held, not queried: a piece of log may still come while the screen is being taken down.
        self._title = Static("Log", classes="log-title", markup=False)
        self.view = LogView(max_lines=_KEPT_LINES)
        self._find = SearchField("text to find; n, N: next, previous", classes="find")

    def compose(self) -> ComposeResult:
        yield self._title
        yield self.view
        yield self._find

    def watch_log(self, tail: Tail | None) -> None:
        """Shows this log from now on; the newest news of the one that is shown ends its following."""
        before, self._tail = self._tail, tail
        if tail is None or (before is not None and before.key == tail.key):
            self._tell()
            return
        self.view.clear()
        self._note = ""
        self._tell()
        self.run_worker(self._read(tail), group="log", exclusive=True, exit_on_error=False)

    def leave(self) -> bool:
        """Esc: out of the search field, else out of the search; false where there is neither."""
        if self.has_class("finding") or self.view.pattern:
            self._find.value = ""
            self.view.find("")
            self.remove_class("finding")
            self.screen.set_focus(self.view)
            return True
        return False

    @on(LogView.Changed)
    def _tell(self) -> None:
        view = self.view
        parts = [f"Log of {one_line(self._tail.name)}" if self._tail else "Log"]
        parts += [] if view.follow else ["(not followed: f follows)"]
        parts += ["wrapped"] if view.wrap else []
        if view.times and view.lines and not any(view.stamps):
            parts.append("(the server tells no times)")
        if view.pattern:
            found = view.matches
            at = found.index(view.match) + 1 if view.match in found else 0
            parts.append(f"/{view.pattern}: {at} of {len(found)}" if found else f"/{view.pattern}: not found")
        parts += [self._note] if self._note else []
        self._title.update("  ".join(parts))

    def _say(self, note: str) -> None:
        self._note = note
        self._tell()

    @on(LogView.Find)
    def _ask(self) -> None:
        self.add_class("finding")
        self.screen.set_focus(self._find)

    @on(Input.Changed, ".find")
    def _search(self) -> None:
        self.view.find(self._find.value)

    @on(Input.Submitted, ".find")
    def _searched(self) -> None:
        self.set_class(bool(self._find.value), "finding")
        self.screen.set_focus(self.view)

    @on(LogView.Save)
    def _save(self) -> None:
        name = self._tail.name if self._tail else "log"
        try:
            path = self.view.save(Path.cwd(), name, datetime.now())
        except OSError as error:
            self.app.notify(f"The log could not be saved: {error}", severity="error", markup=False)
            return
        self.app.notify(f"Saved: {path}", markup=False)

    # ---- reading

    async def _read(self, tail: Tail) -> None:
        """Reads until the log is over and has been read once after that."""
        if tail.open is None:
            self._say(tail.missing)
            return
        position = kfp.LogTail()
        rest = ""
        self._opened = time.monotonic()
        while True:
            current = self._tail
            over = current is None or current.over()
            again = tail.partial and self.view.line_count > 0
            try:
                if tail.partial:
                    position, rest, self._opened = kfp.LogTail(), "", time.monotonic()
                position.restart()
                async for piece in await tail.open(not over):
                    if again:
                        self.view.clear()
                        again = False
                    rest = self._write(rest + position.feed(piece))
                rest = self._write(rest + position.end())
            except KanaryError as error:
                self._say(f"✗ {one_line(error.message)}")
            else:
                self._say("" if self.view.line_count or rest else "(empty)")
            if over:
                if rest:
                    self._write(f"{rest}\n")
                return
            await asyncio.sleep(_REREAD * 5 if tail.partial else _REREAD)

    def _write(self, text: str) -> str:
        """Shows the whole lines of `text` and gives the rest."""
        whole, newline, rest = text.rpartition("\n")
        if newline:
            self._write_lines(whole)
        if not rest:
            if self._note:
                self._say("")
            return ""
        # A progress bar writes no newline for minutes: its last state stands beside the title. The last character
        # may be half of a line's end.
        rest = rest[:-1].rpartition("\r")[2] + rest[-1]
        shown = timed(rest)[1] if self._tail is not None and self._tail.timed else rest
        self._say(shortened(log_lines(shown)[0].strip(), 50))
        return rest

    def _write_lines(self, text: str) -> None:
        """Whole lines, each with its time: the server's, else when it came, if it was not there from the start."""
        now = self._now()
        came = f"~{clock_time(now, now)}" if time.monotonic() - self._opened > _FIRST else ""
        if self._tail is None or not self._tail.timed:
            lines = log_lines(text)
            self.view.write_lines(lines, [came] * len(lines))
            return
        read = [timed(line) for line in text.split("\n")]
        lines = [log_lines(line)[0] for _, line in read]
        self.view.write_lines(lines, [stamp(moment, now) or came for moment, _ in read])


def stamp(moment: datetime | None, now: datetime) -> str:
    """When a line was written: with milliseconds today, else by day and minute."""
    if moment is None:
        return ""
    local = moment.astimezone()
    today = local.date() == now.astimezone().date()
    return f"{local:%H:%M:%S}.{local.microsecond // 1000:03d}" if today else clock_time(moment, now)
