"""Speaks to the model server host of a home; for the controller, and for whoever shows what runs."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxError
from sandbox.modelserver.spec import Spec, Status, status_from, to_json
from sandbox.modelserver.wire import LINE_LIMIT, address


class HostUnreachable(SandboxError):
    """No host answers on the socket of this home."""


class Client:
    """One connection for requests, made on first use and made again after it broke."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def put(self, spec: Spec) -> None:
        """Bring a server to `spec`."""
        await self._ask({"op": "put", "spec": to_json(spec)})

    async def remove(self, name: str) -> None:
        """End a server and forget it."""
        await self._ask({"op": "remove", "id": name})

    async def warm(self, preload: tuple[str, ...]) -> None:
        """Have the parent for this preload list ready."""
        await self._ask({"op": "warm", "preload": list(preload)})

    async def watch(self) -> AsyncIterator[tuple[str, Status | None]]:
        """Every server, then ("", None), then every change as it comes: id and status, None for one that is gone."""
        reader, writer = await _connect(self._home)
        try:
            writer.write(b'{"op":"watch"}\n')
            while (line := await reader.readline()).endswith(b"\n"):  # half a line is where the connection was cut
                message = json.loads(line)
                if "server" in message:
                    yield message["server"]["id"], status_from(message["server"])
                else:
                    yield message.get("gone", ""), None
        except ConnectionError as error:
            raise HostUnreachable(f"the model server host went away: {error}") from error
        finally:
            writer.close()

    async def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        async with self._lock:
            try:
                if self._streams is None:
                    self._streams = await _connect(self._home)
                reader, writer = self._streams
                writer.write(json.dumps(request).encode() + b"\n")
                await writer.drain()
                line = await reader.readline()
            except ConnectionError:
                line = b""
            if not line.endswith(b"\n"):
                await self.close()
                raise HostUnreachable("the model server host closed the connection", "is the sandbox still up?")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SandboxError(answer["error"])
        return answer


def servers(home: Path, timeout_s: float = 2.0) -> list[dict[str, Any]]:
    """Every server of `home` as the host tells of it, with its memory. HostUnreachable where there is no host."""
    with address(home) as path, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(path)
            connection.sendall(b'{"op":"list"}\n')
            with connection.makefile("rb") as answers:
                found: list[dict[str, Any]] = json.loads(answers.readline())["servers"]
        except (OSError, ValueError) as error:
            raise HostUnreachable(f"no model server host answers in {home}: {error}") from error
    return found


async def _connect(home: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    with address(home) as path:
        try:
            return await asyncio.open_unix_connection(path, limit=LINE_LIMIT)
        except OSError as error:
            raise HostUnreachable(f"no model server host answers in {home}: {error}") from error
