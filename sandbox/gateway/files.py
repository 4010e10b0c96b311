"""The files that Envoy reads: where they are, and how they are written so that it never sees half of one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True)
class Files:
    """The gateway's files below a sandbox's home. Envoy watches the folders, hence one for each watched document."""

    home: Path

    @property
    def bootstrap(self) -> Path:
        return self.home / "gateway" / "bootstrap.json"

    @property
    def clusters(self) -> Path:
        return self.home / "gateway" / "clusters" / "clusters.json"

    @property
    def routes(self) -> Path:
        return self.home / "gateway" / "routes" / "routes.json"

    @property
    def access_log(self) -> Path:
        return self.home / "logs" / "access.log"


class Held:
    """A document in a file that one process writes; read again only if somebody else has touched the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._document: Document | None = None
        self._seen: tuple[int, int, int] | None = None

    def get(self) -> Document | None:
        """The document, not to be changed; None where there is none that can be read."""
        now = _signature(self._path)  # before it is read: what is written meanwhile is read the next time
        if now is None or now != self._seen:
            self._document, self._seen = read(self._path), now
        return self._document

    def put(self, document: Document) -> None:
        """Write the document, whether it differs or not: Envoy is told again."""
        write(self._path, document)
        self._document, self._seen = document, _signature(self._path)


def write(path: Path, document: Document) -> None:
    """Write `document` beside `path`, then rename it there. A leftover of a killed writer is overwritten."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(document, separators=(",", ":")), encoding="utf-8")
    beside.replace(path)


def read(path: Path) -> Document | None:
    """The document at `path`; None where there is none, or none that can be read as one."""
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
