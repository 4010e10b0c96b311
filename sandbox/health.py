"""Whether a part answers, asked as one HTTP request over a plain socket."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping

from sandbox.parts import Part


def answers(part: Part, ports: Mapping[str, int], seconds: float = 1.0) -> bool:
    """Whether the part's health path gives 2xx within `seconds`; True for a part that has none."""
    if not part.health:
        return True
    try:
        with socket.create_connection(("127.0.0.1", ports[part.probe]), seconds) as plain:
            plain.settimeout(seconds)
            connection = _encrypted(plain) if part.scheme == "https" and part.probe == "http" else plain
            connection.sendall(f"GET {part.health} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(64).partition(b" ")[2][:1] == b"2"
    except OSError:
        return False


def _encrypted(connection: socket.socket) -> ssl.SSLSocket:
    """TLS without verification: on the loopback, whether the part answers is all that is asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)
