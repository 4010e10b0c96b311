"""The promise about false alarms, held by simulation; and what the pure parts decide."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from serving.drift import budget, coverage
from serving.drift.budget import MONTH_S, REWARD, Account
from serving.drift.coverage import Counted
from serving.drift.findings import Finding, Score, agreeing, cause, judged
from serving.drift.service import service
from serving.drift.settings import settings
from serving.drift.window import Prediction, Rule, Window, state
from tests.automation.answering import prometheus_like


def month(rng: np.random.Generator, limit: float, batches: int, tests: int, drifting: int = 0) -> tuple[int, int]:
    """Alarms that are false and that are true in a month of batches; the last `drifting` tests of each really drift.

    The others' p-values depend on each other as strongly as they can: half of the time they are all the same.
    """
    account, false, true = Account(limit, 0.0), 0, 0
    for _ in range(batches):
        threshold = budget.level(account, tests)
        p_values = np.full(tests, rng.random()) if rng.random() < 0.5 else rng.random(tests)
        p_values[tests - drifting :] = 0.0
        alarms = budget.rejected(p_values.tolist(), threshold)
        false += sum(alarms[: tests - drifting])
        true += sum(alarms[tests - drifting :])
        account = budget.settled(account, sum(alarms))
    return false, true


@pytest.mark.parametrize("limit", [0.5, 2.0])
def test_where_nothing_drifts_a_month_has_no_more_false_alarms_than_promised(limit: float) -> None:
    rng = np.random.default_rng(0)
    found = np.array([month(rng, limit, batches=200, tests=10)[0] for _ in range(400)])
    # One-sided, wrong by chance below 1e-6: what is promised is the mean over months.
    error = 4.9 * max(found.std(), 0.5) / np.sqrt(len(found))
    assert found.mean() <= limit + error


def test_where_some_features_drift_all_the_time_the_others_stay_within_budget_and_reward() -> None:
    rng = np.random.default_rng(1)
    found = np.array([month(rng, 1.0, batches=50, tests=10, drifting=2) for _ in range(200)])
    assert (found[:, 1] == 100).all()
    error = 4.9 * found[:, 0].std() / np.sqrt(len(found))
    assert found[:, 0].mean() <= 1.0 + REWARD * (found[:, 1].mean() + found[:, 0].mean()) + error


def test_the_levels_of_a_month_never_sum_to_more_than_the_budget_allows() -> None:
    account = Account(1.0, 0.0)
    for batch in range(20_000):
        account = budget.settled(account, batch % 5000 == 0)
    assert account.spent <= 1.0 * (1 - REWARD) + REWARD * len(account.alarms)


def test_a_month_is_followed_by_a_new_one() -> None:
    spent = budget.settled(Account(1.0, 100.0), 1)
    assert budget.current(spent, 100.0 + MONTH_S - 1) == spent
    assert budget.current(spent, 100.0 + MONTH_S) == Account(1.0, 100.0 + MONTH_S)
    assert budget.current(spent, 50.0) == Account(1.0, 50.0)  # the clock was set back


@pytest.mark.parametrize(
    ("before", "after", "events", "share"),
    [
        (100.0, 200.0, 50, 0.5),
        (100.0, 40.0, 40, 1.0),  # the proxy has started anew
        (100.0, 100.0, 0, 1.0),
        (100.0, 100.0, 5, None),  # events of requests that the proxy has not counted
        (100.0, 110.0, 12, 1.0),
    ],
)
def test_coverage_is_events_by_requests(before: float, after: float, events: int, share: float | None) -> None:
    arm = ("ns", "m", "m-1")
    span = coverage.between(Counted(0, {arm: before}), Counted(9, {arm: after}), arm)
    assert coverage.share(events, span) == share


def test_what_too_few_events_stand_for_is_doubtful() -> None:
    assert coverage.doubt(0.49, 0.5) == "coverage 49% below 50%"
    assert coverage.doubt(0.5, 0.5) == ""
    assert coverage.doubt(None, 0.5) == "coverage unobservable"
    assert coverage.doubt(None, 0.0) == ""


def test_windows_end_by_count_and_by_time_but_never_too_small() -> None:
    rule = Rule(rows=4, seconds=60.0, minimum=2)
    window = Window(1)
    assert state(window, 1e9, rule) == "open"
    window.add("request", "a", 100.0, [(1.0,)])
    assert state(window, 161.0, rule) == "short"
    window.add("request", "b", 101.0, [(1.0,)])
    assert (state(window, 159.0, rule), state(window, 160.0, rule)) == ("open", "due")
    window.add("request", "c", 102.0, [(1.0,), (2.0,)])
    assert state(window, 103.0, rule) == "full"


def test_a_full_window_waits_for_predictions_that_are_on_their_way_but_not_for_ever() -> None:
    rule = Rule(rows=4, seconds=60.0, minimum=2)
    window = Window(1)
    window.add("request", "a", 100.0, [(1.0,)] * 4)
    window.add("response", "a", 100.0, [Prediction("up", (0.1, 0.9))] * 3)
    assert state(window, 101.0, rule) == "open"
    window.add("request", "b", 101.0, [(1.0,)])
    assert state(window, 101.0, rule) == "full"


def test_windows_agree_only_when_all_of_them_say_so() -> None:
    rng = np.random.default_rng(2)
    assert agreeing([0.001, 0.001]) == 1.0
    assert agreeing([1.0, 0.01, 0.02, 0.01]) == pytest.approx(0.02**3)
    found = np.array([agreeing(list(rng.random(3))) for _ in range(20_000)])
    for level in (0.01, 0.1, 0.5):
        assert (found <= level).mean() == pytest.approx(level, abs=5 * np.sqrt(level / 20_000))


def finding(kind: str, detected: bool) -> Finding:
    score = Score("x", kind, "ks", 0.5, 0.0 if detected else 1.0)  # type: ignore[arg-type]
    return judged([score], 0.01, ())[0]


@pytest.mark.parametrize(
    ("features", "predictions", "stable_drifts", "expected"),
    [
        (False, False, False, "none"),
        (False, True, False, "model"),
        (False, True, True, "model"),
        (False, False, True, "world"),
        (True, True, False, "split"),
    ],
)
def test_canary_and_stable_tell_a_bad_model_from_a_changed_world(
    features: bool, predictions: bool, stable_drifts: bool, expected: str
) -> None:
    found = cause([finding("feature", features)], [finding("prediction", predictions)], stable_drifts)
    assert found == expected


def test_an_alarm_is_the_beginning_of_drift_not_its_going_on() -> None:
    score = Score("price", "feature", "ks", 0.5, 1e-9)
    assert [judged([score], 0.01, ())[0].alarm, judged([score], 0.01, ("price",))[0].alarm] == [True, False]
    assert judged([score], 0.01, ("price",))[0].detected


async def test_the_proxy_s_counts_are_asked_for_behind_a_token_and_a_tenant(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sesame", encoding="utf-8")
    body = (
        b'{"status":"success","data":{"resultType":"vector","result":'
        b'[{"metric":{"namespace":"ns","service":"m","revision":"m-1"},"value":[1,"7"]}]}}'
    )
    with prometheus_like(body=body) as (url, asked):
        given = {"URL": url, "TOKEN_FILE": str(tmp_path / "token"), "TENANT": "team-a"}
        environment = {f"KANARY_PROMETHEUS_{name}": value for name, value in given.items()}
        made = service(settings(["--home", str(tmp_path / "home")], environment))
        counting = asyncio.create_task(made.count())
        try:
            async with asyncio.timeout(60):
                while made.watch.counted is None:
                    await asyncio.sleep(0.01)
        finally:
            counting.cancel()
    assert made.watch.counted.requests == {("ns", "m", "m-1"): 7.0}
    assert (asked[0]["authorization"], asked[0]["x-scope-orgid"]) == ("Bearer sesame", "team-a")
