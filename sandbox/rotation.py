"""Bounds log files that other processes append to, and reads them as they grow."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

MAX_BYTES = 10 * 1024 * 1024
_POLL_S = 0.1
_CHUNK = 256 * 1024


def rotate(path: Path, limit: int = MAX_BYTES, reopen: Callable[[], object] | None = None) -> bool:
    """Moves the content of a log above `limit` bytes to PATH.1; whether it did.

    Where `reopen` tells its writer to open it again, not a line is lost. Else by copying and truncating: the writer
    holds it open in append mode. What is written between the two is lost; that is a few lines of ten megabytes.
    """
    try:
        if path.stat().st_size <= limit:
            return False
        older = path.with_name(f"{path.name}.1")
        if reopen is not None:
            path.replace(older)
            reopen()
            return True
        beside = path.with_name(f".{path.name}.1")
        shutil.copyfile(path, beside)
        with path.open("r+b") as log:
            log.truncate(0)
        beside.replace(older)
    except OSError:  # a full disk, or the file has gone: the next turn tries again
        return False
    return True


def tail(path: Path, lines: int = 10) -> str:
    """The last lines of a log, "" where there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - 8192))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def lines(paths: Sequence[Path], goes_on: Callable[[], bool]) -> Iterator[tuple[Path, str]]:
    """Every line of the files, and new ones of any of them for as long as `goes_on()`; survives rotation."""
    positions = dict.fromkeys(paths, 0)
    halves = dict.fromkeys(paths, b"")
    while True:
        again = goes_on()  # asked first: what was written before it turned false is still given
        for path in paths:
            for chunk in _grown(path, positions):
                *complete, halves[path] = (halves[path] + chunk).split(b"\n")
                for line in complete:
                    yield path, line.decode(errors="replace")
        if not again:
            break
        time.sleep(_POLL_S)
    yield from ((path, half.decode(errors="replace")) for path, half in halves.items() if half)


def _grown(path: Path, positions: dict[Path, int]) -> Iterator[bytes]:
    """What has been appended since `positions[path]`, which moves along."""
    try:
        with path.open("rb") as log:
            if log.seek(0, 2) < positions[path]:
                positions[path] = 0
            log.seek(positions[path])
            while chunk := log.read(_CHUNK):
                positions[path] += len(chunk)
                yield chunk
    except FileNotFoundError:
        return
