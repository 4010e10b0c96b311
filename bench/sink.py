"""A server that answers every request with the same bytes, from a process of its own: what costs next to nothing.

The load generator is measured against it, and what a predictor logs can be sent to it. Keeps nothing of a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import cast

import uvloop

from bench.httpload import whole

COMMAND = (sys.executable, "-P", "-c", "from bench.sink import main; main()")
_ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n{"predictions":[]}'


class _Answers(asyncio.Protocol):
    """Answers the requests of one connection."""

    def __init__(self) -> None:
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self.data += data
        try:
            while self.data and (found := whole(self.data)) is not None:
                self.data = self.data[found[1] :]
                self.transport.write(_ANSWER)
        except ValueError:
            self.transport.close()


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """The URL of a sink that lives as long as the block."""
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


def main() -> None:
    """Serve until stdin closes; the port is the only line on stdout."""
    uvloop.run(_serve())


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Answers, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()
