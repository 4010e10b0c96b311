from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from kanary.errors import ApiError
from kanary.kfp_types import Run
from kanary.operations import Operation
from kanary.snapshot_course import DRIFT, NONE, POINTS, UNKNOWN, Course, severity, squeezed
from kanary.snapshot_drift import (
    AUTOMATIC,
    LIMIT,
    Drift,
    Finding,
    distribution,
    refresh,
    retraining_name,
    retrainings,
    served,
)
from tests.tui.drift import Column, FakeDrift, Watched

HOUR = 3600.0


def call(operation: Operation[Any], fake: FakeDrift) -> Any:
    answer: Any = None
    while True:
        try:
            request = operation.send(answer)
        except StopIteration as end:
            return end.value
        if request.params["query"] == "time()":
            answer = {"data": {"resultType": "scalar", "result": [0, repr(time.time())]}}
        else:
            answer = {"data": fake.answer(request.params)}


def watched(*columns: Column, **more: Any) -> Watched:
    return Watched("ns", "churn", "churn-predictor-00001", "v1", list(columns), **more)


def since(seconds: float, before: float = 0.5, after: float = 1e-9) -> Callable[[float], float | None]:
    return lambda ago: after if ago <= seconds else before


def course(drift: Drift, name: str) -> Course:
    found = only(drift, name).course
    assert found is not None
    return found


def only(drift: Drift, name: str) -> Finding:
    return next(finding for finding in drift.findings.values() if finding.name == name)


def test_nothing_is_known_where_no_detector_is() -> None:
    assert call(refresh(Drift(), "ns", HOUR), FakeDrift(own={})) == Drift()


def test_a_detector_that_has_seen_nothing_is_there_all_the_same() -> None:
    found = call(refresh(Drift(), "ns"), FakeDrift())
    assert (found.detectors, found.models, found.budget) == (True, {}, 1.0)


def test_columns_models_and_their_numbers_are_read() -> None:
    numbers = {
        "coverage_ratio": 0.98, "window_rows": 1000, "windows_total": 7, "window_outliers": 4, "accuracy_rows": 500,
        "accuracy{bound=value}": 0.9, "accuracy{bound=low}": 0.87, "accuracy{bound=high}": 0.92,
        "accuracy_baseline": 0.93, "canary{stable=churn-predictor-00000,cause=model}": 1,
        "canary{stable=churn-predictor-00000,cause=none}": 0, "online_detections{test=fet}": 2,
    }  # fmt: skip
    model = watched(Column("age", 1e-9, score=0.4), Column("plan", 0.3, test="chi2"), verdict="drift", numbers=numbers)
    found = call(refresh(Drift(), "ns"), FakeDrift([model, Watched("other", "x", "x-1", "v1")]))
    assert list(found.models) == ["ns/churn/churn-predictor-00001/v1"]
    one = found.models["ns/churn/churn-predictor-00001/v1"]
    assert (one.verdict, one.doubt, one.coverage, one.rows, one.outliers) == ("drift", "", 0.98, 1000, 4)
    assert (one.stable, one.cause, one.online) == ("churn-predictor-00000", "model", {"fet": 2})
    assert (one.accuracy.low, one.accuracy.high, one.accuracy.rows, one.accuracy.baseline) == (0.87, 0.92, 500, 0.93)
    assert [only(found, name).state for name in ("age", "plan")] == ["drift", "no drift"]
    assert only(found, "age").severity == pytest.approx(9 / 4)
    assert (only(found, "age").score, only(found, "plan").test) == (0.4, "chi2")
    assert found.past is None


def test_too_little_coverage_is_unknown_and_never_calm() -> None:
    few = watched(Column("age", 0.9), verdict="unknown", numbers={"coverage_ratio": 0.31, "windows_total": 2})
    found = call(refresh(Drift(), "ns", HOUR), FakeDrift([few]))
    assert only(found, "age").state == "unknown"
    assert course(found, "age").levels[-1] == UNKNOWN
    assert "31 % of the traffic seen, 50 % needed" in only(found, "age").model.doubt
    for numbers, said in (
        ({"open_window_rows": 12.0}, "no window was checked yet, 12 rows wait"),
        ({"windows_total": 1.0}, "coverage cannot be told, nothing counts the requests"),
        ({"windows_total": 1.0, "coverage_ratio": 0.9}, "the check failed"),
    ):
        other = call(refresh(Drift(), "ns"), FakeDrift([watched(verdict="unknown", numbers=numbers)]))
        assert said in next(iter(other.models.values())).doubt


