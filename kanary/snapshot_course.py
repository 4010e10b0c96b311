"""How near to drift a column was over time: levels from p-values and thresholds, for a heat map. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Any

POINTS = 60  # of a course
# Levels, the worst last: no data, four quarters of the way to the threshold, unknown, drift.
NONE, UNKNOWN, DRIFT = -1, 4, 5
Pairs = Sequence[Any]  # [seconds, text of a number] as Prometheus writes them


@dataclass(frozen=True)
class Grid:
    """The moments of a course: POINTS of them, `step` seconds apart. The last, at `end`, is still to come."""

    end: float
    step: float

    @property
    def start(self) -> float:
        return self.end - self.step * (POINTS - 1)

    def moment(self, index: int) -> float:
        return self.start + index * self.step

    def placed(self, pairs: Pairs) -> list[float | None]:
        """The numbers at their places; None where there is none, or what should be a number is not."""
        found: list[float | None] = [None] * POINTS
        for pair in pairs:
            try:
                place, value = round((float(pair[0]) - self.start) / self.step), float(pair[1])
            except (TypeError, ValueError, IndexError, KeyError):
                continue
            if 0 <= place < POINTS and not math.isnan(value):
                found[place] = value
        return found


def grid(now: float, span: float) -> Grid:
    """The moments of so many seconds until now, at multiples of the step: a picture does not change but at its end."""
    step = span / POINTS
    return Grid((math.floor(now / step) + 1) * step, step)


@dataclass(frozen=True)
class Past:
    """What was asked of the past: by finding, and by model. Read when it is drawn, once.

    `detected`: moments before which, within a step, a window had drifted; `unknown`: with an unknown verdict.
    """

    grid: Grid
    span: float
    p_values: Mapping[str, Pairs] = field(default_factory=dict)
    detected: Mapping[str, Pairs] = field(default_factory=dict)
    thresholds: Mapping[str, Pairs] = field(default_factory=dict)
    unknown: Mapping[str, Pairs] = field(default_factory=dict)
    _read: dict[str, tuple[tuple[float | None, ...], tuple[int, ...]]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def read(self, finding: str, model: str) -> tuple[tuple[float | None, ...], tuple[int, ...]]:
        """The severities and levels of a finding at all moments but the last."""
        if finding not in self._read:
            p_values = self.grid.placed(self.p_values.get(finding, ()))
            thresholds = self.grid.placed(self.thresholds.get(model, ()))
            severities = tuple(map(severity, p_values[:-1], thresholds[:-1]))
            detected = self.grid.placed(self.detected.get(finding, ()))
            unknown = self.grid.placed(self.unknown.get(model, ()))
            # Where the verdict was unknown no p-value makes it calm.
            levels = tuple(
                DRIFT if drifts else UNKNOWN if doubt else quarter(value)
                for value, drifts, doubt in zip(severities, detected, unknown, strict=False)
            )
            self._read[finding] = severities, levels
        return self._read[finding]


@dataclass(frozen=True)
class Course:
    """One column's way: its past, and what it is now at the last moment."""

    past: Past
    finding: str
    model: str
    now: float | None  # its severity
    level: int

    @property
    def severities(self) -> tuple[float | None, ...]:
        """At each moment how far it was on the way to the threshold; 1 and more is drift."""
        return (*self.past.read(self.finding, self.model)[0], self.now)

    @property
    def levels(self) -> tuple[int, ...]:
        """A level for each moment."""
        return (*self.past.read(self.finding, self.model)[1], self.level)

    @property
    def since(self) -> float | None:
        """The first moment of the drift that goes on now; None where none does, or it began before the course."""
        if self.level != DRIFT:
            return None
        detected = self.past.grid.placed(self.past.detected.get(self.finding, ()))
        calm = [index for index, value in enumerate(detected[:-1]) if not value]
        return self.past.grid.moment(calm[-1]) if calm else None


def quarter(value: float | None) -> int:
    """The level of a severity where nothing has drifted."""
    return NONE if value is None else min(3, max(0, int(4 * value)))


def severity(p_value: float | None, threshold: float | None) -> float | None:
    """How far a p-value is on the way from 1 to the threshold, by their logarithms; at most 99."""
    if p_value is None or threshold is None:
        return None
    if threshold >= 1:
        return 99.0
    if threshold <= 0 or p_value >= 1:
        return 0.0
    return min(99.0, math.log(p_value) / math.log(threshold)) if p_value > 0 else 99.0


@lru_cache(4096)
def squeezed(levels: tuple[int, ...], width: int) -> tuple[tuple[int, int], ...]:
    """The levels in `width` places as (level, how many in a row): of several in one place the worst."""
    count = len(levels)
    places = [
        max(levels[i * count // width : max((i + 1) * count // width, i * count // width + 1)]) for i in range(width)
    ]
    return tuple((level, len([*run])) for level, run in groupby(places))
