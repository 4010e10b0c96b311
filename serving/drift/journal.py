"""What was accepted and not yet checked, in files: a line an event, a file a window, written before the answer.

A process that is killed loses nothing that it answered 2xx. What is written stands on the disk once `synced` has run,
which the service has it do every second: a machine that loses power loses that much. What is renamed is synced first.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

_PREFIX = "window-"


@dataclass
class Journal:
    """The files of one stream in `folder`."""

    folder: Path
    _number: int = -1
    _file: int = -1
    _size: int = 0
    _fresh: bool = False  # something was written since the last sync
    _left: list[int] = field(default_factory=list)  # files that were closed, and the folder of new ones, since then

    def append(self, number: int, line: bytes) -> None:
        """Write a line of window `number`. OSError where the disk is full: then nothing of it stands there."""
        if number != self._number:
            self.close()
            self._open(number)
        data = line + b"\n"
        try:
            if os.write(self._file, data) < len(data):
                raise OSError(errno.ENOSPC, "no space left for the journal", str(self.folder))
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)
        self._fresh = True

    def windows(self) -> Iterator[tuple[int, list[Any]]]:
        """The windows that are kept, in order, with their lines. A last line that was cut short is left out."""
        for path in sorted(self.folder.glob(f"{_PREFIX}*.jsonl")):
            yield int(path.stem.removeprefix(_PREFIX)), list(_lines(path))

    def drop(self, number: int) -> None:
        """Remove the file of a window that has been checked."""
        (self.folder / f"{_PREFIX}{number:08d}.jsonl").unlink(missing_ok=True)

    def unsynced(self) -> list[int]:
        """Descriptors of what was written since the last call. They are the caller's now, for `synced`."""
        found, self._left = self._left, []
        if self._fresh and self._file >= 0:
            found.append(os.dup(self._file))
        self._fresh = False
        return found

    def close(self) -> None:
        """Close the file that is open."""
        if self._file >= 0 and self._fresh:
            self._left.append(self._file)
        elif self._file >= 0:
            os.close(self._file)
        self._file = self._number = -1
        self._fresh = False

    def _open(self, number: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{_PREFIX}{number:08d}.jsonl"
        if not path.exists():
            self._left.append(os.open(self.folder, os.O_RDONLY))
        self._file, self._number = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600), number
        self._size = os.fstat(self._file).st_size
        if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":  # killed while it wrote
            self._size = path.read_bytes().rfind(b"\n") + 1
            os.ftruncate(self._file, self._size)


def _lines(path: Path) -> Iterator[Any]:
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            yield orjson.loads(line)
        except ValueError:
            continue


def synced(descriptors: Iterable[int]) -> None:
    """Have the disk hold what was written through these, and close them. Waits for the disk; raises OSError."""
    left = list(descriptors)
    try:
        while left:
            os.fsync(left[-1])
            os.close(left.pop())
    finally:
        for descriptor in left:
            os.close(descriptor)


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file beside its place, have the disk hold it, and rename it there."""
    replace(path, orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))


def replace(path: Path, content: bytes) -> None:
    """Put a file in the place of another: whenever the machine stops, the one or the other is there, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    synced([os.open(path.parent, os.O_RDONLY)])


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none, or where it is damaged."""
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
