from __future__ import annotations

import json
from typing import Any

import pytest

from kanary.judge.counters import Arm, Counts
from kanary.judge.evidence import CLASSES, Evidence, start, update
from kanary.judge.forecast import needs
from kanary.judge.margins import Limits, Margins
from kanary.judge.verdict import NEED_DATA, PAUSE, PROMOTE, ROLLBACK, approved, verdict
from tests.judge.drawing import EDGES, counts, fed

STEPS = (0.05, 0.25, 0.5, 0.95, 1.0)


def begun(margins: Margins | None = None, **more: Any) -> Evidence:
    return start(margins or Margins(), STEPS, EDGES, ("cat", "dog"), **more)


def test_a_canary_like_stable_is_promoted() -> None:
    found = verdict(fed(begun(), 30), 0.5)
    assert found.kind == PROMOTE
    assert found.sentence.startswith("Promote: ")
    assert "within 0.5 points" in found.sentence
    assert not found.notes


@pytest.mark.parametrize(
    ("canary", "words"),
    [
        ({"errors": 0.05}, "fails"),
        ({"median_ms": 80.0}, "slower than 50 ms"),
        ({"errors": 1.0}, "has failed all of its"),
    ],
)
def test_a_worse_canary_is_rolled_back_and_the_sentence_says_why(canary: dict[str, Any], words: str) -> None:
    found = verdict(fed(begun(), 10, **canary), 0.5)
    assert found.kind == ROLLBACK
    assert found.sentence.startswith("Roll back: ")
    assert words in found.sentence
    assert found.needs is None


def test_what_is_within_the_margin_is_no_reason_to_roll_back() -> None:
    found = verdict(fed(begun(Margins(errors=0.05)), 30, errors=0.03), 0.5, forecast=False)
    assert found.kind != ROLLBACK


def test_no_data_never_passes() -> None:
    evidence = begun()
    for canary, stable in (((0, 0), (0, 0)), ((500, 0), (0, 0))):
        for _ in range(50):
            evidence = update(evidence, counts(canary, stable), 0.5)
        assert verdict(evidence, 0.5, forecast=False).kind not in (PROMOTE, ROLLBACK)


def test_without_a_histogram_that_it_expects_nothing_is_promoted() -> None:
    evidence = begun(Margins(classes=None))
    for _ in range(50):
        evidence = update(evidence, counts((200, 0), (200, 0)), 0.5)
    found = verdict(evidence, 0.5, forecast=False)
    assert found.kind == NEED_DATA
    assert "no latency counted in both arms" in found.sentence


def test_a_canary_that_answers_nothing_has_failed() -> None:
    evidence = begun()
    for _ in range(3):
        evidence = update(evidence, counts((0, 0), (400, 1)), 0.05)
    found = verdict(evidence, 0.05)
    assert found.kind == ROLLBACK
    assert "at 5 % of the traffic the canary has answered no request, while stable has answered 1,197" in found.sentence


def test_without_any_request_nothing_is_forecast() -> None:
    found = verdict(begun(), 0.05, rate=1.0)
    assert (found.kind, found.needs) == (NEED_DATA, None)
    assert found.sentence == "Need data: no request has been counted yet."


def test_a_proxy_without_traffic_shows_nothing_about_the_canary() -> None:
    evidence = update(begun(), counts((0, 0), (3, 0)), 0.05)
    found = verdict(evidence, 0.05, rate=0.1)
    assert found.kind == NEED_DATA
    assert found.needs is not None
    assert found.needs.requests_90 >= found.needs.requests > 0


@pytest.mark.parametrize("margins", [{"classes": None}, {"on_classes": "ignore"}, {"latency": None}])
def test_what_is_counted_but_not_judged_is_no_hindrance_to_a_forecast(margins: dict[str, Any]) -> None:
    found = verdict(fed(begun(Margins(**margins)), 1), 0.5, rate=10.0)
    assert found.kind == NEED_DATA
    assert found.needs is not None
    assert found.needs.requests > 0


@pytest.mark.parametrize(("policy", "kind"), [("pause", PAUSE), ("rollback", ROLLBACK), ("ignore", PROMOTE)])
def test_other_predictions_do_what_the_policy_says(policy: Any, kind: str) -> None:
    found = verdict(fed(begun(Margins(on_classes=policy)), 30, cats=0.9), 0.5)
    assert found.kind == kind
    assert ("the canary predicts" in found.sentence) == (kind != PROMOTE)


