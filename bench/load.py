"""Prediction requests from a process of its own (COMMAND, then URL RATE BODY), one line each on stdout.

A line is `sent answered status revision`, the times in seconds since the epoch. It ends when stdin is closed.
Raw sockets and no client library: what it costs must not delay what is measured.
"""

from __future__ import annotations

import asyncio
import sys
import time
from urllib.parse import urlsplit

from bench.httpload import request

# Not `-m`: `make bench` takes every module that can be run so for a benchmark.
COMMAND = (sys.executable, "-P", "-c", "from bench.load import main; main()")
_CONNECTIONS = 16


def main() -> None:
    """Send what the command line says."""
    asyncio.run(_send_all(sys.argv[1], float(sys.argv[2]), sys.argv[3]))


async def _send_all(url: str, rate: float, body: str) -> None:
    """Until stdin closes, `rate` requests a second, evenly spaced."""
    parts = urlsplit(url)
    due: asyncio.Queue[float] = asyncio.Queue()
    address = parts.hostname or "", parts.port or 80
    senders = [asyncio.create_task(_send(address, request(url, body), due)) for _ in range(_CONNECTIONS)]
    closed = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    next_at = time.monotonic()
    while not closed.done():
        due.put_nowait(next_at)
        next_at += 1 / rate
        await asyncio.sleep(max(0.0, next_at - time.monotonic()))
    await due.join()
    for sender in senders:
        sender.cancel()


async def _send(address: tuple[str, int], message: bytes, due: asyncio.Queue[float]) -> None:
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while True:
        await due.get()
        sent = time.time()
        status, revision = "none", "-"
        try:
            connection = connection or await asyncio.open_connection(*address)
            connection[1].write(message)
            status, revision = await _answer(connection[0])
        except (OSError, asyncio.IncompleteReadError):
            connection = None
        sys.stdout.write(f"{sent:.6f} {time.time():.6f} {status} {revision}\n")
        sys.stdout.flush()
        due.task_done()


async def _answer(reader: asyncio.StreamReader) -> tuple[str, str]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    await reader.readexactly(int(headers.get("content-length", "0")))
    return first.split()[1], headers.get("kanary-revision", "-")
