"""What a check of a window says: scores, findings, a verdict. Plain data, pure functions, no detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["feature", "prediction", "multivariate", "online"]
Multivariate = Literal["none", "mmd", "lsdd", "classifier"]
Verdict = Literal["drift", "no drift", "unknown"]
Cause = Literal["none", "model", "world", "split"]
VERDICTS: tuple[Verdict, ...] = ("drift", "no drift", "unknown")
CAUSES: tuple[Cause, ...] = ("none", "model", "world", "split")
# A multivariate test by permutations cannot be surer than 1 / (permutations + 1): so many windows must agree.
AGREEING = 3


@dataclass(frozen=True)
class Score:
    """One test's distance and p-value; `p_value` is None where the test gives none."""

    name: str
    kind: Kind
    test: str
    distance: float
    p_value: float | None


@dataclass(frozen=True)
class Finding:
    """A score against the threshold that its p-value had to meet. `alarm`: detected, and not in the window before."""

    score: Score
    threshold: float
    detected: bool
    alarm: bool


@dataclass(frozen=True)
class Comparison:
    """Canary against stable over the same time: what differs between them, and what that tells."""

    stable: str
    cause: Cause
    features: tuple[str, ...]
    predictions: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """The check of one window of one stream. `doubt` says why the verdict is unknown."""

    window: int
    at: float
    rows: int
    seconds: float
    verdict: Verdict
    doubt: str
    coverage: float | None
    findings: tuple[Finding, ...] = ()
    outliers: int = 0
    outlier_ids: tuple[str, ...] = ()
    comparison: Comparison | None = None

    def as_json(self) -> dict[str, Any]:
        """As /v1/drift shows it."""
        return asdict(self)


def result_from(document: Mapping[str, Any]) -> Result:
    """What `as_json` gave, back."""
    comparison = document["comparison"]
    fields = dict(document) | {
        "findings": tuple(
            Finding(Score(**entry["score"]), entry["threshold"], entry["detected"], entry["alarm"])
            for entry in document["findings"]
        ),
        "outlier_ids": tuple(document["outlier_ids"]),
        "comparison": None
        if comparison is None
        else Comparison(
            comparison["stable"], comparison["cause"], tuple(comparison["features"]), tuple(comparison["predictions"])
        ),
    }
    return Result(**fields)


def judged(scores: Sequence[Score], threshold: float, drifting: Sequence[str]) -> tuple[Finding, ...]:
    """The scores against one threshold; `drifting` are the names that were detected in the window before."""
    found = []
    for score in scores:
        detected = score.p_value is not None and score.p_value <= threshold
        found.append(Finding(score, threshold, detected, detected and score.name not in drifting))
    return tuple(found)


def agreeing(p_values: Sequence[float]) -> float:
    """The p-value of AGREEING windows together, from theirs: the largest to the power of their number.

    They are independent where nothing drifts, so that all being at most p has the probability p^n; 1 for fewer windows.
    """
    newest = p_values[-AGREEING:]
    return max(newest) ** AGREEING if len(newest) == AGREEING else 1.0


def cause(features: Sequence[Finding], predictions: Sequence[Finding], stable_drifts: bool) -> Cause:
    """What a difference between canary and stable tells.

    Both see a part of the same traffic. Where their rows differ, the split is no chance (or one of them gets other
    callers); where only their answers do, it is the model; where neither does, what drifts is the world.
    """
    if any(finding.detected for finding in features):
        return "split"
    if any(finding.detected for finding in predictions):
        return "model"
    return "world" if stable_drifts else "none"
