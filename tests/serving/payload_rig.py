"""A sink for the payload log's events: a real HTTP server that keeps what it gets and misbehaves as told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.waiting import wait_for

TYPE = "org.kubeflow.serving.inference."
# What a sink may do instead of answering 204.
ANSWERS = {
    "ok": b"HTTP/1.1 204 No Content\r\n\r\n",
    "500": b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno",
    "400": b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    "garbage": b"\x00\x01 this is no HTTP\r\n\r\n",
    "old": b"HTTP/1.0 200 OK\r\n\r\nthanks",  # without a length: it ends with the connection
}


@dataclass(frozen=True)
class Received:
    """One event as it came: header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        return self.headers["ce-type"].removeprefix(TYPE)

    @property
    def id(self) -> str:
        return self.headers["ce-id"]


@dataclass
class Sink:
    """`behaviour` is a key of ANSWERS, or "silent"; `accepted` holds the events that were answered with 2xx."""

    port: int = 0
    behaviour: str = "ok"
    accepted: list[Received] = field(default_factory=list)
    asked: int = 0
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    def wait(self, number: int) -> list[Received]:
        """The first `number` events, once there are so many."""
        wait_for(lambda: len(self.accepted) >= number, f"{number} events arrive", 40)
        return self.accepted[:number]

    def kinds(self) -> Counter[str]:
        return Counter(event.kind for event in self.accepted)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip("\r\n").split("\r\n")
                pairs = [line.partition(": ")[::2] for line in lines]
                headers = {name.lower(): value for name, value in pairs}
                assert len(headers) == len(pairs), lines
                body = await reader.readexactly(int(headers["content-length"]))
                self.asked += 1
                behaviour = self.behaviour
                if behaviour == "silent":
                    await reader.read()
                    break
                if behaviour in ("ok", "old"):
                    self.accepted.append(Received(first.split()[1], headers, body))
                writer.write(ANSWERS[behaviour])
                if behaviour in ("old", "garbage"):
                    break
        writer.close()


@contextlib.contextmanager
def sink(bound: socket.socket | None = None, behaviour: str = "ok") -> Iterator[Sink]:
    """A sink that listens, on a free port unless a socket has one already, until the block ends."""
    made, started = Sink(behaviour=behaviour), threading.Event()
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))
        listener = bound or socket.create_server(("127.0.0.1", 0))
        server = await asyncio.start_server(made.handle, sock=listener, limit=1 << 24)
        made.port = server.sockets[0].getsockname()[1]
        started.set()
        await ended.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(30)
    try:
        yield made
    finally:
        stop[0]()
        thread.join(30)
