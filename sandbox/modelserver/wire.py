"""How the model server host is spoken to: JSON lines over a unix socket in the home folder.

One request a line, one answer a line: {"op": "put", "spec": {...}}, {"op": "remove", "id": ...}, {"op": "list"},
{"op": "warm", "preload": [...]}; after {"op": "watch"} the connection carries {"server": {...}} for every server and
every change, {"gone": id} for one that is no more, and {"synced": true} once all there are have been told.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from sandbox import unixsocket

SOCKET = Path("modelserver") / "socket"
# One line holds one spec with its environment.
LINE_LIMIT = 1 << 20


def address(home: Path) -> AbstractContextManager[str]:
    """An address of the socket, however long `home` is."""
    return unixsocket.address(home / SOCKET)
