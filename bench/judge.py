"""`python -P -m bench.judge`: 10,000 simulated rollouts of each kind, judged by Kanary and by its peers alike.

Peers: thresholds as Argo Rollouts and Flagger have them, and Mann-Whitney as Kayenta has it; once as documented, once
tuned so that they roll back no more healthy canaries than Kanary promises to. One core, some minutes.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.judges import Judge, Look, MannWhitney, Ours, Thresholds
from bench.report import show, verdict
from bench.rollouts import (
    BAKE,
    HEALTHY,
    HORIZON,
    MARGIN,
    OWN_CLUMPS,
    REGRESSIONS,
    SHARES,
    WINDOW_S,
    Drawn,
    Environment,
    Floats,
    Ints,
    Scenario,
    draw,
    excess,
)
from kanary.judge.margins import Margins

ALPHA = Margins().alpha
OURS, ARGO, FLAGGER, KAYENTA = "kanary", "argo", "flagger", "kayenta"
TUNED = ("thresholds, tuned", "mann-whitney, tuned")
GOAL = (
    "false rollbacks within alpha (Clopper-Pearson lower 99 % bound not above it) in every healthy scenario; against "
    "the tuned peers at most 5 % more bad responses in any scenario, and fewer in total"
)
_AT_ONCE = 1000
_Z = (2.326, 2.6, 2.9, 3.1, 3.3, 3.5, 3.7, 3.9, 4.1, 4.4, 4.7, 5.0, 5.3)


@dataclass(frozen=True)
class Outcome:
    """What one judge did with a scenario: rollouts; bad responses of each; windows until each reached 100 %."""

    rolled_back: int
    promoted: int
    bad: float
    windows: Floats

    @property
    def minutes(self) -> float | None:
        """Median until 100 %, of those that got there."""
        return float(np.median(self.windows)) * WINDOW_S / 60 if len(self.windows) else None


@dataclass
class _Course:
    """Where each rollout stands under one judge: `step` into SHARES, len(SHARES) at 100 %, -1 rolled back."""

    judge: Judge
    step: Ints
    since: Ints
    bad: Floats
    promoted: Floats


def run(
    scenario: Scenario, begin: Mapping[str, Callable[[int], Judge]], rollouts: int, seed: int, horizon: int = HORIZON
) -> tuple[dict[str, Outcome], dict[str, Judge]]:
    """One scenario: all judges over the same environments, window by window."""
    rng = np.random.default_rng(seed)
    courses = {name: _course(make(rollouts), rollouts) for name, make in begin.items()}
    for window in range(horizon):
        env = scenario.weather(rng, rollouts, window)
        failures = rng.binomial(env.requests, env.failing)
        used = sorted({int(step) for course in courses.values() for step in np.unique(course.step)})
        drawn = {
            step: draw(rng, scenario, env, window, SHARES[step], failures) for step in used if 0 <= step < len(SHARES)
        }
        for course in courses.values():
            _advance(course, scenario, env, window, drawn)
    return {name: _outcome(course) for name, course in courses.items()}, {n: c.judge for n, c in courses.items()}


def _course(judge: Judge, rollouts: int) -> _Course:
    zeros = np.zeros(rollouts, dtype=np.int64)
    return _Course(judge, zeros.copy(), zeros.copy(), np.zeros(rollouts), np.full(rollouts, np.nan))


def _advance(
    course: _Course, scenario: Scenario, env: Environment, window: int, drawn: Mapping[int, tuple[Drawn, Drawn]]
) -> None:
    share = np.array([*SHARES, 1.0, 0.0])[course.step]
    course.bad += env.requests * share * excess(scenario, env, share)
    rows = np.flatnonzero((course.step >= 0) & (course.step < len(SHARES)))
    if not len(rows):
        return
    steps = course.step[rows]
    look = Look(
        window,
        rows,
        share[rows],
        env.lost[rows],
        env.missed[rows],
        *(_of_step([pair[arm] for pair in drawn.values()], list(drawn), rows, steps) for arm in (0, 1)),
    )
    go, back = course.judge.look(look)
    baked = window + 1 - course.since[rows] >= BAKE
    course.step[rows[back]] = -1
    onward = rows[go & baked & ~back]
    course.step[onward] += 1
    course.since[onward] = window + 1
    course.promoted[onward[course.step[onward] == len(SHARES)]] = window + 1


def _of_step(arms: Sequence[Drawn], known: Sequence[int], rows: Ints, steps: Ints) -> Drawn:
    """Of what was drawn at each share, for each row that of its own step."""
    place = np.searchsorted(np.array(known), steps)

    def chosen(parts: Sequence[Ints]) -> Ints:
        return np.stack(parts)[place, rows] if len(parts) > 1 else parts[0][rows]

    return Drawn(
        *(chosen([getattr(arm, name) for arm in arms]) for name in ("requests", "errors", "retried", "buckets"))
    )


def _outcome(course: _Course) -> Outcome:
    done = course.promoted[~np.isnan(course.promoted)]
    return Outcome(int((course.step < 0).sum()), len(done), float(course.bad.mean()), done)


def _runs(
    scenario: Scenario, begin: Mapping[str, Callable[[int], Judge]], rollouts: int, seed: int
) -> dict[str, Outcome]:
    """`run` in parts that fit a processor's cache."""
    sizes = [min(_AT_ONCE, rollouts - first) for first in range(0, rollouts, _AT_ONCE)]
    parts = [run(scenario, begin, size, seed + 10_000 * i)[0] for i, size in enumerate(sizes)]
    return {
        name: Outcome(
            sum(part[name].rolled_back for part in parts),
            sum(part[name].promoted for part in parts),
            sum(part[name].bad * size for part, size in zip(parts, sizes, strict=True)) / rollouts,
            np.concatenate([part[name].windows for part in parts]),
        )
        for name in begin
    }


