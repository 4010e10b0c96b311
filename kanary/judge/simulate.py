"""Rollouts that are only drawn: windows of two arms with known rates, many at once, and when a verdict falls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from kanary.judge.bets import Array
from kanary.judge.counters import Arm, Counts
from kanary.judge.decide import decide
from kanary.judge.evidence import Evidence, Portfolio, update

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rates:
    """What one arm does, in each of (rollouts,) rollouts.

    errors   (rollouts,) chance that a request fails
    buckets  (rollouts, edges + 1) chance that a request's latency falls into each bucket; (rollouts, 0): unknown
    classes  (rollouts, classes) chance of each class; (rollouts, 0): unknown
    """

    errors: Array
    buckets: Array = field(default_factory=lambda: np.zeros((1, 0)))
    classes: Array = field(default_factory=lambda: np.zeros((1, 0)))


def window(
    rng: np.random.Generator, canary: Rates, stable: Rates, requests: Ints, share: Array, names: tuple[str, ...]
) -> Counts:
    """One window of each rollout: `requests` (rollouts,) of both arms, split at random by `share` (rollouts,)."""
    to_canary = rng.binomial(requests, share)
    return Counts(_arm(rng, canary, to_canary, names), _arm(rng, stable, requests - to_canary, names))


def _arm(rng: np.random.Generator, rates: Rates, requests: Ints, names: tuple[str, ...]) -> Arm:
    slower: tuple[Ints, ...] = ()
    if rates.buckets.shape[-1]:
        drawn = rng.multinomial(requests, rates.buckets)
        slower = tuple(np.moveaxis(requests[:, None] - np.cumsum(drawn, axis=-1)[:, :-1], -1, 0))
    classes: dict[str, Ints] = {}
    if rates.classes.shape[-1]:
        classes = dict(zip(names, np.moveaxis(rng.multinomial(requests, rates.classes), -1, 0), strict=True))
    return Arm(  # counts of many rollouts at once stand where those of one do
        requests=requests,  # type: ignore[arg-type]
        errors=rng.binomial(requests, rates.errors),  # type: ignore[arg-type]
        slower=slower,  # type: ignore[arg-type]
        measured=requests if slower else 0,  # type: ignore[arg-type]
        classes=classes,  # type: ignore[arg-type]
    )


def repeated(evidence: Evidence, rollouts: int) -> Evidence:
    """The evidence of one rollout as that of many that have begun alike."""

    def often(array: Array) -> Array:
        return np.repeat(array[None], rollouts, axis=0)

    return replace(
        evidence,
        tallies=often(evidence.tallies),
        against={name: Portfolio(often(p.log), often(p.weights)) for name, p in evidence.against.items()},
        within=Portfolio(often(evidence.within.log), often(evidence.within.weights)),
        spread=often(evidence.spread),
        windows=often(np.asarray(evidence.windows)),
    )


def part(evidence: Evidence, rows: npt.NDArray[np.bool_]) -> Evidence:
    """Some of many rollouts."""
    return replace(
        evidence,
        tallies=evidence.tallies[rows],
        against={name: Portfolio(p.log[rows], p.weights[rows]) for name, p in evidence.against.items()},
        within=Portfolio(evidence.within.log[rows], evidence.within.weights[rows]),
        spread=evidence.spread[rows],
        windows=evidence.windows[rows],
    )


def growing(first: float, most: float, factor: float = 1.25) -> Iterator[int]:
    """Sizes of windows that grow, so that few reach far: `most` requests in all."""
    size, total = max(1.0, first), 0.0
    while total < most:
        yield max(1, int(min(size, most - total)))
        total += size
        # Windows stay near `first` until their sum makes a tenth of a longer one coarse enough.
        size = max(first, total * (factor - 1))


def first_verdicts(
    rng: np.random.Generator,
    evidence: Evidence,
    share: float,
    rates: Callable[[npt.NDArray[np.bool_]], tuple[Rates, Rates]],
    sizes: Iterator[int],
) -> tuple[Array, Ints]:
    """(requests until the first verdict, inf without one; the verdict's index into KINDS), each (rollouts,).

    `rates` gives canary's and stable's of the rollouts that still run; `sizes`: requests of the windows to come.
    """
    number = len(evidence.windows)
    needed, kinds = np.full(number, np.inf), np.zeros(number, dtype=np.int64)
    running, total = np.ones(number, dtype=np.bool_), 0
    for size in sizes:
        canary, stable = rates(running)
        left = int(running.sum())
        requests, split = np.full(left, size, dtype=np.int64), np.full(left, share)
        evidence = update(evidence, window(rng, canary, stable, requests, split, evidence.classes), split)
        total += size
        found = decide(evidence, split)
        rows = np.flatnonzero(running)
        needed[rows[found > 0]], kinds[rows] = total, found
        running[rows[found > 0]] = False
        evidence = part(evidence, found == 0)
        if not running.any():
            break
    return needed, kinds
