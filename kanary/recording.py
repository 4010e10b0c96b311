"""A recording of what the monitor saw: a gzip file of JSON lines, each what has changed of one source at a moment.

Written so that a kill loses what came after the last `sync`; read up to the last whole line. Never anything but JSON.

The first line is {"kanary-recording": FORMAT, "kanary": VERSION, "began": SECONDS}. Each of the others has `at`
(seconds since the epoch) and `source`, and what is new of it: `told` (how its server stands), `set` (values by key),
`tail` ([how many of the oldest go, what comes after the rest] by key, for lists and texts), `gone` (keys).
"""

from __future__ import annotations

import json
import math
import os
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kanary import __version__
from kanary.errors import InputError, KanaryError

FORMAT = 1
HEAD = "kanary-recording"
MAX_TEXT = 256 << 20  # bytes, unpacked, of a whole recording: it is held in memory when it is looked at
MAX_LINE = 32 << 20
_PIECE = 1 << 16
_TOGETHER = 0.05  # seconds within which what changes is seen as one
_APART = 64  # lines between two states that are kept, from which others are made
_GZIP = 31  # zlib's name for its own window inside gzip's frame

Items = Mapping[str, Any]
State = Mapping[str, tuple[Items, Items]]  # by source: how it stands, and its values


class Full(KanaryError):
    """The recording is as large as it may be."""


class Writer:
    """A recording that is being made. `limit`: bytes that the file may have. Raises InputError: it is there already."""

    def __init__(self, path: Path, began: float, *, limit: int, force: bool = False) -> None:
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
        try:
            self._file = os.open(path, flags, 0o600)  # what runs on a cluster is not everybody's business
        except FileExistsError as error:
            raise InputError(f"{path} is there already.", "Take another name, or --force.") from error
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}.", "Take another place.") from error
        self.path, self.size, self.text, self.lines = path, 0, 0, 0
        self._limit = limit
        self._packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
        self.write({HEAD: FORMAT, "kanary": __version__, "began": round(began, 3)})

    def write(self, line: Mapping[str, Any]) -> None:
        """One line. Raises Full, OSError."""
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        if len(text) > MAX_LINE:
            raise Full(f"One change of {line.get('source')} is larger than a recording can hold.")
        if self.text + len(text) > MAX_TEXT:
            raise Full(f"{self.path} holds {MAX_TEXT >> 20} MB, unpacked: no recording may be larger.")
        if self.size > self._limit:
            raise Full(f"{self.path} has reached {self._limit / 1e6:g} MB.")
        self.text += len(text)
        self.lines += 1
        self._put(self._packer.compress(text))

    def sync(self) -> None:
        """What was written until now survives a kill."""
        self._put(self._packer.flush(zlib.Z_SYNC_FLUSH))

    def close(self) -> None:
        try:
            self._put(self._packer.flush())
        finally:
            os.close(self._file)

    def _put(self, packed: bytes) -> None:
        self.size += len(packed)
        while packed:
            packed = packed[os.write(self._file, packed) :]


@dataclass(frozen=True)
class Recording:
    """A recording that was read. `cut` says why it ends earlier than its file does; empty where it does not."""

    began: float
    times: tuple[float, ...]  # of each line, none before the one above it
    lines: tuple[bytes, ...]
    matters: tuple[int, ...]  # the lines with something that can be seen, not just an age
    cut: str = ""
    _kept: dict[int, State] = field(default_factory=dict, repr=False, compare=False)

    @property
    def start(self) -> float:
        return self.times[0] if self.times else self.began

    @property
    def end(self) -> float:
        return self.times[-1] if self.times else self.began

    def count(self, moment: float) -> int:
        """How many lines there are until this moment."""
        return bisect_right(self.times, moment)

    def state(self, count: int) -> State:
        """All that is known after so many lines."""
        from_line = count // _APART * _APART
        while from_line and from_line not in self._kept:
            from_line -= _APART
        state = self._kept.get(from_line, {})
        for index in range(from_line, count):
            state = self.after(state, index)
            if (index + 1) % _APART == 0:
                self._kept[index + 1] = state
        return state

    def after(self, state: State, index: int) -> State:
        """`state` with one more line."""
        line = json.loads(self.lines[index])
        name = line["source"]
        told, items = state.get(name, ({}, {}))
        changed = dict(items)
        for key in line.get("gone", ()):
            changed.pop(key, None)
        changed.update(line.get("set", {}))
        for key, (drop, more) in line.get("tail", {}).items():
            changed[key] = items[key][drop:] + more if isinstance(items.get(key), type(more)) else more
        return {**state, name: (line.get("told", told), changed)}


