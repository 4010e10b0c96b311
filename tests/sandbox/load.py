"""Predictions at a steady rate, whatever happens to who answers them, and what came of each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.waiting import wait_for

_CONNECTIONS = 32
_AGAIN_S = 0.02

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Load:
    """An open load: `rate` requests a second, evenly spaced, from kept-alive connections, inside a `with`.

    A request counts once it has been sent. `failed` are those answered with other than 200, by status and revision,
    and those whose connection broke before their answer ("lost"). Who finds nobody listening waits and connects
    again, as a person or a client with retries would: `waited` counts them, they have not been accepted by anyone.
    """

    url: str
    body: bytes
    rate: float = 100.0
    answered: Counter[str] = field(default_factory=Counter)  # 200s by revision
    failed: Counter[str] = field(default_factory=Counter)
    waited: int = 0
    in_flight: int = 0
    slowest_s: float = 0.0

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._problem is not None:
            raise self._problem

    def kill(self, pid: int) -> int:
        """Kill -9 a process; how many requests were in flight until it was gone, at most.

        They are those that it had, or that its sockets still took: these are closed when its last thread has ended,
        which on a busy machine is a while after the signal.
        """
        in_flight = [self.in_flight]
        descriptor = os.pidfd_open(pid)

        def is_gone() -> bool:
            in_flight.append(self.in_flight)
            return bool(select.select([descriptor], [], [], 0)[0])

        try:
            os.kill(pid, signal.SIGKILL)
            wait_for(is_gone, "its end", every=0.001)
        finally:
            os.close(descriptor)
        return max(in_flight)

    @property
    def failures(self) -> int:
        return sum(self.failed.values())

    def _run(self) -> None:
        try:
            asyncio.run(self._send_all())
        except BaseException as error:  # noqa: BLE001  # raised again where the load is left
            self._problem = error

    async def _send_all(self) -> None:
        parts = urlsplit(self.url)
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body
        due: asyncio.Queue[None] = asyncio.Queue()
        address = parts.hostname or "", parts.port or 80
        senders = [asyncio.create_task(self._send(address, request, due)) for _ in range(_CONNECTIONS)]
        next_at = time.monotonic()
        while not self._stop.is_set():
            due.put_nowait(None)
            next_at += 1 / self.rate
            await asyncio.sleep(max(0.0, next_at - time.monotonic()))
        await due.join()
        for sender in senders:
            sender.cancel()

    async def _send(self, address: tuple[str, int], request: bytes, due: asyncio.Queue[None]) -> None:
        streams: Streams | None = None
        while True:
            await due.get()
            if streams is None or streams[0].at_eof():
                streams = await self._connect(address)
            self.in_flight += 1
            began = time.monotonic()
            try:
                streams[1].write(request)
                status, revision = await _answer(streams[0])
            except (OSError, asyncio.IncompleteReadError):
                self.failed["lost"] += 1
                streams = None
            else:
                if status == "200":
                    self.answered[revision] += 1
                else:
                    self.failed[f"{status} {revision}"] += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.in_flight -= 1
            due.task_done()

    async def _connect(self, address: tuple[str, int]) -> Streams:
        waits = False
        while True:
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(*address)
            self.waited += not waits
            waits = True
            await asyncio.sleep(_AGAIN_S)


async def _answer(reader: asyncio.StreamReader) -> tuple[str, str]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    await reader.readexactly(int(headers.get("content-length", "0")))
    return first.split()[1], headers.get("kanary-revision", "-")
