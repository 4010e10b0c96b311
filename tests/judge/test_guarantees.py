"""What is promised, in simulated rollouts: each fails by chance below 1e-6 if the promise holds (exact binomials)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kanary.errors import InputError
from kanary.judge.counters import Arm, Warmup
from kanary.judge.decide import KINDS, PROMOTE, ROLLBACK, rejected
from kanary.judge.evidence import CLASSES, ERRORS, LATENCY, start, update
from kanary.judge.intervals import difference, quantile
from kanary.judge.margins import Margins
from kanary.judge.planning import Baseline, plan
from kanary.judge.simulate import Rates, first_verdicts, window
from tests.judge.drawing import at_least

ERRORS_ONLY = Margins(latency=None, classes=None)
CHANCE = 1e-6


def verdicts(
    canary: Callable[[Any], Any], stable: Callable[[Any], Any], share: float, windows: list[int], rollouts: int = 600
) -> tuple[Any, Any]:
    """(requests until the first verdict, its kind), looked at after every window; rates are drawn for each of them."""
    rng = np.random.default_rng(11)

    def rates(running: Any) -> tuple[Rates, Rates]:
        environment = stable(rng)
        return (
            Rates(np.full(int(running.sum()), canary(environment)), *_nothing(running)),
            Rates(np.full(int(running.sum()), environment), *_nothing(running)),
        )

    return first_verdicts(rng, start(ERRORS_ONLY, [share], rollouts=(rollouts,)), share, rates, iter(windows))


def _nothing(running: Any) -> tuple[Any, Any]:
    none = np.zeros((int(running.sum()), 0))
    return none, none


def _steady(_rng: Any) -> float:
    return 0.002


def _bursts(rng: Any) -> float:
    return 0.3 if rng.random() < 0.1 else 0.001


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("environment", [_steady, _bursts])
def test_a_canary_at_its_margin_is_rolled_back_no_more_often_than_promised(
    share: float, environment: Callable[[Any], float]
) -> None:
    _, kinds = verdicts(lambda rate: rate + ERRORS_ONLY.errors, environment, share, [500] * 60)
    assert at_least(int((kinds == KINDS.index(ROLLBACK)).sum()), len(kinds), ERRORS_ONLY.alpha) > CHANCE


@pytest.mark.parametrize("environment", [_steady, _bursts])
def test_a_canary_at_its_margin_is_promoted_no_more_often_than_promised(environment: Callable[[Any], float]) -> None:
    _, kinds = verdicts(lambda rate: rate + ERRORS_ONLY.errors, environment, 0.5, [500] * 60)
    assert at_least(int((kinds == KINDS.index(PROMOTE)).sum()), len(kinds), ERRORS_ONLY.beta) > CHANCE


@pytest.mark.parametrize("late", ["classes", "requests"])
def test_arms_that_are_counted_at_different_times_pass_for_no_difference(late: str) -> None:
    """A fifth of the canary's windows comes with the next one: a scrape was missed, answers were slow."""
    rng, rollouts, share, edges = np.random.default_rng(5), 200, 0.5, (10.0, 100.0)
    rates = Rates(np.full(rollouts, 0.002), np.full((rollouts, 3), [0.8, 0.19, 0.01]), np.full((rollouts, 2), 0.5))
    margins = Margins(classes=0.1, on_classes="rollback")
    evidence = start(margins, [share], edges, ("cat", "dog"), rollouts=(rollouts,))
    empty = window(rng, rates, rates, np.zeros(rollouts, dtype=np.int64), np.full(rollouts, share), evidence.classes)
    held, found = empty.canary, np.zeros(rollouts, dtype=np.bool_)
    for _ in range(60):
        size = np.full(rollouts, 200, dtype=np.int64)
        counts = window(rng, rates, rates, size, np.full(rollouts, share), evidence.classes)
        there, missed = _added(counts.canary, held), rng.random(rollouts) < 0.2
        seen, held = _times(there, ~missed), _times(there, missed)
        if late == "classes":
            seen = replace(counts.canary, classes=seen.classes)
        else:
            seen = replace(seen, classes=counts.canary.classes)
        evidence = update(evidence, replace(counts, canary=seen), share)
        rejects = rejected(evidence)
        found |= rejects[ERRORS] | rejects[LATENCY] | rejects[CLASSES]
    assert at_least(int(found.sum()), rollouts, margins.alpha) > CHANCE
    # It is none the slower to see that they are alike.
    chosen = [i for i, stream in enumerate(evidence.streams) if (stream.family == CLASSES) == (late == "classes")]
    assert (evidence.within.log[:, chosen] > np.log(1 / margins.beta)).mean() > 0.9


def _added(one: Arm, other: Arm) -> Arm:
    return _mapped(np.add, one, other)


def _times(arm: Arm, factor: Any) -> Arm:
    return _mapped(lambda value, _: value * factor, arm, arm)


def _mapped(function: Callable[[Any, Any], Any], one: Arm, other: Arm) -> Arm:
    return Arm(
        function(one.requests, other.requests),
        function(one.errors, other.errors),
        tuple(function(a, b) for a, b in zip(one.slower, other.slower, strict=True)),
        function(one.measured, other.measured),
        {name: function(count, other.classes[name]) for name, count in one.classes.items()},
    )


