from __future__ import annotations

from dataclasses import replace

import pytest

from kanary.judge import evidence as ledger
from kanary.judge.counters import Arm, Counts
from kanary.judge.margins import Margins
from kanary.judge.verdict import verdict
from kanary.rollout.record import Record
from kanary.snapshot_gaps import judged, shown
from kanary.snapshot_metrics import Point


def course(requests: float, failed: float, seconds: int = 100) -> list[Point]:
    """So many requests in all, so many failed, evenly over the seconds."""
    return [Point(float(at), requests / seconds, failed / requests) for at in range(seconds + 1)]


def test_the_interval_of_what_is_shown_is_newcombes() -> None:
    gap = shown(course(70, 56), course(80, 48))
    assert gap is not None
    # The first example in Newcombe (1998), method 10.
    assert (gap.difference, gap.low, gap.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_moments_that_only_one_of_both_has_do_not_count() -> None:
    stable = [replace(point, errors=1.0) if point.at < 90 else point for point in course(1000, 0)]
    gap = shown(course(100, 0)[90:], stable)
    assert gap is not None
    assert gap.difference == 0
    assert gap.low < 0 < gap.high
    assert shown(course(100, 0)[:1], stable) is None
    assert shown([], stable) is None


def test_the_judges_own_interval_is_told_where_a_rollout_is_judged() -> None:
    counts = Counts(Arm(1000, 90, (200,), 1000), Arm(9000, 90, (900,), 9000), 60.0)
    known = ledger.update(ledger.start(Margins(), [0.1], [50.0]), counts, 0.1)
    told = verdict(known, 0.1, forecast=False)
    record = Record("r", "v2", "sha256:2", "m-00002", "m-00001", {}, findings=told.to_json())
    errors, latency = judged(record, "m-00002")
    assert (errors.name, latency.name) == ("errors", "slower than 50")
    reason = told.reasons[0]
    assert (errors.difference, errors.low, errors.high) == (
        reason.difference, reason.interval.low, reason.interval.high,
    )  # fmt: skip
    assert errors.margin == Margins().errors
    assert 0.04 < errors.low < 0.08 < errors.high < 0.13
    assert judged(record, "m-00003") == ()  # of another canary
    assert judged(None, "m-00002") == ()


@pytest.mark.parametrize("reasons", [None, "x", [1], [{"difference": "a", "interval": {}}], [{"interval": 3}]])
def test_findings_that_are_none_tell_nothing(reasons: object) -> None:
    record = Record("r", "v2", "sha256:2", "m-00002", "m-00001", {}, findings={"reasons": reasons})
    assert judged(record, "m-00002") == ()
