"""The judges of `bench.judge`: Kanary's, thresholds as in Argo Rollouts and Flagger, Mann-Whitney as in Kayenta.

Each looks at one window of many rollouts at once, and says for each of them: go on (or not), roll back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bench.rollouts import BAKE, EDGES, SHARES, WARM, Drawn, Flags, Floats, Ints
from kanary.judge.counters import Arm, Counts
from kanary.judge.decide import KINDS, PROMOTE, ROLLBACK, decide
from kanary.judge.evidence import Evidence, start, update
from kanary.judge.margins import Margins
from kanary.judge.simulate import part


@dataclass(frozen=True)
class Look:
    """One window of the rollouts that a judge still has in hand: `rows` of all; the others (rows,) each."""

    window: int
    rows: Ints
    share: Floats
    lost: Flags
    missed: Flags
    canary: Drawn
    stable: Drawn


class Judge(Protocol):
    """(may go on, roll back), (rows,) each, after each window of the rollouts in `look`."""

    def look(self, look: Look) -> tuple[Flags, Flags]: ...


@dataclass
class Ours:
    """`kanary.judge` with its default margins. Rows that are decided on must not come again."""

    evidence: Evidence
    rows: Ints
    carried: Ints  # (rollouts, 2, 3 + edges): of the windows missed so far, for canary and stable
    share: Floats  # that they were carried at

    @staticmethod
    def begin(rollouts: int) -> Ours:
        evidence = start(Margins(classes=None), SHARES, EDGES, rollouts=(rollouts,))
        return Ours(
            evidence, np.arange(rollouts), np.zeros((rollouts, 2, 3 + len(EDGES)), dtype=np.int64), np.zeros(rollouts)
        )

    def look(self, look: Look) -> tuple[Flags, Flags]:
        """A lost window counts for neither arm, a missed one together with the next of the same step."""
        keep = np.isin(self.rows, look.rows)
        if not keep.all():
            self.evidence, self.rows = part(self.evidence, keep), self.rows[keep]
            self.carried, self.share = self.carried[keep], self.share[keep]
        seen = np.stack([_figures(arm) for arm in (look.canary, look.stable)], axis=1)
        seen += np.where((self.share == look.share)[:, None, None], self.carried, 0)
        self.carried = np.where(look.missed[:, None, None], seen, 0)
        self.share = look.share
        seen = np.where((look.missed | look.lost)[:, None, None], 0, seen)
        if look.window < WARM:
            return np.zeros(len(look.rows), dtype=np.bool_), np.zeros(len(look.rows), dtype=np.bool_)
        self.evidence = update(self.evidence, Counts(_arm(seen[:, 0]), _arm(seen[:, 1])), look.share)
        kinds = decide(self.evidence, look.share)
        return kinds == KINDS.index(PROMOTE), kinds == KINDS.index(ROLLBACK)


def _figures(arm: Drawn) -> Ints:
    """(rows, 3 + edges): requests, failures (with those that a retry saved), measured, slower than each edge."""
    slower = arm.requests[:, None] - np.cumsum(arm.buckets, axis=-1)[:, :-1]
    return np.concatenate([np.stack([arm.requests, arm.errors + arm.retried, arm.requests], axis=-1), slower], axis=-1)


def _arm(figures: Ints) -> Arm:
    return Arm(  # counts of many rollouts at once stand where those of one do
        requests=figures[:, 0],  # type: ignore[arg-type]
        errors=figures[:, 1],  # type: ignore[arg-type]
        slower=tuple(figures[:, 3:].T),
        measured=figures[:, 2],  # type: ignore[arg-type]
    )


@dataclass
class Thresholds:
    """Canary's own figures against constants, every so many windows, as often as `failures` allow.

    `worst` keeps the checks' values, so that constants can be tuned afterwards.
    """

    every: int
    failures: int
    errors: float
    p99_ms: float
    failed: Ints
    sums: Ints
    worst: list[tuple[Floats, Floats]] = field(default_factory=list)

    @staticmethod
    def begin(rollouts: int, every: int, failures: int, errors: float, p99_ms: float) -> Thresholds:
        sums = np.zeros((rollouts, 2 + len(EDGES) + 1), dtype=np.int64)
        return Thresholds(every, failures, errors, p99_ms, np.zeros(rollouts, dtype=np.int64), sums)

    def look(self, look: Look) -> tuple[Flags, Flags]:
        go = np.ones(len(look.rows), dtype=np.bool_)
        if look.window < WARM:
            return go, ~go
        figures = np.concatenate(
            [np.stack([look.canary.requests, look.canary.errors], axis=-1), look.canary.buckets], axis=-1
        )
        self.sums[look.rows] += np.where(look.missed[:, None], 0, figures)
        if (look.window + 1) % self.every:
            return go, ~go
        sums = self.sums[look.rows]
        self.sums[look.rows] = 0
        rate = np.where(sums[:, 0] > 0, sums[:, 1] / np.maximum(sums[:, 0], 1), 0.0)
        slow = quantile(sums[:, 2:], 0.99)
        self.worst.append((rate, slow))
        self.failed[look.rows] += (rate > self.errors) | (slow > self.p99_ms)
        return go, self.failed[look.rows] >= self.failures


@dataclass
class MannWhitney:
    """Error rate and 95 % latency by window, the last 20 windows of each arm, as Kayenta's NetflixACAJudge.

    A metric is "high" where the confidence interval of the Hodges-Lehmann shift lies above 0.25 of its estimate; one
    of two metrics is half the score, below any usual pass mark. `z`: the interval's; 2.326 is Kayenta's 98 %.
    """

    z: float
    series: Floats  # (rollouts, 2 metrics, 2 arms, windows), nan where there is none
    tried: Sequence[float] = ()
    would: list[Flags] = field(default_factory=list)

    @staticmethod
    def begin(rollouts: int, z: float, tried: Sequence[float] = ()) -> MannWhitney:
        return MannWhitney(z, np.full((rollouts, 2, 2, 2 * BAKE), np.nan), tried)

    def look(self, look: Look) -> tuple[Flags, Flags]:
        go = np.ones(len(look.rows), dtype=np.bool_)
        if look.window < WARM:
            return go, ~go
        here = np.full((len(look.rows), 2, 2), np.nan)
        for i, arm in enumerate((look.canary, look.stable)):
            told = (arm.requests > 0) & ~look.missed
            here[:, 0, i] = np.where(told, arm.errors / np.maximum(arm.requests, 1), np.nan)
            here[:, 1, i] = np.where(told, quantile(arm.buckets, 0.95), np.nan)
        self.series = np.roll(self.series, -1, axis=-1)
        self.series[look.rows, :, :, -1] = here
        if look.window < BAKE - 1 or (look.window + 1) % (BAKE // 2):
            return go, ~go
        shifts = [_shifts(self.series[look.rows, metric]) for metric in range(2)]
        if self.tried:
            self.would.append(np.stack([_high(shifts, z) for z in self.tried], axis=-1))
        return go, _high(shifts, self.z)


def _shifts(series: Floats) -> tuple[Floats, Ints, Ints]:
    """(rows, pairs) all differences of canary and stable, sorted, and how many values each arm has."""
    width = int((~np.isnan(series[:, 0])).any(axis=0).sum())
    canary, stable = series[:, 0, -width:].astype(np.float32), series[:, 1, -width:].astype(np.float32)
    pairs = (canary[:, :, None] - stable[:, None, :]).reshape(len(series), -1)
    # nan sort to the end: the first n * m are the differences there are.
    n, m = (np.maximum(1, (~np.isnan(arm)).sum(axis=-1)) for arm in (canary, stable))
    return np.sort(pairs, axis=-1), n, m


def _high(metrics: Sequence[tuple[Floats, Ints, Ints]], z: float) -> Flags:
    """(rows,): whether any metric is high."""
    high = np.zeros(len(metrics[0][0]), dtype=np.bool_)
    for shifts, n, m in metrics:
        low = np.floor(n * m / 2 - min(z, 1e6) * np.sqrt(n * m * (n + m + 1) / 12)).astype(np.int64)
        rows = np.arange(len(shifts))
        estimate = np.abs(shifts[rows, (n * m) // 2])
        high |= (low >= 0) & (shifts[rows, np.maximum(low, 0)] > 0.25 * estimate)
    return high


def quantile(counts: Ints, q: float) -> Floats:
    """(rows,) ms: as Prometheus' histogram_quantile tells it, evenly spread within a bucket; 0 without requests."""
    edges = np.array([0.0, *EDGES, EDGES[-1]])
    total = np.cumsum(counts, axis=-1)
    wanted = q * total[:, -1]
    bucket = np.minimum((total < wanted[:, None]).sum(axis=-1), counts.shape[-1] - 1)
    rows = np.arange(len(counts))
    before = total[rows, bucket] - counts[rows, bucket]
    inside = (wanted - before) / np.maximum(counts[rows, bucket], 1)
    return np.asarray(edges[bucket] + inside * (edges[bucket + 1] - edges[bucket]))
