"""When which part of a model server's log was written: times and offsets in a file beside it, `<log>.times`.

Logs are what a server prints, without times of ours; this is what `kubectl logs --since` and `--previous` go by.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_MOST = 2000


@dataclass(frozen=True)
class Mark:
    """At `time`, in seconds of the epoch, the log was `offset` bytes long; `life`: that is where a process began."""

    time: float
    offset: int
    life: bool = False


def begin(log: Path) -> None:
    """Note that a process starts now, which writes from the end of the log on."""
    _note(log, life=True)


def mark(log: Path) -> None:
    """Note how far the log has come, if it has moved since the last time."""
    _note(log, life=False)


def marks(log: Path) -> list[Mark]:
    """What was noted of a log, as long as it has not been cut since; lines that make no sense are left out."""
    found: list[Mark] = []
    try:
        size = log.stat().st_size
        lines = _beside(log).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return found
    for line in lines:
        try:
            found.append(Mark(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return [one for one in found if one.offset <= size]


def _note(log: Path, life: bool) -> None:
    """A disk that takes no more costs the times, never the server."""
    try:
        size = log.stat().st_size if log.exists() else 0
        known = marks(log)
        if not life and (not known or known[-1].offset == size):
            return
        added = Mark(round(time.time(), 3), size, life)
        log.parent.mkdir(parents=True, exist_ok=True)
        if known and len(known) < _MOST:
            with _beside(log).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(added)) + "\n")
            return
        # Notes of a log that was cut are void; of too many, every second one will do.
        kept = [one for number, one in enumerate(known) if one.life or number % 2]
        text = "".join(json.dumps(asdict(one)) + "\n" for one in (*kept[-_MOST // 2 :], added))
        new = _beside(log).with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(_beside(log))
    except OSError:
        return


def _beside(log: Path) -> Path:
    return log.with_name(f"{log.name}.times")