def test_what_a_person_has_approved_is_judged_no_more() -> None:
    evidence = fed(begun(), 30, cats=0.9)
    assert verdict(evidence, 0.5).kind == PAUSE
    passed = approved(evidence)
    assert CLASSES not in passed.against
    assert verdict(passed, 0.5).kind == PROMOTE
    assert verdict(Evidence.from_json(passed.to_json()), 0.5).kind == PROMOTE
    assert verdict(fed(passed, 10, errors=0.2, seed=8), 0.5).kind == ROLLBACK


def test_a_split_that_is_not_in_force_pauses_whatever_it_seems_to_show() -> None:
    evidence = fed(begun(Margins(classes=None)), 10, share=0.5, split=0.3)
    found = verdict(evidence, 0.5)
    assert found.kind == PAUSE
    assert "where 50 % of the traffic is said to be its" in found.sentence
    passed = approved(evidence)
    assert passed.sticky
    assert verdict(fed(passed, 30, share=0.5, split=0.3, seed=8), 0.5).kind == PROMOTE


def test_a_regression_beyond_doubt_is_rolled_back_even_where_the_split_is_off() -> None:
    assert verdict(fed(begun(), 10, share=0.5, split=0.3, errors=0.3), 0.5).kind == ROLLBACK


def test_a_sticky_split_is_told() -> None:
    found = verdict(fed(begun(sticky=True), 30, share=0.5, split=0.4), 0.5)
    assert found.kind == PROMOTE
    assert any("error rates do not hold" in note for note in found.notes)


def test_with_all_of_the_traffic_only_absolute_limits_act() -> None:
    limited = Margins(limits=Limits(errors=0.05, slower={100.0: 0.2}))
    for evidence, share, kind in (
        (fed(begun(), 5, 1.0, errors=0.4), 1.0, NEED_DATA),
        (fed(begun(limited), 20, 1.0, errors=0.01), 1.0, NEED_DATA),
        (fed(begun(limited), 20, 1.0, errors=0.4), 1.0, ROLLBACK),
        (fed(begun(limited), 20, 1.0, median_ms=120.0), 1.0, ROLLBACK),
    ):
        found = verdict(evidence, share)
        assert found.kind == kind
        assert any("nothing to compare it with" in note for note in found.notes)
        assert ("the limit is" in found.sentence) == (kind == ROLLBACK)


def test_a_step_is_not_passed_before_the_canary_has_answered_there() -> None:
    evidence = fed(begun(Margins(least=500)), 40)
    assert verdict(evidence, 0.5).kind == PROMOTE
    found = verdict(fed(evidence, 1, share=0.95, requests=100, seed=9), 0.95, forecast=False)
    assert found.kind == NEED_DATA
    assert "500 are asked for" in found.sentence


def test_latency_that_no_edge_divides_is_said_to_be_unresolvable() -> None:
    evidence = start(Margins(), STEPS, (1.0, 1000.0), ())
    slow = Arm(400, 0, (400, 0), 400)
    for _ in range(40):
        evidence = update(evidence, Counts(slow, slow), 0.5)
    found = verdict(evidence, 0.5)
    assert any("not resolvable" in note and "between 1 and 1000 ms" in note for note in found.notes)
    assert any("not counted by class" in note for note in found.notes)


def test_quantiles_lie_between_edges_and_regressions_outside_their_margins() -> None:
    found = verdict(fed(begun(), 20, median_ms=80.0), 0.5)
    median = found.latency[0]
    assert (median.quantile, median.canary.low, median.canary.high) == (0.5, 50, 100)
    assert (median.stable.low, median.stable.high) == (25, 50)
    slower = next(reason for reason in found.reasons if reason.name == "slower than 50")
    assert slower.interval.low > slower.margin
    assert slower.difference is not None
    assert slower.interval.low < slower.difference < slower.interval.high


def test_need_data_says_how_much_and_the_same_each_time() -> None:
    evidence = fed(begun(), 3)
    first, again = (verdict(evidence, 0.5, rate=100.0) for _ in range(2))
    assert first == again
    assert first.kind == NEED_DATA
    assert first.needs is not None
    assert first.needs.seconds == first.needs.requests / 100
    assert "more requests" in first.sentence


def test_more_traffic_shortens_the_wait_and_evidence_shortens_what_is_needed() -> None:
    early, late = fed(begun(), 2), fed(begun(), 10)
    assert needs(late, 0.5).requests < needs(early, 0.5).requests
    slow, fast = (needs(early, 0.5, rate).seconds for rate in (1.0, 100.0))
    assert slow is not None
    assert fast is not None
    assert fast < slow


def test_a_verdict_is_json() -> None:
    for evidence in (begun(), fed(begun(), 5, errors=0.2), start(Margins(), STEPS)):
        text = json.dumps(verdict(evidence, 0.5, forecast=False).to_json(), allow_nan=False)
        assert json.loads(text)["kind"] in (NEED_DATA, ROLLBACK)
