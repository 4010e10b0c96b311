"""Windows of rows: when one is full, due or too small, and what it holds. Knows nothing of files or detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Row = tuple[Any, ...]
# So much longer than full a window may grow while it waits for predictions.
_LATE = 1.25
State = Literal["open", "full", "due", "short"]


@dataclass(frozen=True)
class Rule:
    """A window ends with `rows` rows, or after `seconds` if it has `minimum` of them by then."""

    rows: int = 1000
    seconds: float = 3600.0
    minimum: int = 200


@dataclass(frozen=True)
class Prediction:
    """What the model answered for one row: a class, and the probability of every class in the order of model.json."""

    label: str
    probabilities: tuple[float, ...]


@dataclass
class Window:
    """One window of one stream. `opened` is when its first event came, in seconds since the epoch, 0 before."""

    number: int
    opened: float = 0.0
    closed: float = 0.0
    rows: list[Row] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    row_ids: list[str] = field(default_factory=list)
    seen: set[tuple[str, str]] = field(default_factory=set)
    events: dict[str, int] = field(default_factory=lambda: {"request": 0, "response": 0})

    @property
    def size(self) -> int:
        """Rows of whichever kind there are more of: a logger may send requests alone, or responses."""
        return max(len(self.rows), len(self.predictions))

    @property
    def whole(self) -> int:
        """Rows that have their prediction, where both kinds come."""
        return min(len(self.rows), len(self.predictions)) if all(self.events.values()) else self.size

    def add(self, kind: str, event_id: str, at: float, found: Sequence[Row] | Sequence[Prediction]) -> bool:
        """Take an event's rows or predictions; False for one that is here already: deliveries are repeated."""
        if (kind, event_id) in self.seen:
            return False
        self.seen.add((kind, event_id))
        self.opened = self.opened or at
        self.events[kind] += 1
        if kind == "request":
            self.rows += found  # type: ignore[arg-type]
            self.row_ids += [event_id] * len(found)
        else:
            self.predictions += found  # type: ignore[arg-type]
        return True


def state(window: Window, now: float, rule: Rule) -> State:
    """Whether the window is to be checked (full, due), goes on (open), or would be due but is too small (short).

    Responses come after their requests, and some never: a full window waits for them, but not for many.
    """
    if window.whole >= rule.rows or window.size >= rule.rows * _LATE:
        return "full"
    if not window.opened or now - window.opened < rule.seconds:
        return "open"
    return "due" if window.size >= rule.minimum else "short"
