from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanary.errors import InputError
from kanary.judge.counters import Arm, Counts
from kanary.judge.evidence import CLASSES, ERRORS, LATENCY, Evidence, start, update
from kanary.judge.margins import Limits, Margins
from kanary.judge.simulate import repeated
from tests.judge.drawing import EDGES, counts, fed, unhurried

MARGINS = Margins(limits=Limits(errors=0.05, slower={100.0: 0.2}))
STEPS = (0.05, 0.5, 1.0)


@st.composite
def arms(draw: st.DrawFn) -> Arm:
    requests = draw(st.integers(0, 500))
    slower = sorted((draw(st.integers(0, requests)) for _ in EDGES), reverse=True)
    cats = draw(st.integers(0, requests))
    classes = {"cat": cats, "dog": requests - cats}
    return Arm(requests, draw(st.integers(0, requests)), tuple(slower), requests, classes)


WINDOWS = st.lists(st.tuples(arms(), arms(), st.sampled_from([*STEPS, 0.25])), max_size=5)


def empty(sticky: bool = False, rollouts: tuple[int, ...] = ()) -> Evidence:
    return start(MARGINS, STEPS, EDGES, ("cat", "dog"), sticky, rollouts)


def after(evidence: Evidence, windows: list[tuple[Arm, Arm, float]]) -> Evidence:
    for canary, stable, share in windows:
        evidence = update(evidence, Counts(canary, stable), share)
    return evidence


def numbers(evidence: Evidence) -> dict[str, Any]:
    return evidence.to_json()


@unhurried
@given(windows=WINDOWS, more=WINDOWS, sticky=st.booleans())
def test_evidence_goes_on_where_it_was_written_down(windows: Any, more: Any, sticky: bool) -> None:
    evidence = after(empty(sticky), windows)
    read = Evidence.from_json(json.loads(json.dumps(evidence.to_json())))
    assert numbers(read) == numbers(evidence)
    assert numbers(after(read, more)) == numbers(after(evidence, more))


@unhurried
@given(windows=WINDOWS)
def test_many_rollouts_at_once_are_judged_as_one_by_one(windows: list[tuple[Arm, Arm, float]]) -> None:
    one = after(start(MARGINS, (*STEPS, 0.25), EDGES, ("cat", "dog")), windows)
    many = start(MARGINS, (*STEPS, 0.25), EDGES, ("cat", "dog"), rollouts=(3,))
    for canary, stable, share in windows:
        # The other two rollouts see something else, at another share.
        both = [_stacked(arm, Arm(9, 1, (5,) * len(EDGES), 9, {"cat": 3, "dog": 6})) for arm in (canary, stable)]
        many = update(many, Counts(*both), np.array([0.5, share, 0.05]))
    assert np.allclose(many.within.log[1], one.within.log)
    assert np.allclose(many.tallies[1], one.tallies)
    for family, portfolio in one.against.items():
        assert np.allclose(many.against[family].log[1], portfolio.log)
        assert np.allclose(many.against[family].weights[1], portfolio.weights)


def _stacked(arm: Arm, other: Arm) -> Any:
    def both(mine: int, others: int) -> Any:
        return np.array([others, mine, others])

    return Arm(
        both(arm.requests, other.requests),
        both(arm.errors, other.errors),
        tuple(both(a, b) for a, b in zip(arm.slower, other.slower, strict=True)),
        both(arm.measured, other.measured),
        {name: both(arm.classes[name], other.classes[name]) for name in arm.classes},
    )


@unhurried
@given(canary=arms(), stable=arms())
def test_the_order_of_the_classes_in_a_scrape_is_irrelevant(canary: Arm, stable: Arm) -> None:
    turned = [replace(arm, classes=dict(sorted(arm.classes.items(), reverse=True))) for arm in (canary, stable)]
    straight, other = (update(empty(), Counts(*pair), 0.5) for pair in ((canary, stable), turned))
    assert numbers(straight) == numbers(other)


