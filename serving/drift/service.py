"""The detector service: routes, the loops beside them, the order of start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from kanary.errors import KanaryError
from kanary.rollout.prometheus import SETTING, Prometheus
from serving.drift import metrics
from serving.drift.budget import Account
from serving.drift.checks import Checks
from serving.drift.coverage import Counted
from serving.drift.http import Answer, Connection, Limits, Request
from serving.drift.intake import Intake
from serving.drift.journal import synced
from serving.drift.link import Link
from serving.drift.models import Models
from serving.drift.quarantine import Quarantine
from serving.drift.settings import Settings
from serving.drift.watch import Watch

_log = logging.getLogger(__name__)
_TURN_S = 0.2
_COUNT_S = 5.0
_IDLE_S = 60.0
_SYNC_S = 1.0
_LABELS_S = 3600.0  # to calibrate their tests, on a busy machine


@dataclass
class Service:
    """What answers and what runs beside it."""

    settings: Settings
    watch: Watch
    link: Link
    intake: Intake
    checks: Checks

    def respond(self, request: Request) -> Answer:
        """The answer to any request. Events come to `/`, as `logger.url` is mostly written, or to /v1/events."""
        path = request.path.partition(b"?")[0]
        if request.method == "POST":
            if not self.link.ready:
                return Answer(503, b"not ready: the detectors are being loaded", retry_after_s=1)
            routes = {
                b"/": self.intake.event,
                b"/v1/events": self.intake.event,
                b"/v1/feedback": self.intake.truth,
                b"/v1/requests": self.intake.counts,
            }
            return routes[path](request) if path in routes else Answer(404, b"no such place")
        if request.method not in ("GET", "HEAD"):
            return Answer(405, b"GET and POST are answered")
        answer = self._get(path)
        return answer if request.method == "GET" else Answer(answer.status, b"", answer.content_type)

    def _get(self, path: bytes) -> Answer:
        if path == b"/metrics":
            return Answer(
                200, metrics.exposition(self.watch, self.link.deaths + self.checks.labels.deaths), metrics.CONTENT_TYPE
            )
        if path == b"/healthz":
            return Answer(200, b"ok")
        if path == b"/readyz":
            return Answer(200, b"ok") if self.link.ready else Answer(503, b"the detectors are being loaded")
        if path == b"/v1/drift":
            return Answer(200, orjson.dumps(self.told()), "application/json")
        return Answer(404, b"no such place")

    def told(self) -> dict[str, Any]:
        """All verdicts, for people and scripts."""
        return {
            "streams": [
                {
                    **asdict(source),
                    "waiting": len(stream.waiting),
                    "open_rows": stream.window.size,
                    "result": stream.result.as_json() if stream.result else None,
                    "accuracy": asdict(found) if (found := self.watch.truths[source].accuracy()) else None,
                }
                for source, stream in self.watch.streams.items()
            ],
            "account": asdict(self.watch.account),
        }

    async def check(self) -> None:
        """Check what waits, whenever something does."""
        while True:
            if not await self.checks.turn(time.time()):
                await asyncio.sleep(_TURN_S)

    async def test_labels(self) -> None:
        """Test labelled rows as they come, beside the checks of windows."""
        while True:
            await self.checks.concept()
            await asyncio.sleep(_TURN_S)

    async def count(self) -> None:
        """Ask Prometheus for the proxy's counts, every few seconds. While it is down, coverage is unobservable."""
        down, source = False, None
        while True:
            try:
                source = source or Prometheus(self.settings.prometheus, SETTING)
                found = await asyncio.to_thread(_asked, source, self.settings.requests_query)
            except Exception as error:  # noqa: BLE001 - this loop's outermost: whatever fails there, it is asked again
                if not down:
                    _log.warning("%s: coverage is unobservable", error)
                down = True
            else:
                down = False
                self.intake.counted(found)
            await asyncio.sleep(_COUNT_S)

    async def sync(self) -> None:
        """Have the disk hold what was taken, every second: so much is lost where the machine stops."""
        while True:
            await asyncio.sleep(_SYNC_S)
            try:
                await asyncio.to_thread(synced, self.watch.unsynced())
            except OSError as error:
                _log.error("what was taken is not safe on the disk: %s", error)

    async def tidy(self) -> None:
        """Forget what has been silent for long."""
        while True:
            self.watch.forget_idle(time.time())
            await asyncio.sleep(_IDLE_S)


def service(settings: Settings) -> Service:
    """The service, with what one before it has left in its home folder taken up. Starts nothing."""
    settings.home.mkdir(parents=True, exist_ok=True)
    now = time.time()
    watch = Watch(settings, Models(settings.releases), Account(settings.alarms_per_month, now))
    watch.restore(now)
    link = Link()
    quarantine = Quarantine(settings.home, settings.quarantine_bytes)
    return Service(settings, watch, link, Intake(watch, quarantine), Checks(watch, link, Link(_LABELS_S)))


async def run(settings: Settings) -> None:
    """Listen, load the detectors, and work until SIGTERM or SIGINT. KanaryError where they cannot be loaded."""
    made = service(settings)
    limits = Limits(body_bytes=settings.max_body_bytes)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(
        lambda: Connection(made.respond, limits), settings.host, settings.port, backlog=1024
    )
    port = server.sockets[0].getsockname()[1]
    print(f"listening on http://{settings.host}:{port}", flush=True)
    try:
        await _until(stop, made.link.start)
        if stop.is_set():
            return
        print("ready", flush=True)
        loops = [made.check(), made.test_labels(), made.tidy(), made.sync()] + (
            [made.count()] if settings.prometheus.url else []
        )
        tasks = [asyncio.create_task(one) for one in loops]
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
        for task in done - {stopping}:
            task.result()  # a loop that ends has failed: so does the process, and is started again
    finally:
        server.close()
        for connection in list(limits.open):
            connection.abort()
        await made.link.stop()
        await made.checks.labels.stop()
        made.watch.close()


async def _until(stop: asyncio.Event, begin: Callable[[], Awaitable[None]]) -> None:
    """Wait for `begin`, or for the signal to stop."""
    stopping, beginning = asyncio.create_task(stop.wait()), asyncio.ensure_future(begin())
    await asyncio.wait([stopping, beginning], return_when=asyncio.FIRST_COMPLETED)
    if not beginning.done():
        beginning.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beginning
        return
    stopping.cancel()
    await beginning


def _asked(source: Prometheus, query: str) -> Counted:
    at = time.time()
    found = {}
    for one in source.instant(query, at):
        namespace, service, revision = (one.labels.get(name, "") for name in ("namespace", "service", "revision"))
        found[namespace, service, revision] = one.value
    return Counted(at, found)


def folder_is_free(settings: Settings) -> int:
    """Hold the lock of the home folder: two detectors would write one journal. Its descriptor; KanaryError if held."""
    import fcntl

    settings.home.mkdir(parents=True, exist_ok=True)
    lock = os.open(settings.home / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise KanaryError(
            f"another detector works in {settings.home}", "give each a --home of its own, and one replica a volume"
        ) from None
    return lock
