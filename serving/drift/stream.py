"""One stream: the events of one model in one revision of one service, in windows, kept by a journal."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from serving.drift.events import Kind, Reader, Source
from serving.drift.findings import Result, result_from
from serving.drift.journal import Journal, read_json, write_json
from serving.drift.models import Model
from serving.drift.shapes import Shape
from serving.drift.window import Prediction, Row, Rule, Window, state


@dataclass(frozen=True)
class Count:
    """Events that had come, and requests that the proxy had answered, at one moment; None where it was not asked."""

    events: int
    requests: float | None


@dataclass
class Stream:
    """`waiting` are closed windows that are not checked yet, `counted` is the newest count, at `counted_at`."""

    source: Source
    model: Model
    reader: Reader
    journal: Journal
    window: Window = field(default_factory=lambda: Window(1))
    waiting: deque[Window] = field(default_factory=deque)
    before: tuple[set[tuple[str, str]], ...] = ()  # ids of the newest windows that are gone
    openings: dict[int, Count | None] = field(default_factory=dict)
    counted: Count | None = None
    counted_at: float = 0.0
    events: dict[str, int] = field(default_factory=lambda: {"request": 0, "response": 0})
    repeated: int = 0
    last_event: float = 0.0
    result: Result | None = None
    drifting: tuple[str, ...] = ()
    multivariate: tuple[float, ...] = ()
    alarms: dict[str, int] = field(default_factory=dict)
    outliers: int = 0
    recent: Window | None = None  # the newest checked window, for a canary to be compared with
    shapes: tuple[Shape, ...] = ()  # of the newest checked window; after a restart there are none until the next
    checked: int = 0
    failures: int = 0

    @property
    def held(self) -> int:
        """Rows and predictions in memory."""
        return sum(len(window.rows) + len(window.predictions) for window in (self.window, *self.waiting))

    @property
    def exchanges(self) -> int:
        """Requests that have left an event: of the two that each may leave, whichever came more often."""
        return max(self.events.values())

    def take(self, kind: Kind, event_id: str, at: float, found: list[Row] | list[Prediction]) -> bool:
        """Journal an event, then count it and its rows in; False for one that has come before. Raises OSError."""
        key = (kind, event_id)
        if key in self.window.seen or any(key in seen for seen in self._elsewhere()):
            self.repeated += 1
            return False
        if not self.window.opened:
            self._opened(at)
        content = found if kind == "request" else [[one.label, one.probabilities] for one in found]  # type: ignore[union-attr]
        self.journal.append(self.window.number, orjson.dumps([kind, event_id, at, content]))
        self._add(kind, event_id, at, found)
        return True

    def close_if(self, now: float, rule: Rule) -> bool:
        """End the window where it is full or due, and begin the next one."""
        if state(self.window, now, rule) not in ("full", "due"):
            return False
        self._close(now)
        return True

    def done(self, window: Window) -> None:
        """Forget a window that has been checked, its file included."""
        self.waiting.remove(window)
        self.before = (*self.before[-1:], window.seen)
        self.recent = window
        self.openings.pop(window.number, None)
        self.journal.drop(window.number)

    def restore(self, kept: dict[str, Any], rule: Rule) -> None:
        """Take up what a process before left: what it had checked, then its journal."""
        self.checked = kept.get("checked", 0)
        self.events |= kept.get("events", {})
        self.drifting = tuple(kept.get("drifting", ()))
        self.multivariate = tuple(kept.get("multivariate", ()))
        self.alarms = dict(kept.get("alarms", {}))
        self.outliers = kept.get("outliers", 0)
        self.last_event = kept.get("last_event", 0.0)
        self.result = result_from(kept["result"]) if kept.get("result") else None
        self.window = Window(self.checked + 1)
        for number, lines in self.journal.windows():
            if number <= self.checked:
                self.journal.drop(number)
                continue
            if number != self.window.number:
                if self.window.opened:
                    self._close(self.last_event)
                self.window = Window(number)
            for line in lines:
                self._replay(line)
        self.close_if(self.last_event, rule)

    def kept(self) -> dict[str, Any]:
        """What `restore` needs besides the journal. Events of windows that are not checked are counted again there."""
        unchecked = [window for window in (self.window, *self.waiting) if window.number > self.checked]
        events = {kind: number - sum(w.events[kind] for w in unchecked) for kind, number in self.events.items()}
        return {
            "source": asdict(self.source),
            "checked": self.checked,
            "events": events,
            "drifting": self.drifting,
            "multivariate": self.multivariate,
            "alarms": self.alarms,
            "outliers": self.outliers,
            "last_event": self.last_event,
            "result": self.result.as_json() if self.result else None,
        }

    def _opened(self, at: float) -> None:
        number = self.window.number
        self.openings[number] = self.counted
        told = asdict(self.counted) if self.counted else None
        self.journal.append(number, orjson.dumps(["opened", "", at, told]))

    def _replay(self, line: Any) -> None:
        kind, event_id, at, content = line
        if kind == "opened":
            self.openings[self.window.number] = Count(**content) if content else None
        elif kind == "request":
            self._add(kind, event_id, at, [tuple(row) for row in content])
        else:
            self._add(kind, event_id, at, [Prediction(label, tuple(shares)) for label, shares in content])

    def _add(self, kind: Kind, event_id: str, at: float, found: list[Row] | list[Prediction]) -> None:
        self.window.add(kind, event_id, at, found)
        self.events[kind] += 1
        self.last_event = max(self.last_event, at)

    def _close(self, now: float) -> None:
        self.window.closed = now
        self.waiting.append(self.window)
        self.window = Window(self.window.number + 1)

    def _elsewhere(self) -> list[set[tuple[str, str]]]:
        return [*(window.seen for window in self.waiting), *self.before]


def folder_of(home: Path, source: Source) -> Path:
    """Where a stream's files lie: a name that no header can lead out of."""
    name = hashlib.sha256(orjson.dumps(asdict(source), option=orjson.OPT_SORT_KEYS)).hexdigest()[:24]
    return home / "streams" / name


def remember(home: Path, source: Source) -> None:
    """Write down whose the folder is, once."""
    path = folder_of(home, source) / "source.json"
    if not path.exists():
        write_json(path, asdict(source))


def remembered(home: Path) -> list[Source]:
    """The streams that have left files."""
    found = [read_json(path) for path in sorted((home / "streams").glob("*/source.json"))]
    return [Source(**document) for document in found if document]
