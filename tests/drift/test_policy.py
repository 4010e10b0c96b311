"""When a model is trained again: what asks for it, what holds it back, and that it happens once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from components.retrain.evidence import evidence, query
from components.retrain.retraining import first, history, training_parameters
from kanary.errors import ConfigError, InputError
from kanary.kfp_spec import Pipeline
from kanary.kfp_types import Run
from kanary.policy import DAY_S, Attempt, Evidence, Policy, decide, key_in, key_of, policy, run_name
from kanary.rollout.prometheus import Sample
from tests.automation.answering import prometheus_like

NOW = 1_700_000_000.0
QUIET = Evidence("ns", "market", "v1", verdict="no drift")
DRIFT = replace(QUIET, verdict="drift", drifting=("demand", "price"))
KEY = key_of(DRIFT)


def hours_ago(hours: float, outcome: Any = "succeeded", key: str = "other") -> Attempt:
    return Attempt(NOW - hours * 3600, key, outcome)


def test_nothing_asks_for_it() -> None:
    found = decide(Policy(), QUIET, (), NOW)
    assert (found.action, found.triggers, found.reasons) == ("nothing", (), ("nothing asks for it",))


@pytest.mark.parametrize(
    ("rules", "known", "trigger"),
    [
        (Policy(), DRIFT, "drift"),
        (
            Policy(),
            replace(QUIET, accuracy=0.7, accuracy_high=0.74, accuracy_rows=300, baseline=0.8),
            "accuracy",
        ),
        (Policy(accuracy_below=0.9), replace(QUIET, accuracy_high=0.89, accuracy_rows=200), "accuracy"),
        (Policy(every_days=7), replace(QUIET, trained_at=NOW - 7 * DAY_S), "time"),
        (Policy(new_rows=1000), replace(QUIET, new_rows=1000), "data"),
    ],
)
def test_each_trigger_asks_for_a_retraining_and_says_why(rules: Policy, known: Evidence, trigger: str) -> None:
    found = decide(rules, known, (), NOW)
    assert (found.action, found.triggers) == ("retrain", (trigger,))
    assert len(found.reasons) == 1


@pytest.mark.parametrize(
    "known",
    [
        replace(QUIET, accuracy=0.5, accuracy_high=0.6, accuracy_rows=199, baseline=0.9),  # too few labels
        replace(QUIET, accuracy=0.84, accuracy_high=0.86, accuracy_rows=900, baseline=0.9),  # within the drop
        replace(DRIFT, verdict="unknown"),  # too little of the traffic was seen
    ],
)
def test_what_is_not_sure_retrains_nothing(known: Evidence) -> None:
    assert decide(Policy(), known, (), NOW).action != "retrain"


def test_what_is_unknown_is_told_and_not_taken_for_peace() -> None:
    found = decide(Policy(), replace(QUIET, verdict="unknown"), (), NOW)
    assert (found.action, found.reasons[0]) == ("alert", "whether it drifts is unknown")
    assert decide(Policy(drift_features=None), replace(QUIET, verdict="unknown"), (), NOW).action == "nothing"


@pytest.mark.parametrize(
    ("rules", "known", "past", "why"),
    [
        (Policy(alert_only=True), DRIFT, [], "the policy leaves it to a person"),
        (Policy(), replace(DRIFT, canary="m-2"), [], "the canary m-2 is not judged yet"),
        (Policy(), DRIFT, [hours_ago(300, "running")], "a retraining is running"),
        (Policy(), DRIFT, [hours_ago(300, key=KEY)], "retrained already"),
        (Policy(minimum_rows=500), replace(DRIFT, new_rows=499), [], "500 needed to train on"),
        (Policy(per_month=2), DRIFT, [hours_ago(100), hours_ago(200)], "2 allowed"),
        (Policy(), DRIFT, [hours_ago(23.9)], "24 h must pass"),
        (Policy(), DRIFT, [hours_ago(30, "failed"), hours_ago(60, "failed")], "2 failed in a row"),
    ],
)
def test_each_brake_turns_a_retraining_into_an_alert(
    rules: Policy, known: Evidence, past: list[Attempt], why: str
) -> None:
    found = decide(rules, known, past, NOW)
    assert (found.action, found.triggers) == ("alert", ("drift",))
    assert sum(why in reason for reason in found.reasons) == 1, found.reasons


@pytest.mark.parametrize(
    "past",
    [
        [hours_ago(24.0)],
        [hours_ago(30, "failed")],
        [hours_ago(80, "failed"), hours_ago(120, "failed")],  # the breaker closes again
        [hours_ago(30, "succeeded"), hours_ago(60, "failed"), hours_ago(90, "failed")],
        [hours_ago(31 * 24), hours_ago(32 * 24), hours_ago(33 * 24), hours_ago(34 * 24)],
        [hours_ago(30, "failed", KEY)],  # one that failed may be tried again
    ],
)
def test_brakes_let_go(past: list[Attempt]) -> None:
    assert decide(Policy(), DRIFT, past, NOW).action == "retrain"


def test_five_looks_at_one_drift_make_one_retraining() -> None:
    past: list[Attempt] = []
    for look in range(5):
        now = NOW + look * 3600
        found = decide(Policy(cooldown_hours=0), DRIFT, past, now)
        if found.action == "retrain":
            past.append(Attempt(now, found.key, "running"))
        elif look == 3:
            past = [replace(one, outcome="succeeded") for one in past]
    assert len(past) == 1


def test_another_model_or_service_has_another_key_and_other_features_do_not() -> None:
    keys = {key_of(one) for one in (DRIFT, replace(DRIFT, version="v2"), replace(DRIFT, service="m"))}
    assert len(keys) == 3
    assert key_of(replace(DRIFT, drifting=("demand",))) == KEY
    assert key_in(run_name("market", KEY), "market") == KEY
    assert key_in(run_name("market", KEY), "other") == ""
    assert key_in("training 2024-01-01", "market") == ""


def test_a_policy_is_read_as_kfp_hands_it_on() -> None:
    assert policy({"per_month": 3.0, "accuracy_drop": None, "alert_only": True}) == Policy(
        per_month=3, accuracy_drop=None, alert_only=True
    )


@pytest.mark.parametrize(
    "given",
    [
        {"cooldown": 3},
        {"per_month": 2.5},
        {"per_month": None},
        {"per_month": True},
        {"cooldown_hours": -1},
        {"cooldown_hours": "3"},
        {"alert_only": 1},
        {"failures": 0},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(given))):
        policy(given)


def test_evidence_is_that_of_the_revision_asked_for() -> None:
    def sample(name: str, value: float, revision: str = "m-1", **labels: str) -> Sample:
        return Sample({"__name__": f"kanary_drift_{name}", "revision": revision, **labels}, value)

    found = evidence(
        [
            sample("verdict", 1, verdict="drift"),
            sample("verdict", 0, verdict="no drift"),
            sample("verdict", 1, "m-2", verdict="no drift"),
            sample("detected", 1, feature="demand"),
            sample("detected", 0, feature="price"),
            sample("detected", 1, "m-2", feature="price"),
            sample("accuracy", 0.7, bound="value"),
            sample("accuracy", 0.75, bound="high"),
            sample("accuracy_rows", 400),
            sample("accuracy_baseline", 0.9),
            sample("events_total", 900, type="request"),
            sample("events_total", 880, type="response"),
        ],
        "m-1",
    )
    assert (found.verdict, found.drifting, found.new_rows) == ("drift", ("demand",), 900)
    assert (found.accuracy, found.accuracy_high, found.accuracy_rows, found.baseline) == (0.7, 0.75, 400, 0.9)
    nothing = evidence([], "m-1")
    assert (nothing.verdict, nothing.new_rows, nothing.accuracy) == ("unknown", None, None)
    assert query('n"s', "m", {"cluster": "prod"}).endswith(', cluster="prod", namespace="n\\"s", service="m"}')


def test_runs_that_are_retrainings_of_the_service_are_its_history() -> None:
    def run(name: str, state: str) -> Run:
        return Run("id", name, state, created_at=datetime.fromtimestamp(NOW, UTC))

    found = history(
        [
            run(run_name("market", KEY), "SUCCEEDED"),
            run(run_name("market", KEY), "CANCELED"),
            run(run_name("market", KEY), "PENDING"),
            run(run_name("other", KEY), "SUCCEEDED"),
            run("by hand", "SUCCEEDED"),
        ],
        "market",
    )
    assert [one.outcome for one in found] == ["succeeded", "failed", "running"]


def test_of_two_looks_that_began_one_at_once_the_later_gives_way() -> None:
    def run(run_id: str, second: int, state: str = "PENDING", name: str = "retrain market x") -> Run:
        return Run(run_id, name, state, created_at=datetime.fromtimestamp(NOW + second, UTC))

    runs = [run("c", 2), run("b", 1), run("a", 1), run("other", 0, name="retrain other x"), run("old", 0, "FAILED")]
    assert [first(runs, one) for one in runs[:3]] == ["a", "a", ""]
    assert first([], run("b", 1)) == ""  # the list is behind


WHOLE: dict[str, Any] = {"parameterType": "NUMBER_INTEGER"}
NAMES = {"service": {}, "canary_percent": WHOLE, "automatic_rollout": {}, "rollout_policy": {}}
SPEC = {
    "pipelineInfo": {"name": "training"},
    "schemaVersion": "2.1.0",
    "root": {"dag": {"tasks": {}}, "inputDefinitions": {"parameters": NAMES}},
}
TRAINING = Pipeline(SPEC, None)


@pytest.mark.parametrize(
    "parameters",
    [
        {"service": "market", "canary_percent": 100},
        {"service": "market", "canary_percent": 100.0},
        {"service": "other"},
        {},
        {"service": "market", "unheard_of": 1},
        {"service": "market", "rollout_policy": {"stepps": [5, 100]}},
    ],
)
def test_what_would_not_go_out_as_a_judged_canary_of_the_service_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises((InputError, ConfigError)):
        training_parameters(TRAINING, parameters, "market")


def test_a_retrained_model_is_rolled_out_by_the_judge_unless_a_person_is_to() -> None:
    policy = {"steps": [50, 100]}
    found = training_parameters(TRAINING, {"service": "market", "rollout_policy": policy}, "market")
    assert found == {"service": "market", "rollout_policy": policy, "automatic_rollout": True}
    by_hand = {"service": "market", "canary_percent": 5.0, "automatic_rollout": False}
    found = training_parameters(TRAINING, by_hand, "market")
    assert found == by_hand
    assert isinstance(found["canary_percent"], int)
    other = Pipeline({"root": {"inputDefinitions": {"parameters": {"service": {}}}}}, None)
    assert training_parameters(other, {"service": "market"}, "market") == {"service": "market"}


def test_evidence_is_asked_for_behind_a_token_a_tenant_and_selectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kfp")
    from components.retrain import retraining, service
    from components.retrain.component import retrain

    seen: list[Any] = []

    def look(*given: Any) -> retraining.Look:
        seen.append(given[1])
        return yes

    yes = retraining.Look(decide(Policy(), DRIFT, (), NOW), DRIFT)
    subject = retraining.Subject("market", "ns", "v1", "m-1")
    monkeypatch.setattr(service, "serving_model", lambda *given: subject)
    monkeypatch.setattr(retraining, "look", look)
    (tmp_path / "training.yaml").write_text(yaml.safe_dump(SPEC), encoding="utf-8")
    (tmp_path / "token").write_text("sesame", encoding="utf-8")
    monkeypatch.setenv("KANARY_HOME", str(tmp_path))
    monkeypatch.setenv("KANARY_PROMETHEUS_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("KANARY_PROMETHEUS_TENANT", "team-a")
    monkeypatch.setenv("KANARY_PROMETHEUS_SELECTORS", "cluster=prod")
    record = SimpleNamespace(metadata={})
    with prometheus_like() as (url, asked):
        monkeypatch.setenv("KANARY_PROMETHEUS_URL", url)
        retrain.python_func("market", str(tmp_path / "training.yaml"), {}, record)
        with prometheus_like() as (other, strangers):
            retrain.python_func("market", str(tmp_path / "training.yaml"), {}, record, prometheus={"url": other})
    assert seen == [(Sample({"a": "b"}, 7.0),)] * 2
    assert (asked[0]["authorization"], asked[0]["x-scope-orgid"]) == ("Bearer sesame", "team-a")
    assert 'cluster="prod"' in asked[0]["query"]
    assert not {"authorization", "x-scope-orgid"} & strangers[0].keys()  # another server is told no secret
    assert record.metadata["action"] == "retrain"
