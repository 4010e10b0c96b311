"""The host behind its socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from sandbox.errors import SandboxError
from sandbox.modelserver.host import Host
from sandbox.modelserver.process import memory
from sandbox.modelserver.spec import Status, spec_from, to_json
from sandbox.modelserver.wire import LINE_LIMIT, SOCKET, address

_logger = logging.getLogger(__name__)
# A watcher that reads nothing for so many changes is cut off; it starts again with everything.
_QUEUE = 10_000


async def listen(host: Host) -> asyncio.Server:
    """Serve `host` on its socket; one that a killed host left behind is replaced."""
    (host.home / SOCKET).unlink(missing_ok=True)
    with address(host.home) as path:

        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _converse(host, reader, writer)

        server = await asyncio.start_unix_server(client, path, limit=LINE_LIMIT)
    (host.home / SOCKET).chmod(0o600)
    return server


async def _converse(host: Host, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        try:
            while line := await reader.readline():
                request = json.loads(line)
                if request.get("op") == "watch":
                    await _watch(host, reader, writer)
                    return
                writer.write(_line(_answer(host, request)))
                await writer.drain()
        except ValueError as error:
            writer.write(_line({"error": f"not a request: {error}"}))
        finally:
            writer.close()


def _answer(host: Host, request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        match request.get("op"):
            case "put":
                return {"server": to_json(host.put(spec_from(request["spec"])))}
            case "remove":
                host.remove(request["id"])
                return {}
            case "warm":
                host.warm(tuple(request["preload"]))
                return {}
            case "list":
                return {"servers": [_with_memory(status) for status in host.statuses()]}
        return {"error": f"no operation {request.get('op')!r}"}
    except SandboxError as error:
        return {"error": str(error)}
    except (KeyError, TypeError) as error:
        return {"error": f"malformed request: {error}"}


async def _watch(host: Host, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    changes: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def changed(name: str, status: Status | None) -> None:
        if changes.qsize() >= _QUEUE:
            writer.transport.abort()  # to close it would wait until it has read what was written
            host.forget(changed)
            return
        changes.put_nowait({"gone": name} if status is None else {"server": to_json(status)})

    host.listen(changed)
    left = asyncio.create_task(reader.read(1))
    try:
        for status in host.statuses():
            writer.write(_line({"server": to_json(status)}))
        writer.write(_line({"synced": True}))
        while not left.done():
            change = asyncio.create_task(changes.get())
            await asyncio.wait([change, left], return_when=asyncio.FIRST_COMPLETED)
            if not change.done():
                change.cancel()
                return
            writer.write(_line(change.result()))
            await writer.drain()
    finally:
        left.cancel()
        host.forget(changed)


def _with_memory(status: Status) -> dict[str, Any]:
    resident, private = memory(status.pid) if status.pid else (0, 0)
    return to_json(status) | {"resident_bytes": resident, "private_bytes": private}


def _line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"
