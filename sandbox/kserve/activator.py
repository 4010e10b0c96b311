"""Holds requests for servers that are scaled to zero: takes the connection, has the server started, passes it on.

It passes bytes and knows nothing of HTTP; whoever waits too long is given up by the gateway's timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox.gateway.description import RevisionKey

HOST = "127.0.0.1"
# Connections of one revision that are held or passed on; more are reset, which the gateway answers with 503.
MOST = 100
# Knative's own longest time for an answer.
_LONGEST_S = 600.0
_CHUNK = 1 << 16


@dataclass
class _Door:
    """One revision's port here. `target` is its server's, while that answers; 0, where nobody listens, at its end."""

    listener: asyncio.Server
    port: int
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    target: int = 0
    inside: int = 0


class Activator:
    """A port for each revision that may be scaled to zero. `wake` is called with every one that is asked for."""

    def __init__(self, wake: Callable[[RevisionKey], None]) -> None:
        self._wake = wake
        self._doors: dict[RevisionKey, _Door] = {}

    async def listen(self, key: RevisionKey) -> int:
        """The port at which requests for that revision are held."""
        if key not in self._doors:
            listener = await asyncio.start_server(lambda reader, writer: self._serve(key, reader, writer), HOST, 0)
            self._doors[key] = _Door(listener, int(listener.sockets[0].getsockname()[1]))
        return self._doors[key].port

    def open(self, key: RevisionKey, port: int) -> None:
        """The revision's server answers on `port`: let everybody through."""
        if (door := self._doors.get(key)) is not None:
            door.target = port
            door.opened.set()

    def shut(self, key: RevisionKey) -> None:
        """The revision's server does not answer: hold whoever comes."""
        if (door := self._doors.get(key)) is not None:
            door.opened.clear()

    def holds(self, key: RevisionKey) -> bool:
        """Whether somebody waits for that revision's server."""
        door = self._doors.get(key)
        return door is not None and door.inside > 0 and not door.opened.is_set()

    def forget(self, key: RevisionKey) -> None:
        """Listen for that revision no longer. What is being passed on goes on; who waits is turned away."""
        if (door := self._doors.pop(key, None)) is not None:
            door.listener.close()
            if not door.opened.is_set():
                door.target = 0
                door.opened.set()

    def close(self) -> None:
        """Listen no longer."""
        for key in list(self._doors):
            self.forget(key)

    async def _serve(self, key: RevisionKey, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        door = self._doors.get(key)
        if door is None or door.inside >= MOST:
            writer.transport.abort()
            return
        door.inside += 1
        try:
            if not door.opened.is_set():
                self._wake(key)
                await asyncio.wait_for(door.opened.wait(), _LONGEST_S)
            inner_reader, inner_writer = await asyncio.open_connection(HOST, door.target)
            await _pass_on(reader, writer, inner_reader, inner_writer)
        except (OSError, TimeoutError, asyncio.CancelledError):  # cancelled with the process: nothing comes after it
            writer.transport.abort()
        finally:
            door.inside -= 1
            writer.close()


async def _pass_on(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    inner_reader: asyncio.StreamReader,
    inner_writer: asyncio.StreamWriter,
) -> None:
    """Both ways, until one side ends; the other one is then closed, too."""
    ways = [asyncio.create_task(_copy(reader, inner_writer)), asyncio.create_task(_copy(inner_reader, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        inner_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
