"""What a rollout can find, at each of its steps, in how many requests: drawn from the traffic that is there."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from kanary.errors import InputError
from kanary.judge.bets import Array
from kanary.judge.counters import Warmup
from kanary.judge.decide import KINDS, PROMOTE, ROLLBACK
from kanary.judge.evidence import Evidence, start
from kanary.judge.margins import Margins
from kanary.judge.simulate import Rates, first_verdicts, growing

_DRAWS, _FEW = 500, 100  # of a figure that is announced, and of each case of a search
# So many of the drawn canaries are rolled back within the requests announced, for 95 % of all to be: 500 draws make
# the difference of 1 point that chance makes in them, and 1 point is kept for windows of another size.
_CAUGHT, _SURE = 0.95, 0.97
_MOST = 3e6  # requests looked ahead
_SIZES = np.array([0.006, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.35, 0.6, 0.95])
_SLOWDOWNS = np.array([1.05, 1.1, 1.2, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 5.0, 10.0])


@dataclass(frozen=True)
class Baseline:
    """What stable does, in shares (0..1) of its requests, as far as it is known.

    errors   that fail
    edges    of the latency histogram, ms; slower: than each edge
    classes  name -> share; none where predictions are not counted
    """

    errors: float
    edges: tuple[float, ...] = ()
    slower: tuple[float, ...] = ()
    classes: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.slower):
            raise InputError(f"baseline: {len(self.edges)} edges, but {len(self.slower)} shares of slower requests.")
        shares = [self.errors, *self.slower, *(share for _, share in self.classes)]
        if not all(0 <= share <= 1 for share in shares) or list(self.slower) != sorted(self.slower, reverse=True):
            raise InputError("baseline: a share is not between 0 and 1, or more requests are slower than a later edge.")


@dataclass(frozen=True)
class StepPlan:
    """What one step can find, by itself. Requests are those of both arms, counted once the canary is warm.

    requests  expected during the bake, without warm-up
    finds     the smallest addition to the share of failing requests that is rolled back within the bake in 95 % of
              the cases; None: not even a canary that fails everything
    slows     the smallest factor of latency that is; None: none, with these buckets and this traffic
    size      the addition to failing requests that `within` is told for
    within, within_s      in 95 % of the cases a canary of that `size` is rolled back within; inf: not foreseeable
    promotes, promotes_s  in 90 % of the cases a canary like stable may be promoted within; inf: not foreseeable
    Seconds count from the first request, warm-up and the wait for the next scrape included.
    """

    share: float
    bake_s: float
    requests: float
    finds: float | None
    slows: float | None
    size: float
    within: float
    within_s: float
    promotes: float
    promotes_s: float


def plan(
    rate_per_s: float,
    steps: Sequence[float],
    bakes: Sequence[float],
    margins: Margins,
    baseline: Baseline,
    size: float = 0.02,
    every_s: float = 5.0,
    warmup: Warmup | None = None,
) -> tuple[StepPlan, ...]:
    """What each step (`steps`: shares 0..1; `bakes`: seconds) can find at `rate_per_s` requests/s of both arms.

    `size`: the regression, in additional share of failing requests, that N is announced for; `every_s`: between two
    scrapes. Each step is drawn as if the canary had begun there: what earlier steps have shown comes on top. The same
    arguments always give the same plan. Steps of 1 are left out: nothing is compared there.
    """
    if len(steps) != len(bakes):
        raise InputError(f"{len(steps)} steps, but {len(bakes)} bake times.")
    if not rate_per_s > 0 or not every_s > 0:
        raise InputError(f"a rate of {rate_per_s:g} requests/s, scraped every {every_s:g} s, shows nothing.")
    if not 0 < size <= 1 - baseline.errors:
        raise InputError(f"a regression of {size:g} is no addition to {baseline.errors:g} of failing requests.")
    cold = warmup or Warmup()
    return tuple(
        _step(rate_per_s, share, bake, margins, baseline, size, every_s, cold)
        for share, bake in zip(steps, bakes, strict=True)
        if 0 < share < 1
    )


def _step(
    rate: float,
    share: float,
    bake: float,
    margins: Margins,
    baseline: Baseline,
    size: float,
    every: float,
    warmup: Warmup,
) -> StepPlan:
    rng = np.random.default_rng(zlib.crc32(repr((rate, share, bake, margins, baseline, size, every)).encode()))
    # Requests alone end a warm-up later than its seconds do, where there are few.
    cold = max(warmup.seconds, warmup.requests / (rate * share))
    window, judged = rate * every, max(0.0, bake - cold) * rate
    wanted = baseline.errors + size
    case = partial(_verdicts, rng, share, margins, baseline)
    within = _quantile(case(growing(window, _MOST), [wanted], [1.0], _DRAWS), ROLLBACK, _SURE)
    promotes = _quantile(case(growing(window, _MOST), [baseline.errors], [1.0], _DRAWS), PROMOTE, 0.9)
    sizes, ones = np.minimum(baseline.errors + _SIZES, 1.0), np.ones(len(_SIZES))
    caught = case(growing(window, judged), sizes, ones, _FEW)
    usual = np.full(len(_SLOWDOWNS), baseline.errors)
    slow = case(growing(window, judged), usual, _SLOWDOWNS, _FEW)
    return StepPlan(
        share=share,
        bake_s=bake,
        requests=judged,
        finds=_smallest(_SIZES, caught),
        slows=_smallest(_SLOWDOWNS, slow) if baseline.edges and margins.latency is not None else None,
        size=size,
        within=within + window,
        within_s=(within + window) / rate + cold,
        promotes=promotes + window,
        promotes_s=(promotes + window) / rate + cold,
    )


def _verdicts(
    rng: np.random.Generator,
    share: float,
    margins: Margins,
    baseline: Baseline,
    sizes: Iterator[int],
    errors: Sequence[float] | Array,
    slowdowns: Sequence[float] | Array,
    draws: int,
) -> tuple[Array, npt.NDArray[np.int64]]:
    """(cases, draws) requests to the first verdict, and its kind: one case per entry of `errors` and `slowdowns`."""
    names = tuple(name for name, _ in baseline.classes)
    fresh = _evidence(margins, share, baseline, names, len(errors) * draws)
    failing = np.repeat(np.asarray(errors, dtype=np.float64), draws)
    buckets = np.repeat(np.stack([_buckets(baseline, factor) for factor in slowdowns]), draws, axis=0)
    alike = np.repeat(_buckets(baseline, 1.0)[None], len(failing), axis=0)
    shares = np.array([part for _, part in baseline.classes])
    classes = np.repeat((shares / max(1e-12, shares.sum()))[None], len(failing), axis=0)

    def rates(running: npt.NDArray[np.bool_]) -> tuple[Rates, Rates]:
        stable = Rates(np.full(int(running.sum()), baseline.errors), alike[running], classes[running])
        return Rates(failing[running], buckets[running], classes[running]), stable

    needed, kinds = first_verdicts(rng, fresh, share, rates, sizes)
    return needed.reshape(-1, draws), kinds.reshape(-1, draws)


def _evidence(margins: Margins, share: float, baseline: Baseline, names: tuple[str, ...], rollouts: int) -> Evidence:
    return start(margins, [share], baseline.edges, names, rollouts=(rollouts,))


def _buckets(baseline: Baseline, factor: float) -> Array:
    """Chance of each bucket where all is `factor` times as slow, requests spread evenly (in ratios) in each bucket."""
    if not baseline.edges:
        return np.zeros(0)
    edges, above = np.array(baseline.edges), np.array([1.0, *baseline.slower, 0.0])
    # The outer buckets have one edge only: they are taken to be one octave wide.
    known = np.log(np.concatenate([[edges[0] / 2], edges, [edges[-1] * 2]]))
    slower = np.interp(np.log(edges / factor), known, above)
    return -np.diff(np.concatenate([[1.0], slower, [0.0]]))


def _quantile(found: tuple[Array, npt.NDArray[np.int64]], kind: str, part: float) -> float:
    """Requests within which `part` of the draws have ended in `kind`; inf where fewer do."""
    needed = np.where(found[1] == KINDS.index(kind), found[0], np.inf)
    return float(np.quantile(needed, part, method="higher"))


def _smallest(cases: Array, found: tuple[Array, npt.NDArray[np.int64]]) -> float | None:
    """The smallest case from which on all are caught."""
    caught = np.mean(found[1] == KINDS.index(ROLLBACK), axis=-1) >= _CAUGHT
    missed = np.flatnonzero(~caught)
    first = int(missed[-1]) + 1 if len(missed) else 0
    return float(cases[first]) if first < len(cases) else None
