"""Events to their sink over a few kept-alive connections, several at a time on each: retried, then dropped, counted.

Requests are pipelined (RFC 9112, 9.3.2): the next ones do not wait for the answers to those before. What was sent and
not answered is sent again, so that a sink may see an event twice; `ce-id` and `ce-type` tell.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httptools

CONNECTIONS = 4
# Events on the way on one connection: few at first, more while the sink keeps up.
_DEEPEST = 64
_BATCH_BYTES = 256 * 1024
# Without any answer for so long, a sink hangs.
_SILENCE_S = 10.0
_CONNECT_S = 5.0
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
# An event that the sink failed at so often is not worth the others' waiting.
_MOST_ATTEMPTS = 8
_AGAIN = frozenset({408, 425, 429})


@dataclass(frozen=True)
class Sink:
    """Where events go. `shown` is its URL without a password."""

    host: str
    port: int
    tls: bool
    shown: str


@dataclass
class Event:
    """One POST that waits to be sent; `attempts` counts how often the sink failed at it."""

    kind: str
    wire: bytes
    attempts: int = 0


@dataclass(frozen=True)
class Answers:
    """Statuses of the first events of a batch, and why there are no more of them; empty where there are all."""

    statuses: Sequence[int]
    broken: str = ""


@dataclass
class _Pace:
    """How many events at a time. A connection that ends early sets it back, each time for longer."""

    depth: int = 1
    good: int = 0
    needed: int = 1

    def went_well(self) -> None:
        self.good += 1
        if self.good >= self.needed:
            self.good, self.depth = 0, min(_DEEPEST, self.depth * 2)
            self.needed = max(1, self.needed // 2)

    def ended_early(self) -> None:
        if self.depth > 1:
            self.needed = min(1024, self.needed * 16)
        self.depth, self.good = 1, 0


@dataclass
class Delivery:
    """Sends what is put into it. `resolved(event, outcome)` is called once for every event, `say` with news for people.

    `size` is the bytes that wait or are on their way, `idle` is set while there are none.
    """

    sink: Sink
    resolved: Callable[[Event, str], None]
    say: Callable[[str], None]
    size: int = 0
    count: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: deque[Event] = field(default_factory=deque)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _failures: int = 0
    _resume_at: float = 0.0

    def put(self, event: Event) -> None:
        """Have an event sent."""
        self._waiting.append(event)
        self.size += len(event.wire)
        self.count += 1
        self._arrived.set()
        self.idle.clear()

    async def run(self) -> None:
        """Deliver until cancelled."""
        self.idle.set()
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._work())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        connection: Connection | None = None
        pace = _Pace()
        while True:
            await self._arrived.wait()
            if (pause := self._resume_at - loop.time()) > 0:
                await asyncio.sleep(pause)
                continue
            if not self._waiting:  # another connection was faster
                self._arrived.clear()
                continue
            batch = self._take(pace.depth)
            reused = connection is not None and connection.open
            if connection is None or not reused:
                try:
                    connection = await connect(self.sink)
                except (OSError, TimeoutError) as error:
                    self._put_back(batch)
                    self._trouble(f"cannot be reached ({error or type(error).__name__})")
                    continue
            answers = await connection.exchange([event.wire for event in batch])
            if answers.broken:
                pace.ended_early()
            elif connection.open:
                pace.went_well()
            # Kept alive for nothing: the sink closed it before this batch came. No fault of anybody's.
            if reused and answers.broken and not answers.statuses:
                self._put_back(batch)
                continue
            self._settle(batch, answers)

    def _take(self, most: int) -> list[Event]:
        batch, size = [self._waiting.popleft()], 0
        while self._waiting and len(batch) < most and (size := size + len(batch[-1].wire)) < _BATCH_BYTES:
            batch.append(self._waiting.popleft())
        return batch

    def _put_back(self, events: Sequence[Event]) -> None:
        self._waiting.extendleft(reversed(events))
        if events:
            self._arrived.set()

    def _settle(self, batch: Sequence[Event], answers: Answers) -> None:
        """Count what is done with, and keep the rest for another attempt."""
        again: list[Event] = []
        why = ""
        for event, status in zip(batch, answers.statuses, strict=False):
            if 200 <= status < 300:
                self._resolve(event, "sent")
            elif status in _AGAIN or status >= 500:
                why = f"answers {status}"
                self._retry(event, again)
            else:
                self._resolve(event, "dropped_refused")
        rest = batch[len(answers.statuses) :]
        if rest:
            self._retry(rest[0], again)
            again += rest[1:]
            # A sink that answers some and then closes is one that takes few at a time.
            why = why or ("" if answers.statuses else answers.broken)
        self._put_back(again)
        if why:
            self._trouble(why)
        elif self._failures:
            self._failures = 0
            self.say(f"payload log: {self.sink.shown} takes events again")

    def _retry(self, event: Event, again: list[Event]) -> None:
        event.attempts += 1
        if event.attempts < _MOST_ATTEMPTS:
            again.append(event)
        else:
            self._resolve(event, "dropped_failed")

    def _resolve(self, event: Event, outcome: str) -> None:
        self.size -= len(event.wire)
        self.count -= 1
        self.resolved(event, outcome)
        if not self.count:
            self.idle.set()

    def _trouble(self, why: str) -> None:
        """Let every connection pause, the longer the more rounds have failed; tell of the first."""
        now = asyncio.get_running_loop().time()
        if now < self._resume_at:
            return
        if not self._failures:
            self.say(f"payload log: {self.sink.shown} {why}; events wait")
        self._resume_at = now + min(_LONGEST_PAUSE_S, _PAUSE_S * 2 ** min(self._failures, 10))
        self._failures += 1


class Connection(asyncio.Protocol):
    """One connection to the sink. One batch is on its way at a time."""

    def __init__(self) -> None:
        self.open = False
        self._transport: asyncio.Transport | None = None
        self._statuses: list[int] = []
        self._expected = 0
        self._headed = False
        self._done: asyncio.Future[Answers] | None = None
        self._heard = 0.0

    async def exchange(self, wires: Sequence[bytes]) -> Answers:
        """Send the requests; their answers. Never raises: what went wrong is in them."""
        loop = asyncio.get_running_loop()
        if self._transport is None or not self.open:
            return Answers((), "has closed the connection")
        self._statuses, self._expected, self._headed = [], len(wires), False
        self._parser = httptools.HttpResponseParser(self)
        self._done, self._heard = loop.create_future(), loop.time()
        self._transport.writelines(wires)
        watch = loop.call_later(_SILENCE_S, self._watch)
        self._timer = watch
        try:
            return await self._done
        finally:
            self._timer.cancel()
            if not self._done.done():  # cancelled
                self._close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.open = transport, True

    def data_received(self, data: bytes) -> None:
        """asyncio's. What nobody asked for ends the connection."""
        if self._done is None or self._done.done():
            self._close()
            return
        self._heard = asyncio.get_running_loop().time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserCallbackError):
            if not self._done.done():
                self._finish("answers what is no HTTP")
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        self.open = False
        if self._done is not None and not self._done.done():
            if self._headed:  # an answer without a length ends with its connection
                self.on_message_complete()
            if not self._done.done():
                self._finish("closes the connection")

    def on_headers_complete(self) -> None:
        """httptools'."""
        self._headed = True

    def on_message_complete(self) -> None:
        """httptools'."""
        self._headed = False
        status = self._parser.get_status_code()
        if status < 200 or self._done is None or self._done.done():
            return
        self._statuses.append(status)
        last = len(self._statuses) == self._expected
        if not self._parser.should_keep_alive():
            self._close()
        if last or not self.open:
            self._finish("" if last else "closes the connection after an answer")

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._heard + _SILENCE_S - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._watch)
        elif self._done is not None and not self._done.done():
            self._finish(f"does not answer for {_SILENCE_S:g} s")
            self._close()

    def _finish(self, broken: str) -> None:
        if self._done is not None:
            self._done.set_result(Answers(tuple(self._statuses), broken))

    def _close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()


async def connect(sink: Sink) -> Connection:
    """A connection to `sink`. Raises OSError or TimeoutError."""
    tls = ssl.create_default_context() if sink.tls else None
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_CONNECT_S):
        _, connection = await loop.create_connection(Connection, sink.host, sink.port, ssl=tls)
    return connection
