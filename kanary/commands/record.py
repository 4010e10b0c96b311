"""`kanary record`: what the monitor would show, written to a file for `kanary replay`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kanary.commands.numbers import above_zero
from kanary.config import Config
from kanary.recorder import Recorder
from kanary.recording import MAX_TEXT, Writer
from kanary.snapshot_connections import Connections
from kanary.snapshot_hub import ALERTS, DRIFT, EVENTS, METRICS, RUNS, SERVICES, Hub, Scope
from kanary.text import duration, one_line

if TYPE_CHECKING:
    from kanary.cli import Action

_SOURCES = (("runs", RUNS), ("services", SERVICES), ("metrics", METRICS), ("drift", DRIFT), ("events", EVENTS),
            ("alerts", ALERTS))  # fmt: skip
_EACH = 10.0  # seconds between two lines of progress where there is no terminal to write over


def record(parser: argparse.ArgumentParser) -> Action:
    """Record what the monitor would show, until it is interrupted; `kanary replay FILE` shows it again.

    A gzip file of JSON lines: runs, services, metrics, drift, alerts and events as they come, each with its time. A
    kill costs the last second. What looks like a secret is left out, and every value of an environment variable; names,
    addresses, messages and parameters are in it. Logs are, only with --logs.
    """
    parser.add_argument("file", type=Path, metavar="FILE", help="where to write it, such as incident.jsonl.gz")
    parser.add_argument("--for", dest="seconds", type=above_zero, metavar="SECONDS", help="end after so long")
    parser.add_argument("--logs", action="store_true", help="the ends of tasks' and model servers' logs, too")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="services of all namespaces")
    parser.add_argument("--max-mb", type=_size, default=50.0, metavar="MB",
                        help=f"end when the file has this size (default: 50); unpacked it is never more than "
                        f"{MAX_TEXT >> 20}")  # fmt: skip
    parser.add_argument("--force", action="store_true", help="overwrite a file that is there")
    parser.add_argument(
        "--refresh", type=above_zero, default=2.0, metavar="SECONDS", help="ask servers so often (default: 2)"
    )
    return _record


def _record(given: argparse.Namespace, config: Config) -> int:
    hub = Hub(Connections(config), Scope(config.namespace, given.all_namespaces, given.refresh))
    writer = Writer(given.file, time.time(), limit=round(given.max_mb * 1e6), force=given.force)
    progress = _Progress(hub, writer)
    recorder = Recorder(hub, writer, logs=given.logs)
    try:
        asyncio.run(_until_told(recorder, hub, given.seconds, progress))
    finally:
        progress.end()
        with contextlib.suppress(OSError):  # it could not be written before: that is told
            writer.close()
    if recorder.stopped is not None:
        print(f"kanary: {recorder.stopped.message}", file=sys.stderr)
    print(f"{given.file}: {progress.words()}. Look at it with: kanary replay {given.file}")
    missing = {name: hub.snapshot(source) for name, source in _SOURCES if hub.snapshot(source).value is None}
    for name, found in missing.items():
        print(f"  nothing of {name} is in it: {one_line(found.error) or 'no answer came in time'}", file=sys.stderr)
    return 1 if recorder.failed or len(missing) == len(_SOURCES) else 0


async def _until_told(recorder: Recorder, hub: Hub, ends: float | None, progress: _Progress) -> None:
    """Records until the time is over, or somebody interrupts or ends it: then what there is is whole."""
    working = asyncio.current_task()
    assert working is not None
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, working.cancel)
    try:
        await recorder.run(ends, progress.tell)
    except asyncio.CancelledError:
        pass
    finally:
        await hub.connections.close()


class _Progress:
    """One line that is written over, or one now and then."""

    def __init__(self, hub: Hub, writer: Writer) -> None:
        self._hub, self._writer = hub, writer
        self._began, self._next = time.monotonic(), 0.0
        self._over = sys.stderr.isatty()

    def words(self) -> str:
        took = duration(round(time.monotonic() - self._began)).replace(".0", "")
        return f"{took}, {self._writer.lines} lines, {self._writer.size / 1e6:.2f} MB"

    def tell(self) -> None:
        now = time.monotonic()
        if not self._over and now < self._next:
            return
        self._next = now + _EACH
        signs = [f"{name} {_sign(self._hub, source)}" for name, source in _SOURCES]
        text = f"recording: {self.words()}   {'  '.join(signs)}   Ctrl-C ends it"
        # No wrapping: the next line begins where this one did.
        print(f"\x1b[?7l\r{text}\x1b[K\x1b[?7h" if self._over else text, end="" if self._over else "\n",
              file=sys.stderr, flush=True)  # fmt: skip

    def end(self) -> None:
        if self._over:
            print(file=sys.stderr)


def _sign(hub: Hub, source: str) -> str:
    found = hub.snapshot(source)
    return "✗" if found.error else "…" if found.value is None else "✓"


def _size(text: str) -> float:
    size = float(text)
    if not 0.01 <= size <= 10_000:
        raise ValueError
    return size
