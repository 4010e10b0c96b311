"""The figures behind a verdict: what each kind of outcome says, each test, latency quantiles between edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kanary.judge.bets import Array
from kanary.judge.decide import excess, p_values, rejected
from kanary.judge.evidence import LATENCY, Evidence, Stream
from kanary.judge.intervals import Bracket, Interval, difference, quantile

QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Reason:
    """What one kind of outcome says, in shares (0..1) of the requests.

    canary, stable  (events, requests) over the whole rollout
    difference  canary minus stable, compared within each share of the traffic; None where an arm had no requests
    interval    of the difference: 95 %, whenever it is looked at
    margin      how much more is tolerated
    e_within    e-value against "beyond the margin": 1 / beta and more lets promote
    """

    name: str
    family: str
    canary: tuple[int, int]
    stable: tuple[int, int]
    difference: float | None
    interval: Interval
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
class Quantile:
    """A quantile of the latency in both arms, between edges of the histogram."""

    quantile: float
    canary: Bracket
    stable: Bracket


@dataclass(frozen=True)
class Worst:
    """Where a family shows most: the stream, its (events, requests) in each arm, at which share (None: all)."""

    stream: Stream
    canary: tuple[int, int]
    stable: tuple[int, int]
    share: float | None
    excess: float  # beyond the margin, in standard errors


def reasons_of(evidence: Evidence) -> tuple[Reason, ...]:
    """One reason per stream."""
    found = []
    for index, stream in enumerate(evidence.streams):
        tally = evidence.tallies[:, index]
        n_c, x_c, n_s, x_s = (tally[:, i] for i in range(4))
        weight = n_c * n_s / np.maximum(n_c + n_s, 1)
        gaps = weight * (x_c / np.maximum(n_c, 1) - x_s / np.maximum(n_s, 1))
        found.append(
            Reason(
                name=stream.name,
                family=stream.family,
                canary=(int(x_c.sum()), int(n_c.sum())),
                stable=(int(x_s.sum()), int(n_s.sum())),
                difference=float(gaps.sum() / weight.sum()) if weight.sum() else None,
                interval=difference(tally, evidence.shares),
                margin=stream.margin,
                e_within=_e(evidence.within.log[index]),
            )
        )
    return tuple(found)


def tests_of(evidence: Evidence) -> tuple[Test, ...]:
    """One test per family."""
    found, ps = rejected(evidence), p_values(evidence)
    return tuple(
        Test(name, _e(part.log), float(ps[name]), bool(found[name])) for name, part in evidence.against.items()
    )


def quantiles(evidence: Evidence) -> tuple[Quantile, ...]:
    """Median, 95 % and 99 % quantile of both arms; none without a histogram."""
    totals = evidence.tallies.sum(axis=0)[[stream.family == LATENCY for stream in evidence.streams]]
    if not len(totals):
        return ()
    arms = [(totals[:, first + 1].tolist(), float(totals[0, first])) for first in (0, 2)]
    return tuple(Quantile(q, *(quantile(evidence.edges, slower, n, q) for slower, n in arms)) for q in QUANTILES)


def unresolved(evidence: Evidence) -> tuple[float, float, float] | None:
    """(low, high, part): the one bucket that holds so much of stable's requests that no edge tells them apart.

    None where an edge divides them, or nothing is known. A canary that is slower within that bucket looks the same.
    """
    chosen = [stream.family == LATENCY for stream in evidence.streams]
    totals = evidence.tallies.sum(axis=0)[chosen]
    if not len(totals) or not totals[0, 2]:
        return None
    above = np.concatenate([[1.0], totals[:, 3] / totals[0, 2], [0.0]])
    held = above[:-1] - above[1:]
    place, edges = int(np.argmax(held)), (0.0, *evidence.edges, math.inf)
    margin = evidence.margins.latency or 0.0
    return (edges[place], edges[place + 1], float(held[place])) if held[place] > 1 - margin else None


def worst(evidence: Evidence, family: str) -> Worst:
    """The stream of the family, and the share of the traffic, at which the canary is furthest beyond its margin."""
    found = []
    for index, stream in enumerate(evidence.streams):
        if stream.family != family:
            continue
        tally = evidence.tallies[:, index]
        for share, row in [(None, tally.sum(axis=0)), *zip(evidence.shares, tally, strict=True)]:
            found.append(_worst(stream, share, row))
    return max(found, key=lambda one: one.excess)


def _worst(stream: Stream, share: float | None, row: Array) -> Worst:
    beyond = float(excess(row, np.array(stream.margin)))
    return Worst(stream, (int(row[1]), int(row[0])), (int(row[3]), int(row[2])), share, beyond)


def _e(log: Array) -> float:
    return math.exp(min(700.0, float(log)))
