"""How the model server host is spoken to: JSON lines over a unix socket in the home folder.

One request a line, one answer a line: {"op": "put", "spec": {...}}, {"op": "remove", "id": ...}, {"op": "list"},
{"op": "warm", "preload": [...]}; after {"op": "watch"} the connection carries {"server": {...}} for every server and
every change, {"gone": id} for one that is no more, and {"synced": true} once all there are have been told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET = Path("modelserver") / "socket"
# One line holds one spec with its environment.
LINE_LIMIT = 1 << 20


@contextmanager
def address(home: Path) -> Iterator[str]:
    """An address of the socket that fits into the 107 bytes a unix socket's may have, however long `home` is."""
    folder = (home / SOCKET).parent
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET.name}"
    finally:
        os.close(descriptor)