def test_the_past_is_asked_for_once_a_step_and_says_since_when_it_drifts() -> None:
    fake = FakeDrift([watched(Column("age", 1e-9, course=since(1830)), Column("plan", 0.5), verdict="drift")])
    found = call(refresh(Drift(), "ns", HOUR), fake)
    age = course(found, "age")
    assert len(age.levels) == POINTS
    assert age.levels[0] == 0
    assert set(age.levels[32:]) == {DRIFT}
    assert time.time() - (age.since or 0.0) == pytest.approx(1830, abs=130)
    assert DRIFT not in course(found, "plan").levels
    assert call(refresh(found, "ns", HOUR), fake).past is found.past
    assert call(refresh(found, "ns", 6 * HOUR), fake).past.span == 6 * HOUR


def test_the_shortest_span_that_holds_all_there_is_is_chosen() -> None:
    fake = FakeDrift([watched(Column("age", 0.5))], lasts=600.0)
    first = call(refresh(Drift(), "ns", AUTOMATIC), fake)
    assert first.past.span == 900.0
    assert course(first, "age").levels[0] == NONE
    fake.lasts = 30 * 24 * HOUR
    assert call(refresh(first, "ns", AUTOMATIC), fake).past.span == 900.0  # it stays: a picture does not jump
    assert call(refresh(Drift(), "ns", AUTOMATIC), fake).past.span == 24 * HOUR


def test_what_was_unknown_for_a_while_is_shown_as_that() -> None:
    fake = FakeDrift([watched(Column("age", 0.5), unknown_until=1800)])
    levels = course(call(refresh(Drift(), "ns", HOUR), fake), "age").levels
    assert set(levels[:29]) == {UNKNOWN}
    assert set(levels[31:]) == {0}


def test_of_very_many_columns_the_worst_are_read() -> None:
    fake = FakeDrift([watched(*(Column(f"f{number}", 0.5) for number in range(LIMIT + 20)))])
    found = call(refresh(Drift(), "ns", HOUR), fake)
    assert found.total == LIMIT + 20
    assert any(query.startswith(f"bottomk({LIMIT}, ") for query in fake.asked)
    assert any(" @ " in query for query in fake.asked)


def test_how_a_column_is_spread_comes_in_the_order_of_its_bins() -> None:
    bins = (("below 3", 0.25, 0.1), ("3 to 4", 0.5, 0.1), ("from 4", 0.25, 0.8))
    fake = FakeDrift([watched(Column('a "b" \\', 1e-9, bins=bins), Column("plan", 0.5), verdict="drift")])
    found = call(refresh(Drift(), "ns"), fake)
    spread = call(distribution(only(found, 'a "b" \\')), fake)
    assert [(one.values, one.reference, one.current) for one in spread] == list(bins)
    assert call(distribution(only(found, "plan")), fake) == ()


def test_an_answer_of_something_else_is_an_error() -> None:
    operation = refresh(Drift(), "ns")
    next(operation)
    with pytest.raises(ApiError):
        operation.send({"data": "nonsense"})


def test_severity_is_the_way_to_the_threshold() -> None:
    assert severity(1e-4, 1e-4) == 1.0
    assert severity(1e-2, 1e-4) == pytest.approx(0.5)
    assert severity(1.0, 1e-4) == 0.0
    assert severity(0.0, 1e-4) == 99.0
    assert severity(None, 1e-4) is None
    assert severity(0.01, 0.0) == 0.0


def test_of_several_moments_in_one_place_the_worst_is_drawn() -> None:
    levels = (0, DRIFT, 1, 1, UNKNOWN, 0, 2, 2)
    assert squeezed(levels, 4) == ((DRIFT, 1), (1, 1), (UNKNOWN, 1), (2, 1))
    assert squeezed(levels[:2], 4) == ((0, 2), (DRIFT, 2))


def test_the_retraining_that_a_model_caused_is_found_by_its_name() -> None:
    found = call(refresh(Drift(), "ns"), FakeDrift([watched(Column("age", 1e-9), verdict="drift")]))
    model = only(found, "age").model
    runs = [
        Run("1", retraining_name(model), "FAILED", created_at=datetime(2026, 11, 20, tzinfo=UTC)),
        Run("2", "retrain churn 0123456789ab", "SUCCEEDED", created_at=datetime(2026, 11, 21, tzinfo=UTC)),
        Run("3", retraining_name(model), "RUNNING", created_at=datetime(2026, 11, 22, tzinfo=UTC)),
    ]
    assert [run.run_id for run in retrainings(model, runs)] == ["3", "1"]
    assert served(model, None)
