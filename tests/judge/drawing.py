"""Windows for the judge's tests: drawn, or written out."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import settings

from kanary.judge.counters import Arm, Counts
from kanary.judge.evidence import Evidence, update

# A busy machine may stop for seconds: how long an example takes says nothing.
unhurried = settings(deadline=None, max_examples=40)
EDGES = (10.0, 25.0, 50.0, 100.0, 250.0)


def counts(canary: tuple[int, int], stable: tuple[int, int]) -> Counts:
    """(requests, errors) of each arm, nothing else."""
    return Counts(Arm(*canary), Arm(*stable))


def arm(rng: np.random.Generator, requests: int, errors: float, median_ms: float = 40.0, cats: float = 0.3) -> Arm:
    """An arm that fails so many, has log-normal latency around the median, and predicts cat or dog."""
    latency = rng.lognormal(math.log(median_ms), 0.5, requests)
    cat = int(rng.binomial(requests, cats))
    slower = tuple(int((latency > edge).sum()) for edge in EDGES)
    return Arm(requests, int(rng.binomial(requests, errors)), slower, requests, {"cat": cat, "dog": requests - cat})


def fed(
    evidence: Evidence,
    windows: int,
    share: float = 0.5,
    requests: int = 400,
    errors: float = 0.001,
    median_ms: float = 40.0,
    cats: float = 0.3,
    split: float | None = None,
    seed: int = 7,
) -> Evidence:
    """`evidence` after so many windows in which the canary is as told, and stable fails 0.1 % at 40 ms, 30 % cats."""
    rng = np.random.default_rng(seed)
    for _ in range(windows):
        n = int(rng.binomial(requests, share if split is None else split))
        canary, stable = arm(rng, n, errors, median_ms, cats), arm(rng, requests - n, 0.001)
        evidence = update(evidence, Counts(canary, stable), share)
    return evidence


def at_least(count: int, number: int, rate: float) -> float:
    """Chance of `count` or more of `number`, at most: exact, by scipy."""
    from scipy import stats

    return float(stats.binom.sf(count - 1, number, rate))