def tune(rollouts: int, seed: int) -> tuple[dict[int, tuple[float, float]], float]:
    """(failures allowed -> error rate and p99 in ms, z of Mann-Whitney) with at most ALPHA false rollbacks.

    On healthy rollouts of their own, in the worst scenario, each of two metrics with half of ALPHA.
    """
    limits: dict[int, tuple[float, float]] = {1: (0.0, 0.0), 3: (0.0, 0.0)}
    z = 0.0
    for number, scenario in enumerate(HEALTHY):
        begin: dict[str, Callable[[int], Judge]] = {
            "thresholds": lambda n: Thresholds.begin(n, 2, sys.maxsize, 0.0, 0.0),
            "mann-whitney": lambda n: MannWhitney.begin(n, math.inf, _Z),
        }
        _, judges = run(scenario, begin, rollouts, seed + number, horizon=BAKE * len(SHARES))
        thresholds, ranks = judges["thresholds"], judges["mann-whitney"]
        assert isinstance(thresholds, Thresholds)
        assert isinstance(ranks, MannWhitney)
        checks = [np.sort(np.stack(values), axis=0) for values in zip(*thresholds.worst, strict=True)]
        for failures, known in limits.items():
            worst = [float(np.quantile(check[-failures], 1 - ALPHA / 2)) for check in checks]
            limits[failures] = (max(known[0], worst[0]), max(known[1], worst[1]))
        false = np.any(np.stack(ranks.would), axis=0).mean(axis=0)
        z = max(z, next((z for z, part in zip(_Z, false, strict=True) if part <= ALPHA), math.inf))
    return limits, z


def lower_bound(count: int, number: int, level: float = 0.99) -> float:
    """Clopper-Pearson's lower bound: the rate at which `count` or more of `number` has the chance 1 - level."""
    if count == 0:
        return 0.0
    low, high = 0.0, count / number
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_least(count, number, middle) < 1 - level else (low, middle)
    return low


def _at_least(count: int, number: int, rate: float) -> float:
    """Chance of `count` or more of `number`."""
    if rate <= 0:
        return 0.0
    log = [
        math.lgamma(number + 1) - math.lgamma(k + 1) - math.lgamma(number - k + 1)
        + k * math.log(rate) + (number - k) * math.log1p(-rate)
        for k in range(count)
    ]  # fmt: skip
    return 1.0 - math.fsum(math.exp(value) for value in log)