def read(path: Path) -> Recording:
    """The recording in a file, as far as it is whole. Raises InputError: it is none, or of a newer format."""
    lines = _lines(path)
    try:
        first = next(lines, None)
    except _Cut as error:
        raise InputError(f"{path} is no recording: {error}.", "`kanary record FILE` makes one.") from error
    began = _began(path, first)
    times: list[float] = []
    kept: list[bytes] = []
    matters: list[int] = []
    cut = ""
    try:
        for number, raw in enumerate(lines, 2):
            at, seen = _checked(raw, number)
            times.append(max(at, times[-1] if times else at))  # a clock that was set back
            if seen and matters and at - times[matters[-1]] < _TOGETHER:
                matters[-1] = len(kept)
            elif seen:
                matters.append(len(kept))
            kept.append(raw)
    except _Cut as error:
        cut = str(error)
    if not kept:
        why = f": {cut}" if cut else ""
        raise InputError(f"Nothing is in {path}{why}.", "It was ended before any server answered.")
    return Recording(began, tuple(times), tuple(kept), tuple(matters), cut)


class _Cut(Exception):
    """From here on the file cannot be read."""


def _lines(path: Path) -> Iterator[bytes]:
    """The whole lines of the file, unpacked; raises _Cut where it is broken, and InputError where it cannot be read."""
    try:
        with path.open("rb") as file:
            unpacker, size = zlib.decompressobj(_GZIP), 0
            parts: list[bytes] = []  # of the line that has no end yet
            while not unpacker.eof:
                packed = unpacker.unconsumed_tail or file.read(_PIECE)
                try:
                    text = unpacker.decompress(packed, _PIECE) if packed else unpacker.flush()
                except zlib.error as error:
                    raise _Cut("it is damaged" if size else "it is not packed with gzip") from error
                size += len(text)
                if size > MAX_TEXT:
                    raise _Cut(f"it is larger than {MAX_TEXT >> 20} MB, unpacked")
                if b"\n" in text:
                    first, *whole, text = text.split(b"\n")
                    yield b"".join((*parts, first))
                    yield from whole
                    parts = []
                parts.append(text)
                if sum(map(len, parts)) > MAX_LINE:
                    raise _Cut(f"a line is longer than {MAX_LINE >> 20} MB")
                if not packed and not unpacker.eof:
                    raise _Cut("it was cut off" if size else "it is empty")
            if any(parts):
                raise _Cut("its last line has no end")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "`kanary record FILE` makes one.") from error


def _began(path: Path, first: bytes | None) -> float:
    head = _document(first or b"")
    version = head.get(HEAD)
    if not isinstance(version, int) or isinstance(version, bool):
        raise InputError(f"{path} is no recording of Kanary's.", "`kanary record FILE` makes one.")
    if version > FORMAT:
        made = str(head.get("kanary"))[:20]
        raise InputError(
            f"{path} was made by a newer Kanary ({made}): its format is {version}, this one reads {FORMAT}.",
            "pip install --upgrade kanary",
        )
    began = head.get("began")
    return float(began) if began is not None and _is_moment(began) else 0.0


def _checked(raw: bytes, number: int) -> tuple[float, bool]:
    """When, and whether there is something to see. Raises _Cut where the line is not as it should be."""
    line = _document(raw)
    at = line.get("at")
    tails = line.get("tail", {})
    right = (
        _is_moment(at)
        and isinstance(line.get("source"), str)
        and all(isinstance(line.get(name, {}), dict) for name in ("told", "set", "tail"))
        and isinstance(gone := line.get("gone", []), list)
        and all(isinstance(key, str) for key in gone)
        and all(
            isinstance(tail, list) and len(tail) == 2 and isinstance(tail[0], int) and isinstance(tail[1], list | str)
            for tail in tails.values()
        )
    )
    if not right:
        raise _Cut(f"line {number} is damaged")
    assert isinstance(at, int | float)
    told: Mapping[str, Any] = line.get("told", {})
    return float(at), bool(line.get("set") or tails or gone or told.get("error"))


def _document(raw: bytes) -> Mapping[str, Any]:
    """The line's object; an empty one where it is none."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_moment(value: Any) -> bool:
    """Whether it is a moment that has a date: seconds since the epoch, up to the year 9999."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 <= value < 2.5e11