@unhurried
@given(windows=WINDOWS, requests=st.integers(1, 400), errors=st.integers(0, 399))
def test_one_more_failure_of_the_canary_never_speaks_for_it(windows: Any, requests: int, errors: int) -> None:
    errors = min(errors, requests - 1)
    before = after(start(Margins(latency=None, classes=None), STEPS), windows)
    fewer, more = (
        update(before, counts((requests, x), (requests, 3 * errors // 4)), 0.5) for x in (errors, errors + 1)
    )
    assert more.against[ERRORS].log >= fewer.against[ERRORS].log - 1e-9
    assert more.within.log[0] <= fewer.within.log[0] + 1e-9


@unhurried
@given(windows=WINDOWS)
def test_no_capital_is_ever_lost_for_good(windows: list[tuple[Arm, Arm, float]]) -> None:
    evidence = after(empty(), windows)
    for portfolio in (*evidence.against.values(), evidence.within):
        assert np.all(np.isfinite(portfolio.log))
        assert np.allclose(portfolio.weights.sum(axis=-1), 1.0)


def test_a_canary_that_turns_bad_late_is_found_nearly_as_soon_as_one_that_was_bad_at_once() -> None:
    def windows_needed(evidence: Evidence) -> int:
        for number in range(1, 100):
            evidence = update(evidence, counts((200, 10), (200, 0)), 0.5)
            if evidence.against[ERRORS].log > np.log(200):
                return number
        return 100

    fresh = start(Margins(), STEPS)
    healthy = fresh
    for _ in range(200):
        healthy = update(healthy, counts((200, 0), (200, 0)), 0.5)
    assert windows_needed(healthy) <= windows_needed(fresh) + 3


def test_evidence_stays_small() -> None:
    sizes = [len(json.dumps(fed(empty(), number).to_json())) for number in (5, 50)]
    assert max(sizes) < 20_000
    assert abs(sizes[1] - sizes[0]) < 2_000


@pytest.mark.parametrize(
    "broken",
    [
        {"format": "kanary-evidence/0"},
        {"tallies": [[1.0]]},
        {"tallies": None},
        {"within": {"log": [0.0], "weights": [[1.0]]}},
        {"against": {}},
        {"margins": {}},
    ],
)
def test_damaged_evidence_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Evidence.from_json({**empty().to_json(), **broken})


def test_what_cannot_be_counts_is_refused() -> None:
    for canary, share in (((10, 11), 0.5), ((-1, 0), 0.5), ((10, 1), 5.0)):
        with pytest.raises(InputError):
            update(empty(), counts(canary, (10, 0)), share)
    with pytest.raises(InputError, match="no edge"):
        update(start(Margins(limits=Limits(slower={33.0: 0.1})), STEPS, EDGES), counts((1, 0), (1, 0)), 1.0)
    with pytest.raises(InputError, match="ascend"):
        start(Margins(), STEPS, (50.0, 25.0))
    with pytest.raises(InputError):
        repeated(empty(), 2).to_json()


@pytest.mark.parametrize(
    "wrong",
    [{"errors": 0.0}, {"latency": 0.7}, {"alpha": 1.0}, {"on_classes": "shrug"}, {"least": 0}, {"classes": -1.0}],
)
def test_margins_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Margins(**wrong)
    with pytest.raises(InputError):
        Limits(errors=1.5)


def test_latency_is_judged_at_every_edge() -> None:
    assert [stream.what for stream in empty().streams if stream.family == LATENCY] == [f"{e:g}" for e in EDGES]


def test_once_the_canary_has_all_of_the_traffic_the_last_requests_of_stable_are_no_comparison() -> None:
    begun = after(empty(), [(Arm(100, 0, (50,) * len(EDGES), 100, {"cat": 50, "dog": 50}),) * 2 + (0.5,)])
    late = Arm(3, 3, (3,) * len(EDGES), 3, {"cat": 3, "dog": 0})
    done = Arm(200, 0, (0,) * len(EDGES), 200, {"cat": 0, "dog": 200})
    found = update(begun, Counts(done, late), 1.0)
    for family in (ERRORS, LATENCY, CLASSES):
        assert float(found.against[family].log) == pytest.approx(float(begun.against[family].log))
