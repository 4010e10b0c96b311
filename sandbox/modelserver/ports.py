"""Ports for model servers, on 127.0.0.1."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_COUNT = 10_000


def free_port(taken: Collection[int]) -> int:
    """A port that nothing listens on and that is none of `taken`.

    It lies below those that the kernel gives to outgoing connections, so that a server that ends finds it free again.
    """
    try:
        highest = max(int(_EPHEMERAL.read_text(encoding="ascii").split()[0]), 1024 + _COUNT)
    except (OSError, ValueError):
        highest = 32768
    while True:
        port = random.randrange(highest - _COUNT, highest)
        if port not in taken and is_free(port):
            return port


def is_free(port: int) -> bool:
    """Whether a server could listen on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
