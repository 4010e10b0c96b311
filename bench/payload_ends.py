"""The two ends of bench.payloads, each in a process of its own: who asks the predictor, and who takes the events.

They import next to nothing: what they cost must not delay what is measured.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

import uvloop

# Not `-m`: `make bench` takes every module that can be run so for a benchmark.
SINK = (sys.executable, "-P", "-c", "from bench.payload_ends import sink; sink()")
LOAD = (sys.executable, "-P", "-c", "from bench.payload_ends import load; load()")


class Counting(asyncio.Protocol):
    """A sink that answers every event and keeps none."""

    def __init__(self) -> None:
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        self.rest += data
        at = found = 0
        while (end := self.rest.find(b"\r\n\r\n", at)) >= 0:
            length = self.rest.index(b"Content-Length: ", at) + 16
            after = end + 4 + int(self.rest[length : self.rest.index(b"\r\n", length)])
            if after > len(self.rest):
                break
            at, found = after, found + 1
        self.rest = self.rest[at:]
        self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n" * found)


def sink() -> None:
    """Listen, say on which port, answer until killed."""

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Counting, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Event().wait()

    uvloop.run(serve())


def load() -> None:
    """BODY PORT CONNECTIONS SECONDS RATE: ask RATE times a second, or for 0 again at once; print answers a second."""
    body = sys.argv[1].encode()
    port, connections, seconds, rate = (float(word) for word in sys.argv[2:])

    async def ask(number: int, until: float) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        head = b"POST /v1/models/plants:predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        asked, due, every = 0, time.monotonic() + number / (rate or 1), connections / rate if rate else 0.0
        while time.monotonic() < until:
            if rate:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due += every
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            asked += 1
        writer.close()
        return asked

    async def run() -> None:
        started = time.monotonic()
        asked = await asyncio.gather(*(ask(number, started + seconds) for number in range(int(connections))))
        print(sum(asked) / (time.monotonic() - started))

    uvloop.run(run())
