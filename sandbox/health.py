"""Whether a part answers, asked as one HTTP request over a plain socket."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from sandbox.parts import Part


def answers(part: Part, ports: Mapping[str, int], seconds: float = 1.0) -> bool:
    """Whether the part's health path gives 2xx within `seconds`; True for a part that has none."""
    if not part.health:
        return True
    try:
        with socket.create_connection(("127.0.0.1", ports["http"]), seconds) as connection:
            connection.settimeout(seconds)
            connection.sendall(f"GET {part.health} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
            return connection.recv(64).partition(b" ")[2][:1] == b"2"
    except OSError:
        return False
