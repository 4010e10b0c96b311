"""Ends a connection whose client does not read, and what is waiting for it, at once."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterable
from typing import Any


def cut(connections: Iterable[Any], client: tuple[Any, ...]) -> bool:
    """Aborts those of uvicorn's connections that come from the address `client`; whether there was one."""
    found = [one for one in connections if tuple(getattr(one, "client", None) or ()) == client]
    for connection in found:
        _abort(connection.transport)
    return bool(found)


def _abort(transport: asyncio.Transport) -> None:
    # Without this the kernel would keep what it has buffered for as long as the client stays.
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