def test_the_announced_requests_are_enough() -> None:
    (step,) = plan(200.0, [0.5], [600.0], ERRORS_ONLY, Baseline(0.002), size=0.02, every_s=1.0)
    needed, kinds = verdicts(lambda rate: rate + 0.02, _steady, 0.5, [200] * int(step.within / 200))
    late = int(((kinds != KINDS.index(ROLLBACK)) | (needed > step.within)).sum())
    assert at_least(late, len(kinds), 0.05) > CHANCE
    # Nor are they announced so high that they say nothing.
    assert step.within < 20_000
    needed, kinds = verdicts(_steady, _steady, 0.5, [200] * int(step.promotes / 200))
    assert at_least(int((kinds != KINDS.index(PROMOTE)).sum()), len(kinds), 0.1) > CHANCE


def test_an_interval_holds_however_often_it_is_looked_at() -> None:
    rng, missed, number = np.random.default_rng(3), 0, 30
    for _ in range(number):
        tallies = np.zeros((2, 4))
        for look in range(6):
            row, share = (0, 0.1) if look < 3 else (1, 0.5)
            n = rng.binomial(1000, share)
            tallies[row] += [n, rng.binomial(n, 0.03), 1000 - n, rng.binomial(1000 - n, 0.01)]
            found = difference(tallies, (0.1, 0.5))
            if not found.low <= 0.02 <= found.high:
                missed += 1
                break
    assert at_least(missed, number, 0.05) > CHANCE


def test_a_bracket_holds_the_quantile_however_often_it_is_looked_at() -> None:
    rng, missed, number = np.random.default_rng(4), 0, 300
    for _ in range(number):
        slower, measured = np.zeros(3), 0
        for _ in range(30):
            drawn = rng.multinomial(50, [0.2, 0.31, 0.29, 0.2])
            slower += [drawn[1:].sum(), drawn[2:].sum(), drawn[3]]
            measured += 50
            found = quantile((10.0, 20.0, 30.0), slower.tolist(), measured, 0.5)
            # The median lies in (10, 20].
            if found.low > 10 or found.high < 20:
                missed += 1
                break
    assert at_least(missed, number, 0.05) > CHANCE
    assert (found.low, found.high) == (10, 20) or found.high == 30


def test_more_traffic_and_a_larger_share_find_smaller_regressions_sooner() -> None:
    edges, slower = (25.0, 50.0, 100.0), (0.8, 0.3, 0.03)
    slow, fast = (
        plan(rate, [0.05, 0.5, 1.0], [600.0] * 3, Margins(classes=None), Baseline(0.001, edges, slower))
        for rate in (5.0, 500.0)
    )
    assert [step.share for step in slow] == [0.05, 0.5]
    assert slow[1].within < slow[0].within
    assert fast[1].within_s < slow[1].within_s
    finds = [step.finds or 1.0 for step in (slow[0], slow[1], fast[1])]
    assert finds == sorted(finds, reverse=True)
    assert fast[1].slows is not None
    assert fast[1].slows <= (slow[1].slows or 10.0)
    assert fast == plan(500.0, [0.05, 0.5, 1.0], [600.0] * 3, Margins(classes=None), Baseline(0.001, edges, slower))


def test_a_warm_up_costs_time_and_a_bake_that_is_all_warm_up_finds_nothing() -> None:
    plain, cold = (
        plan(50.0, [0.5], [60.0], ERRORS_ONLY, Baseline(0.001), warmup=Warmup(seconds=seconds))[0]
        for seconds in (0.0, 60.0)
    )
    assert cold.requests == 0
    assert cold.finds is None
    assert cold.within == plain.within
    assert cold.within_s == plain.within_s + 60


@pytest.mark.parametrize(
    "wrong",
    [{"rate_per_s": 0.0}, {"bakes": []}, {"size": 0.0}, {"every_s": -1.0}],
)
def test_a_plan_of_nothing_is_refused(wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = {"rate_per_s": 1.0, "steps": [0.5], "bakes": [60.0], "margins": ERRORS_ONLY}
    with pytest.raises(InputError):
        plan(**{**given, "baseline": Baseline(0.01), **wrong})
    with pytest.raises(InputError):
        Baseline(0.01, (10.0, 20.0), (0.1, 0.2))
    with pytest.raises(InputError):
        Baseline(0.01, (10.0,), ())


@pytest.mark.soak
@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.95])
@pytest.mark.parametrize("environment", [_steady, _bursts])
def test_the_promises_hold_in_ten_thousand_long_rollouts(share: float, environment: Callable[[Any], float]) -> None:
    _, kinds = verdicts(lambda rate: rate + ERRORS_ONLY.errors, environment, share, [1000] * 300, 10_000)
    assert at_least(int((kinds == KINDS.index(ROLLBACK)).sum()), len(kinds), ERRORS_ONLY.alpha) > CHANCE
    assert at_least(int((kinds == KINDS.index(PROMOTE)).sum()), len(kinds), ERRORS_ONLY.beta) > CHANCE
