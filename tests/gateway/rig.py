"""A real Envoy on free ports, tiny model servers to put behind it, clients and load to put before it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.gateway.admin import live
from sandbox.gateway.description import Revision, Service
from sandbox.gateway.gateway import Applied, Gateway
from tests.waiting import wait_for

DEADLINE_S = 60.0
# As fast as it could, a load would take all processor time from what it is to find faults in.
_BETWEEN_S = 0.005


class Patient(Gateway):
    """A writer that gives an Envoy on a busy machine as long as the tests give everything."""

    def apply(self, services: Sequence[Service], timeout_s: float = DEADLINE_S) -> Applied:
        return super().apply(services, timeout_s)


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that comes true within milliseconds; fail once the deadline has passed."""
    wait_for(condition, what, DEADLINE_S, every=0.005)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Ports below those that the kernel gives out by itself: whoever asks it for one gets none of these meanwhile."""
    sockets: list[socket.socket] = []
    while len(sockets) < count:
        with contextlib.suppress(OSError):  # somebody's
            sockets.append(socket.create_server(("127.0.0.1", random.randrange(20_000, 32_000))))
    ports = [int(held.getsockname()[1]) for held in sockets]
    for held in sockets:
        held.close()
    return ports


CUT_OFF = 0  # the status of an answer that broke off after its headers


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def revision(self) -> str:
        return self.headers.get("kanary-revision", "")

    @property
    def json(self) -> dict[str, object]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document


class Client:
    """A kept-alive connection to the gateway."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)

    def get(self, path: str = "/", host: str = "", headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        sent = dict(headers or {}) | ({"Host": host} if host else {})
        self._connection.request("POST" if body else "GET", path, body=body or None, headers=sent)
        response = self._connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        try:
            return Answer(response.status, found, response.read())
        except http.client.IncompleteRead as cut:
            # The server died in the middle of its answer; the headers tell whose it was.
            self.close()
            return Answer(CUT_OFF, found, cut.partial)

    def close(self) -> None:
        self._connection.close()


def binomial_interval(n: int, p: float, outside: float = 1e-6) -> tuple[int, int]:
    """The counts that a binomial(n, p) variable leaves with at most the probability `outside`, half on each side."""
    log = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(n + 1)
    ]
    below = list(itertools.accumulate(math.exp(value) for value in log))
    lowest = next(k for k in range(n + 1) if below[k] > outside / 2)
    highest = next(k for k in range(n, -1, -1) if 1 - (below[k - 1] if k else 0.0) > outside / 2)
    return lowest, highest


@dataclass
class Upstream:
    """A model server in a thread: answers with its name, remembers request heads, can be slow, rude or killed."""

    name: str
    status: str = "200 OK"
    body: bytes = b""
    delay_s: float = 0.0
    holds: bool = False  # what it is asked is answered once this is over
    reset_next: int = 0
    heads: list[dict[str, str]] = field(default_factory=list)
    arrived: int = 0
    at_once: int = 0
    most_at_once: int = 0
    port: int = 0

    def start(self) -> Upstream:
        self._loop = asyncio.new_event_loop()
        self._connections: set[asyncio.StreamWriter] = set()
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self.port = int(server.sockets[0].getsockname()[1])
        self._server = server
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"upstream {self.name}")
        self._thread.start()
        return self

    def kill(self) -> None:
        """Close the port and reset every connection, as the death of a process does."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(DEADLINE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def revision(self, weight: int = 0, tags: tuple[str, ...] = ()) -> Revision:
        return Revision(self.name, self.port, weight=weight, tags=tags)

    async def _close(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.transport.abort()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()
        finally:
            self._connections.discard(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        head = dict(line.split(": ", 1) for line in lines if line) | {":first": first}
        await reader.readexactly(int(head.get("content-length", "0")))
        self.arrived += 1
        self.heads = [*self.heads[-9:], head]
        if self.reset_next:
            self.reset_next -= 1
            raise ConnectionResetError
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.delay_s)
        while self.holds:
            await asyncio.sleep(_BETWEEN_S)
        self.at_once -= 1
        body = self.body or json.dumps({"served_by": self.name}).encode()
        kind = "text/plain" if self.body else "application/json"
        writer.write(f"HTTP/1.1 {self.status}\r\ncontent-type: {kind}\r\n".encode())
        writer.write(b"content-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()


class Envoy:
    """Envoy as the supervisor starts it: `python -P -m sandbox.gateway` in a session of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port, self.admin_port = free_ports(2)
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "sandbox.gateway", "--home", str(self.home)]
        command += ["--port", str(self.port), "--admin-port", str(self.admin_port)]
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        self.log = self.home / "logs" / "gateway.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        until(self._live, "Envoy is live")

    def _live(self) -> bool:
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        return live(self.admin_port)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(DEADLINE_S)
        assert not listening(self.port)
        assert not listening(self.admin_port)


@dataclass
class Load:
    """Requests from several connections, some hundred a second, until its end; every answer is kept."""

    port: int
    host: str
    answers: list[Answer] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stopped = threading.Event()
        self.threads = [threading.Thread(target=self._ask) for _ in range(4)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self.threads:
            thread.join()

    @property
    def failed(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status != 200]

    def _ask(self) -> None:
        client = Client(self.port)
        while not self._stopped.wait(_BETWEEN_S):
            try:
                self.answers.append(client.get(host=self.host))
            except (OSError, http.client.HTTPException) as error:
                self.broken.append(repr(error))
                client.close()
        client.close()
