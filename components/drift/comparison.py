"""The comparison itself: every column's test, corrected for their number, and one test of all together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from components.drift.tables import Feature, Pair
from kanary.errors import InputError
from serving.drift import detectors
from serving.drift.findings import Multivariate, Score

Correction = Literal["bonferroni", "fdr"]


@dataclass(frozen=True)
class Compared:
    """One column: its score, and whether its p-value is at most the corrected threshold."""

    feature: Feature
    score: Score
    drifts: bool


@dataclass(frozen=True)
class Comparison:
    """`columns` are ranked: smallest p-value first, then largest distance. `threshold` is after the correction."""

    columns: tuple[Compared, ...]
    together: Score | None
    p_value: float
    threshold: float
    correction: Correction

    @property
    def drifts(self) -> bool:
        """Whether any column does, or all of them together."""
        return any(one.drifts for one in self.columns) or self.drifts_together

    @property
    def drifts_together(self) -> bool:
        """Whether the test of all columns says so, at the uncorrected level: it is one test."""
        found = self.together.p_value if self.together else None
        return found is not None and found <= self.p_value

    @property
    def names(self) -> list[str]:
        """The columns that drift, the surest first."""
        return [one.feature.name for one in self.columns if one.drifts]


def compare(pair: Pair, p_value: float, correction: str, multivariate: str, seed: int = 0) -> Comparison:
    """Compare both sides. InputError for a level, a correction or a test that is none."""
    if not 0 < p_value < 1:
        raise InputError(f"p_value is {p_value}", "give a number between 0 and 1, such as 0.05")
    if correction not in get_args(Correction):
        raise InputError(f"correction is {correction!r}", f"choose one of {', '.join(get_args(Correction))}")
    if multivariate not in get_args(Multivariate):
        raise InputError(f"multivariate is {multivariate!r}", f"choose one of {', '.join(get_args(Multivariate))}")
    scores = detectors.univariate(pair.reference, pair.current)
    threshold = detectors.corrected(pair.reference, pair.current, correction, p_value)
    found = [
        Compared(feature, score, score.p_value is not None and score.p_value <= threshold)
        for feature, score in zip(pair.features, scores, strict=True)
    ]
    found.sort(key=lambda one: (1.0 if one.score.p_value is None else one.score.p_value, -one.score.distance))
    together = detectors.multivariate(multivariate, pair.reference, pair.current, 100, seed)  # type: ignore[arg-type]
    return Comparison(
        tuple(found),
        together[0] if together else None,
        p_value,
        threshold,
        correction,  # type: ignore[arg-type]
    )
