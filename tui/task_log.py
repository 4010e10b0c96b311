"""The log of one task, followed while the task runs. Its text is never read as markup or terminal escapes."""

from __future__ import annotations

import asyncio

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Log, Static

from kanary import kfp
from kanary.errors import KanaryError
from kanary.kfp_types import Run, TaskDetail
from kanary.text import log_lines, one_line, shortened
from tui.actions import bindings
from tui.source import Source

_KEPT_LINES = 20_000
_REREAD = 1.0  # seconds before the log of a running task is read again where the server ended its answer


class LogView(Log):
    """Textual's Log with the monitor's keys."""

    BINDINGS = bindings("log")


class TaskLog(Vertical):
    """A title line and the log; changes its task when told so, and reads it in a worker."""

    DEFAULT_CSS = """
    TaskLog > #log-title { height: 1; padding: 0 1; background: $panel; }
    TaskLog > LogView { height: 1fr; padding: 0 1; }
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._run_id = ""
        self._followed: TaskDetail | None = None
        self._note = ""
        # Held, not queried: a piece of log may still come while the screen is being taken down.
        self._title = Static("Log", id="log-title", markup=False)
        self._view = LogView(max_lines=_KEPT_LINES)

    def compose(self) -> ComposeResult:
        yield self._title
        yield self._view

    def watch_task(self, run: Run, task: TaskDetail | None) -> None:
        """Shows this task's log from now on; the newest state of the one that is shown ends its following."""
        before, self._followed = self._followed, task
        self._run_id = run.run_id
        if task is None or (before and (before.task_id, before.pod_name) == (task.task_id, task.pod_name)):
            self._tell()
            return
        self._view.clear()
        self._note = ""
        self._tell()
        self.run_worker(self._read(task), group="log", exclusive=True)

    def focus_log(self) -> None:
        self._view.focus()

    def toggle_follow(self) -> None:
        self._view.auto_scroll = not self._view.auto_scroll
        if self._view.auto_scroll:
            self._view.scroll_end(animate=False)
        self._tell()

    def _tell(self) -> None:
        name = f"Log of {one_line(self._followed.name)}" if self._followed else "Log"
        held = "" if self._view.auto_scroll else "  (not followed: f follows)"
        self._title.update(f"{name}{held}{f'  {self._note}' if self._note else ''}")

    def _say(self, note: str) -> None:
        self._note = note
        self._tell()

    async def _read(self, task: TaskDetail) -> None:
        """Reads until the task has ended and its log has been read once after that."""
        if not task.pod_name:
            self._say(_without_pod(task))
            return
        tail = kfp.LogTail()
        rest = ""
        while True:
            current = self._followed
            over = current is None or current.final
            try:
                tail.restart()
                client = await self._source.client()
                async for piece in client.stream(kfp.task_log(self._run_id, task, follow=not over)):
                    rest = self._write(rest + tail.feed(piece))
                rest = self._write(rest + tail.end())
            except KanaryError as error:
                self._say(f"✗ {one_line(error.message)}")
            else:
                self._say("" if self._view.line_count or rest else "(empty)")
            if over:
                if rest:
                    self._write(f"{rest}\n")
                return
            await asyncio.sleep(_REREAD)

    def _write(self, text: str) -> str:
        """Shows the whole lines of `text` and gives the rest."""
        whole, newline, rest = text.rpartition("\n")
        if newline:
            self._view.write_lines(log_lines(whole))
        if not rest:
            self._say("")
            return ""
        # A progress bar writes no newline for minutes: its last state stands beside the title. The last character
        # may be half of a line's end.
        rest = rest[:-1].rpartition("\r")[2] + rest[-1]
        self._say(shortened(log_lines(rest)[0].strip(), 50))
        return rest


def _without_pod(task: TaskDetail) -> str:
    if task.state in ("PENDING", "RUNNING") and task.started_at is None:
        return "has not started"
    if task.cached:
        return "has none: its result came from the cache"
    return "has none" if task.kind not in ("", "RUNTIME") else "no pod is named for it"
