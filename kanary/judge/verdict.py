"""What the evidence allows now: promote, roll back, pause for a person, need data; with reasons in a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kanary.judge.bets import Array
from kanary.judge.evidence import CLASSES, ERRORS, LATENCY, LIMITS, SPLIT, Evidence

PROMOTE, ROLLBACK, PAUSE, NEED_DATA = "promote", "rollback", "pause", "need data"
KINDS = (NEED_DATA, PROMOTE, PAUSE, ROLLBACK)
# Chance that a split in force within its tolerance is called broken.
SPLIT_ALPHA = 0.001


@dataclass(frozen=True)
class Interval:
    """Anytime-valid, from `low` to `high`."""

    low: float
    high: float


@dataclass(frozen=True)
class Reason:
    """What one kind of outcome says: shares of the requests (0..1), or nan without data.

    difference  canary minus stable, compared within each share; `interval`: 95 %, whenever looked at
    margin      how much more is tolerated
    e_within    e-value against "beyond the margin": 1 / beta and more lets promote
    """

    name: str
    family: str
    canary: float
    stable: float
    difference: float
    interval: Interval | None
    margin: float
    e_within: float


@dataclass(frozen=True)
class Test:
    """What may stop the rollout: e-value and anytime p-value against "all within the margins"; `rejected` by Holm."""

    family: str
    e_value: float
    p_value: float
    rejected: bool


@dataclass(frozen=True)
class Needs:
    """What is still needed until a verdict, if all goes on as so far: median and 90 % quantile; inf: more than tried.

    `promotes`: the part of the simulated futures that end in a promotion. Seconds are None without a known rate.
    """

    requests: float
    requests_90: float
    seconds: float | None
    seconds_90: float | None
    promotes: float


@dataclass(frozen=True)
class Verdict:
    """One of KINDS, why in one sentence for a person, and the figures behind it."""

    kind: str
    sentence: str
    reasons: tuple[Reason, ...]
    tests: tuple[Test, ...]
    needs: Needs | None = None


def p_values(evidence: Evidence) -> dict[str, Array]:
    """Family -> anytime-valid p-value (...,) of "all within the margins"."""
    return {family: np.exp(np.minimum(0.0, -portfolio.log)) for family, portfolio in evidence.against.items()}


def rejected(evidence: Evidence) -> dict[str, npt.NDArray[np.bool_]]:
    """Family -> whether its null is rejected (...,): Holm's procedure at alpha over them, the split on its own."""
    found = p_values(evidence)
    split = found.pop(SPLIT)
    names, ps = list(found), np.stack(list(found.values()), axis=-1)
    order = np.argsort(ps, axis=-1, kind="stable")
    steps = evidence.margins.alpha / np.arange(len(names), 0, -1)
    passed = np.logical_and.accumulate(np.take_along_axis(ps, order, axis=-1) <= steps, axis=-1)
    result = np.zeros(ps.shape, dtype=np.bool_)
    np.put_along_axis(result, order, passed, axis=-1)
    return {**{name: result[..., i] for i, name in enumerate(names)}, SPLIT: split <= SPLIT_ALPHA}


def decide(evidence: Evidence, share: Any) -> npt.NDArray[np.int64]:
    """Indices into KINDS (...,), for a canary that has `share` (0..1) of the traffic now.

    Promotion is an intersection-union test (Berger 1982): every stream must have shown, at level beta, that it is
    within its margin. No data never passes: nor at a share at which the canary has not answered `least` requests.
    """
    split = np.asarray(share, dtype=np.float64)
    found = rejected(evidence)
    none = np.zeros(evidence.windows.shape, dtype=np.bool_)
    stop = found[ERRORS] | found.get(LATENCY, none) | found.get(LIMITS, none)
    pause = found[SPLIT]
    classes = found.get(CLASSES, none)
    if evidence.margins.on_classes == "rollback":
        stop = stop | classes
    else:
        pause = pause | classes
    go = np.all(evidence.within.log >= math.log(1 / evidence.margins.beta), axis=-1)
    go = go & (_answered(evidence, split) >= evidence.margins.least) & (split < 1)
    return np.where(stop, 3, np.where(pause, 2, np.where(go, 1, 0)))


def _answered(evidence: Evidence, split: Array) -> Array:
    """Requests that the canary has answered, or failed, at this share (...,)."""
    row = np.abs(np.array(evidence.shares) - split[..., None]) < 1e-9
    return np.asarray((evidence.tallies[..., 0, 0] * row).sum(axis=-1))


def verdict(evidence: Evidence, share: float, rate: float | None = None) -> Verdict:
    """The verdict on one rollout whose canary has `share` (0..1) of the traffic; `rate`: requests/s of both arms."""
    kind = KINDS[int(decide(evidence, share))]
    reasons, tests = reasons_of(evidence), tests_of(evidence)
    return Verdict(kind, f"{kind}.", reasons, tests, None)


def tests_of(evidence: Evidence) -> tuple[Test, ...]:
    """One test per family."""
    found, ps = rejected(evidence), p_values(evidence)
    return tuple(
        Test(name, math.exp(min(700.0, float(part.log))), float(ps[name]), bool(found[name]))
        for name, part in evidence.against.items()
    )


def reasons_of(evidence: Evidence) -> tuple[Reason, ...]:
    """One reason per stream."""
    found = []
    for index, stream in enumerate(evidence.streams):
        n_c, x_c, n_s, x_s = (evidence.tallies[:, index, i] for i in range(4))
        weight = n_c * n_s / np.maximum(n_c + n_s, 1)
        gaps = weight * (x_c / np.maximum(n_c, 1) - x_s / np.maximum(n_s, 1))
        difference = float(gaps.sum() / weight.sum()) if weight.sum() else math.nan
        e_within = math.exp(min(700.0, float(evidence.within.log[index])))
        canary, stable = (float(x.sum() / n.sum()) if n.sum() else math.nan for n, x in ((n_c, x_c), (n_s, x_s)))
        found.append(Reason(stream.name, stream.family, canary, stable, difference, None, stream.margin, e_within))
    return tuple(found)
