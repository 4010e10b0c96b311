"""What was accepted and not yet checked, in files: a line an event, a file a window, written before the answer.

A process that is killed loses nothing that it answered 2xx. Nothing is synced to the disk: a machine that loses power
may lose its last seconds.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
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

    def windows(self) -> Iterator[tuple[int, list[Any]]]:
        """The windows that are kept, in order, with their lines. A last line that was cut short is left out."""
        for path in sorted(self.folder.glob(f"{_PREFIX}*.jsonl")):
            yield int(path.stem.removeprefix(_PREFIX)), list(_lines(path))

    def drop(self, number: int) -> None:
        """Remove the file of a window that has been checked."""
        (self.folder / f"{_PREFIX}{number:08d}.jsonl").unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file that is open."""
        if self._file >= 0:
            os.close(self._file)
        self._file = self._number = -1

    def _open(self, number: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{_PREFIX}{number:08d}.jsonl"
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


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file beside its place and rename it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))
    os.replace(beside, path)


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none, or where it is damaged."""
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
