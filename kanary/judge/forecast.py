"""How much is still needed until a verdict: futures drawn from what the counts so far leave possible."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kanary.judge.bets import Array
from kanary.judge.decide import KINDS, PROMOTE
from kanary.judge.evidence import CLASSES, ERRORS, LATENCY, Evidence
from kanary.judge.simulate import Rates, first_verdicts, growing, repeated

_DRAWS = 200
MOST = 2e7  # requests looked ahead
_ALIKE = 500.0  # requests that the belief "the canary is like stable" is worth


@dataclass(frozen=True)
class Needs:
    """What is still needed until a verdict, if all goes on as so far: median and 90 % quantile; inf: more than tried.

    promotes, open  the parts of the simulated futures that end in a promotion, and in no verdict at all
    Seconds are None without a known rate.
    """

    requests: float
    requests_90: float
    seconds: float | None
    seconds_90: float | None
    promotes: float
    open: float


def needs(evidence: Evidence, share: float, rate: float | None = None, draws: int = _DRAWS) -> Needs:
    """What one rollout still needs at this `share` (0..1), if both arms go on as they do; `rate`: requests/s of both.

    Rates are drawn from their posterior, futures from these rates, and each is judged as the rollout will be. The same
    evidence always gives the same answer. It is a forecast, no test: it presumes that most canaries resemble stable.
    """
    rng = np.random.default_rng(zlib.crc32(evidence.tallies.tobytes()))
    stable = posterior(rng, evidence, 2, draws)
    canary = posterior(rng, evidence, 0, draws, stable)
    seen = float(evidence.tallies[:, 0, 0::2].sum())
    sizes = growing(max(20.0, 0.05 * seen), MOST)

    def rates(running: npt.NDArray[np.bool_]) -> tuple[Rates, Rates]:
        return _rows(canary, running), _rows(stable, running)

    needed, kinds = first_verdicts(rng, repeated(evidence, draws), share, rates, sizes)
    median, most = (float(np.quantile(needed, q, method="higher")) for q in (0.5, 0.9))
    seconds = [value / rate for value in (median, most)] if rate else [None, None]
    promotes = float(np.mean(kinds == KINDS.index(PROMOTE)))
    return Needs(median, most, seconds[0], seconds[1], promotes, float(np.mean(np.isinf(needed))))


def posterior(rng: np.random.Generator, evidence: Evidence, first: int, draws: int, like: Rates | None = None) -> Rates:
    """Rates of one arm (`first`: 0 canary, 2 stable) that its counts leave possible.

    The prior is Jeffreys', or, with the rates `like` of the other arm, as good as _ALIKE requests of those.
    """
    totals = evidence.tallies.sum(axis=0)[:, first : first + 2]
    by_family = {
        family: totals[[stream.family == family and not stream.fewer for stream in evidence.streams]]
        for family in (ERRORS, LATENCY, CLASSES)
    }
    ((n, x),) = by_family[ERRORS]
    prior = _prior(None if like is None else np.stack([like.errors, 1 - like.errors], axis=-1), 2)
    errors = _drawn(rng, np.array([x, n - x]) + prior, draws)[:, 0]
    slower, classes = by_family[LATENCY], by_family[CLASSES]
    buckets, shares = np.zeros((draws, 0)), np.zeros((draws, 0))
    if len(slower):
        counted = -np.diff(np.concatenate([slower[:1, 0], slower[:, 1], [0.0]]))
        buckets = _drawn(rng, counted + _prior(None if like is None else like.buckets, len(counted)), draws)
    if len(classes):
        shares = _drawn(rng, classes[:, 1] + _prior(None if like is None else like.classes, len(classes)), draws)
    return Rates(errors, buckets, shares)


def _prior(like: Array | None, kinds: int) -> Array:
    return np.full(kinds, 0.5) if like is None else _ALIKE * like + 1e-3


def _drawn(rng: np.random.Generator, weights: Array, draws: int) -> Array:
    """(draws, kinds) from Dirichlet distributions."""
    drawn = rng.gamma(np.broadcast_to(weights, (draws, weights.shape[-1]))) + 1e-300
    return np.asarray(drawn / drawn.sum(axis=-1, keepdims=True))


def _rows(rates: Rates, rows: npt.NDArray[np.bool_]) -> Rates:
    return Rates(rates.errors[rows], rates.buckets[rows], rates.classes[rows])
