"""Intervals that hold whenever they are looked at: for the difference of two rates, and for quantiles between edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kanary.judge.bets import Array, gains

_TINY = 1e-9
# Bets of all sizes at all levels: a mixture that is never far from the best of them.
_LEVELS = np.array([1e-4, 1e-3, 4e-3, 0.015, 0.05, 0.15, 0.35, 0.5, 0.65, 0.85, 0.95, 0.99])
_EFFECTS = 0.5 ** np.arange(1, 14)


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`."""

    low: float
    high: float


@dataclass(frozen=True)
class Bracket:
    """A quantile of the latency lies between the edges `low` and `high` (0 and inf where no edge bounds it)."""

    quantile: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low <= 0 and math.isinf(self.high):
            return "unknown"
        if math.isinf(self.high):
            return f"above {self.low:g}"
        return f"at most {self.high:g}" if self.low <= 0 else f"{self.low:g} to {self.high:g}"


def difference(tallies: Array, shares: Sequence[float], error: float = 0.05) -> Interval:
    """Canary's rate minus stable's, all windows together: what bets at `error` have not refuted.

    `tallies`: (shares, 4), n, x of canary, n, x of stable at each of the canary's `shares` of the traffic (0..1). The
    interval holds at all times at once, under the randomised split alone (Turner and Gruenwald 2023, by inversion).
    """
    inside = np.array([0 < share < 1 for share in shares])
    tallies, split = tallies[inside], np.array(shares, dtype=np.float64)[inside]
    limit = math.log(2 / error)
    flipped = tallies[:, [2, 3, 0, 1]]
    low = _bound(lambda d: _log_e(tallies, split, d) >= limit)
    high = -_bound(lambda d: _log_e(flipped, 1 - split, d) >= limit)
    return Interval(low, max(low, high))


def _bound(refuted: Callable[[float], bool]) -> float:
    """The largest d in [-1, 1], to 1e-5, such that "the difference is at most d" is refuted."""
    low, high = -1.0, 1.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _log_e(tallies: Array, share: Array, d: float) -> float:
    """Logarithm of the e-value against "canary's rate is at most stable's plus d", a mixture of fixed bets."""
    level = np.clip(_LEVELS, max(0.0, -d) + _TINY, min(1.0, 1 - d) - _TINY)[:, None]
    effect = np.broadcast_to(_EFFECTS[None, :], (len(level), len(_EFFECTS))).ravel()
    level = np.broadcast_to(level, (len(level), len(_EFFECTS))).ravel()
    w = share[:, None]
    s = np.clip(level + w * effect, max(0.0, -d) + _TINY, min(1.0, 1 - d) - _TINY)
    c = s + d
    t = (1 - w) * effect / (c * (1 - c))
    t = np.minimum(t, 0.97 * np.minimum(1 / c, (1 - w) / (w * (1 - s))))
    bets = gains(tallies, (t, w * t / (1 - w), c, s)).sum(axis=0)
    top = float(bets.max())
    return top + math.log(float(np.exp(bets - top).mean()))


def quantile(
    edges: Sequence[float], slower: Sequence[float], measured: float, q: float, error: float = 0.05
) -> Bracket:
    """Where the q-quantile of one arm's latency lies: `slower` of `measured` requests were above each edge.

    Holds at all times at once (Howard and Ramdas 2022, at the edges only), if the latency's distribution stays.
    """
    low, high = 0.0, math.inf
    for edge, above in zip(edges, slower, strict=True):
        below = measured - above
        if log_beta_binomial(below, measured, q) < math.log(2 / error):
            continue
        if below < q * measured:
            low = edge
        else:
            high = min(high, edge)
    return Bracket(q, low, max(low, high))


def log_beta_binomial(x: float, n: float, p: float) -> float:
    """Logarithm of the e-value against "the rate is p": x of n, a Beta(1/2, 1/2) mixture of likelihood ratios."""
    mixture = math.lgamma(x + 0.5) + math.lgamma(n - x + 0.5) - math.lgamma(n + 1) - math.log(math.pi)
    return mixture - x * math.log(p) - (n - x) * math.log1p(-p)