def judges(limits: Mapping[int, tuple[float, float]], z: float, failures: int) -> dict[str, Callable[[int], Judge]]:
    """Kanary, the peers as documented, and tuned. Argo's documented example knows no latency."""
    errors, slow = limits[failures]
    return {
        OURS: Ours.begin,
        ARGO: lambda n: Thresholds.begin(n, 10, 4, 0.05, math.inf),
        FLAGGER: lambda n: Thresholds.begin(n, 2, 5, 0.01, 500.0),
        KAYENTA: lambda n: MannWhitney.begin(n, 2.326),
        TUNED[0]: lambda n: Thresholds.begin(n, 2, failures, errors, slow),
        TUNED[1]: lambda n: MannWhitney.begin(n, z),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Tune, run, print."""
    parser = argparse.ArgumentParser(prog="bench.judge", description=__doc__)
    parser.add_argument("--rollouts", type=int, default=10_000, help="of each scenario")
    parser.add_argument("--seed", type=int, default=2026)
    options = parser.parse_args(arguments)
    limits, z = tune(options.rollouts, options.seed + 1000)
    print(f"tuned: thresholds {limits}, Mann-Whitney z {z}", flush=True)
    failures = _better(limits, z, options.rollouts // 10, options.seed + 2000)
    begin = judges(limits, z, failures)
    scenarios = (*HEALTHY, MARGIN, *REGRESSIONS, *OWN_CLUMPS)
    found = {}
    for number, scenario in enumerate(scenarios):
        found[scenario.name] = _runs(scenario, begin, options.rollouts, options.seed + number)
        print(f"{number + 1}/{len(scenarios)} {scenario.name}", flush=True)
    _tables(found, list(begin), options.rollouts)
    return _last_line(found, options.rollouts, {"limits": limits[failures], "failures": failures, "z": z})


def _better(limits: Mapping[int, tuple[float, float]], z: float, rollouts: int, seed: int) -> int:
    """How many failed checks the tuned thresholds allow: whatever serves fewer bad responses."""
    bad = {}
    for failures in limits:
        begin = {TUNED[0]: judges(limits, z, failures)[TUNED[0]]}
        bad[failures] = sum(run(s, begin, rollouts, seed)[0][TUNED[0]].bad for s in REGRESSIONS)
    return min(bad, key=lambda failures: bad[failures])


def _tables(found: Mapping[str, Mapping[str, Outcome]], names: Sequence[str], rollouts: int) -> None:
    healthy = [scenario.name for scenario in (*HEALTHY, MARGIN, *OWN_CLUMPS)]
    bad = [scenario.name for scenario in REGRESSIONS]
    headers = ["scenario", *names]

    def rows(scenarios: Sequence[str], cell: Callable[[Outcome], str]) -> list[list[str]]:
        return [[scenario, *(cell(found[scenario][name]) for name in names)] for scenario in scenarios]

    show(
        "False rollbacks, % of the rollouts", headers, rows(healthy, lambda o: f"{100 * o.rolled_back / rollouts:.2f}")
    )
    missed = rows(bad, lambda o: f"{100 * (1 - o.rolled_back / rollouts):.2f}")
    show("Missed regressions (not rolled back within 40 minutes), %", headers, missed)
    wrong = rows([MARGIN.name, *bad], lambda o: f"{100 * o.promoted / rollouts:.2f}")
    show("Regressions promoted to 100 %, %", headers, wrong)
    show("Bad responses served, per rollout", headers, rows([MARGIN.name, *bad], lambda o: f"{o.bad:,.0f}"))
    minutes = rows(healthy, lambda o: f"{o.minutes:.1f} ({o.promoted / rollouts:.0%})" if o.minutes else "-")
    show("Minutes to 100 % (median; part that gets there within 40 minutes)", headers, minutes)


def _last_line(found: Mapping[str, Mapping[str, Outcome]], rollouts: int, tuned: Mapping[str, object]) -> int:
    within = {s.name: found[s.name][OURS].rolled_back for s in (*HEALTHY, MARGIN)}
    false = max(lower_bound(count, rollouts) for count in within.values())
    scenarios = [scenario.name for scenario in REGRESSIONS]
    ratios = {
        peer: max(found[name][OURS].bad / max(1e-9, found[name][peer].bad) for name in scenarios) for peer in TUNED
    }
    totals = {name: sum(found[s][name].bad for s in scenarios) for name in (OURS, *TUNED)}
    best = min(totals[peer] for peer in TUNED)
    ok = false <= ALPHA and max(ratios.values()) <= 1.05 and totals[OURS] < best
    figures = {
        "rollouts": rollouts,
        "false_rollbacks_worst": max(within.values()) / rollouts,
        "false_rollbacks_lower_bound": round(false, 5),
        "missed": {name: 1 - found[name][OURS].rolled_back / rollouts for name in scenarios},
        "bad_responses": {name: round(total) for name, total in totals.items()},
        "worst_ratio_to": {peer: round(ratio, 3) for peer, ratio in ratios.items()},
        "beyond_the_assumption": {s.name: found[s.name][OURS].rolled_back / rollouts for s in OWN_CLUMPS},
        "tuned": tuned,
    }
    return verdict("judge", figures, best / totals[OURS], GOAL, ok)


if __name__ == "__main__":
    sys.exit(main())
