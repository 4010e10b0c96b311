"""Closed-loop HTTP load from a process of its own: as many requests under way as there are connections, kept alive.

COMMAND reads a Job (JSON) from stdin and prints the Load that came of it. Raw protocols on uvloop, requests made
beforehand, no more read of an answer than its status and length: what it costs must not be what is measured.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import uvloop

# Not `-m`: `make bench` takes every module that can be run so for a benchmark.
COMMAND = (sys.executable, "-P", "-c", "from bench.httpload import main; main()")
PATIENCE_S = 10.0  # what is not answered so long after the end counts as failed
_LENGTH = b"content-length:"
# Timers are exact to a millisecond: so far behind its rate a connection makes up for it.
_MOMENT_S = 0.05


@dataclass(frozen=True)
class Job:
    """What to send: the `bodies` in turn to `url` for `seconds`, after `warm_up` seconds that do not count.

    Every `keep_every`th answer is handed back whole, so that it can be looked at afterwards; 0 for none. `rate`: no
    more requests a second than that over all connections; 0 for as many as are answered.
    """

    url: str
    bodies: Sequence[str]
    connections: int
    seconds: float
    warm_up: float = 0.3
    keep_every: int = 0
    rate: float = 0.0


@dataclass(frozen=True)
class Load:
    """What came of a job: `answered` with 200 in its `seconds`, and the milliseconds that half and 99 % of them took.

    `total` counts all good answers and `failed` all others, by reason, from first to last. `cpu` is the generator's own
    share of a core; `kept` holds (index of the body, answer's body).
    """

    answered: int
    total: int
    seconds: float
    p50: float
    p99: float
    failed: dict[str, int]
    cpu: float
    kept: list[tuple[int, str]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.answered / self.seconds


def put_load(job: Job) -> Load:
    """Run the job in a process of its own. RuntimeError where that fails."""
    deadline = job.warm_up + job.seconds + PATIENCE_S + 30
    text = json.dumps(dataclasses.asdict(job))
    done = subprocess.run(COMMAND, input=text, capture_output=True, text=True, timeout=deadline)
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    return Load(**found | {"kept": [(index, body) for index, body in found["kept"]]})


def main() -> None:
    """The job on stdin, what came of it on stdout."""
    found = json.dumps(dataclasses.asdict(run(Job(**json.load(sys.stdin)))))
    # Not print: with PYTHONUNBUFFERED a long write that is cut short is not gone on with.
    with open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False) as whole:
        whole.write(found)


def run(job: Job) -> Load:
    """Run the job in this process."""
    gc.collect()
    gc.disable()  # its pauses would be taken for the server's
    return uvloop.run(_run(job))


def request(url: str, body: str) -> bytes:
    """A POST of JSON, as it goes over the wire."""
    parts, payload = urlsplit(url), body.encode()
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload


def whole(data: bytes) -> tuple[int, int] | None:
    """Where the body of the message that `data` begins with starts and ends; None while there is more to come.

    ValueError for a message that does not say its length.
    """
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return None
    at = data.lower().find(_LENGTH, 0, head)
    if at < 0:
        raise ValueError("no content-length")
    start = head + 4
    end = start + int(data[at + len(_LENGTH) : data.index(b"\r", at)])
    return (start, end) if len(data) >= end else None


@dataclass
class _Window:
    """The time that counts, and what happened in it; `open` connections are still at work."""

    job: Job
    requests: list[bytes]
    starts: float
    ends: float
    over: asyncio.Future[None]
    open: int
    total: int = 0
    latencies: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    kept: list[tuple[int, str]] = field(default_factory=list)


class _Connection(asyncio.Protocol):
    """One request after another; a failure costs it its connection, and it opens another."""

    def __init__(self, window: _Window, turn: int) -> None:
        self.window = window
        self.turn = turn
        self.data = b""
        self.sent = self.due = 0.0
        self.waiting = False
        self.transport: asyncio.Transport | None = None

    async def connect(self) -> None:
        """Open the connection, which then sends; a refusal is a failed request."""
        parts = urlsplit(self.window.job.url)
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, parts.hostname or "", parts.port or 80)
        except OSError as error:
            self.window.failed[type(error).__name__] += 1
            await asyncio.sleep(0.01)
            self._next()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._send()

    def data_received(self, data: bytes) -> None:
        self.data = self.data + data if self.data else data
        try:
            found = whole(self.data)
        except ValueError as error:
            self._fail(str(error))
            return
        if found is not None:
            self._answered(self.data[9:12], self.data[found[0] : found[1]])

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.waiting:
            self.window.failed["connection lost"] += 1
            self.waiting = False
        if self.window.open:
            self._next()

    def give_up(self) -> None:
        """Count what is still under way as failed."""
        if self.waiting:
            self._fail("no answer")

    def _answered(self, status: bytes, body: bytes) -> None:
        window, now = self.window, time.perf_counter()
        self.waiting = False
        if status != b"200":
            window.failed[status.decode("latin-1")] += 1
        else:
            window.total += 1
            if window.starts <= now < window.ends:
                window.latencies.append(now - self.sent)
            if window.job.keep_every and window.total % window.job.keep_every == 0:
                window.kept.append((self.turn % len(window.requests), body.decode()))
        if now < window.ends and self.transport is not None and not self.transport.is_closing():
            self._send_when_due(now)
        elif self.transport is not None:
            self.transport.close()

    def _send_when_due(self, now: float) -> None:
        """At once, or when the rate allows; what is overdue by more than a moment is not caught up with."""
        rate = self.window.job.rate
        self.due = max(self.due + self.window.job.connections / rate, now - _MOMENT_S) if rate else now
        if self.due > now:
            asyncio.get_running_loop().call_later(self.due - now, self._send)
        else:
            self._send()

    def _send(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return  # lost while it waited
        self.data = b""
        self.turn += 1
        self.waiting = True
        self.sent = time.perf_counter()
        self.transport.write(self.window.requests[self.turn % len(self.window.requests)])

    def _fail(self, reason: str) -> None:
        self.window.failed[reason] += 1
        self.waiting = False
        if self.transport is not None:
            self.transport.abort()

    def _next(self) -> None:
        """Connect again, or, at the end, be done."""
        if time.perf_counter() < self.window.ends:
            self.task = asyncio.get_running_loop().create_task(self.connect())
            return
        self.window.open -= 1
        if not self.window.open and not self.window.over.done():
            self.window.over.set_result(None)


async def _run(job: Job) -> Load:
    loop = asyncio.get_running_loop()
    starts = time.perf_counter() + job.warm_up
    requests = [request(job.url, body) for body in job.bodies]
    window = _Window(job, requests, starts, starts + job.seconds, loop.create_future(), job.connections)
    connections = [_Connection(window, turn * 7) for turn in range(job.connections)]
    used: list[float] = []
    loop.call_later(job.warm_up, lambda: used.append(time.process_time()))
    loop.call_later(job.warm_up + job.seconds, lambda: used.append(time.process_time()))
    for connection in connections:
        await connection.connect()
    try:
        await asyncio.wait_for(asyncio.shield(window.over), job.warm_up + job.seconds + PATIENCE_S)
    except TimeoutError:
        for connection in connections:
            connection.give_up()
    taken = sorted(1000 * latency for latency in window.latencies) or [0.0]
    return Load(
        answered=len(window.latencies),
        total=window.total,
        seconds=job.seconds,
        p50=round(statistics.median(taken), 3),
        p99=round(taken[min(len(taken) - 1, int(len(taken) * 0.99))], 3),
        failed=dict(window.failed),
        cpu=round((used[1] - used[0]) / job.seconds, 3) if len(used) > 1 else 0.0,
        kept=window.kept,
    )
