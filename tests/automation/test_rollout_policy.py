from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kanary import config as settings
from kanary.errors import ConfigError
from kanary.rollout import policy as policies
from kanary.rollout.policy import Policy, load, parse
from kanary.rollout_source import with_settings


def test_an_empty_section_takes_the_defaults() -> None:
    assert parse({}) == parse(None) == Policy()
    assert Policy().steps == (5, 25, 50, 95, 100)


def test_a_policy_survives_its_json() -> None:
    section = {
        "steps": [10, 100],
        "approve": ["promotion", 10],
        "deadline": "2h30m",
        "margins": {"latency": None, "limits": {"errors": 0.05, "slower": {250: 0.1}}},
        "prometheus": {"selectors": {"cluster": "prod"}, "headers": {"X-Team": "a"}},
    }
    policy = parse(section)
    assert (policy.deadline, policy.approve) == (9000.0, (10, 100))
    assert policy.margins.limits.slower == {250.0: 0.1}
    assert parse(json.loads(json.dumps(policy.as_json()))) == policy


def test_what_is_kept_of_a_policy_has_no_credentials() -> None:
    policy = parse({"prometheus": {"headers": {"Authorization": "Bearer secret"}}})
    assert "secret" not in json.dumps(policy.as_kept())
    assert parse(policy.as_kept()).prometheus.headers.keys() == {"Authorization"}


@pytest.mark.parametrize(
    ("section", "said", "hint"),
    [
        ({"stpes": [5, 100]}, "rollout has no key 'stpes'", "Did you mean steps?"),
        ({"steps": [50, 25, 100]}, "rollout.steps is [50, 25, 100]", "rising from 1"),
        ({"steps": [5, 50]}, "rollout.steps is [5, 50]", "the last of them 100"),
        ({"steps": [100]}, "rollout.steps is [100]", "at least two"),
        ({"steps": [0, 100]}, "rollout.steps is [0, 100]", "rising from 1"),
        ({"steps": "5,100"}, "rollout.steps is '5,100'", "whole percentages"),
        ({"bake": {"seconds": "soon"}}, "rollout.bake.seconds is 'soon'", "90s, 15m"),
        ({"bake": {"requests": 1.5}}, "rollout.bake.requests is 1.5", "whole number"),
        ({"bake": 300}, "rollout.bake is 300", "seconds, requests"),
        ({"deadline": 60, "bake": {"seconds": 60}}, "rollout.deadline is 60 s", "longer than bake.seconds"),
        ({"interval": 0}, "rollout.interval is 0", "above 0"),
        ({"interval": 60}, "rollout.interval is 60", "at most 30"),
        ({"interval": True}, "rollout.interval is True", "above 0"),
        ({"interval": float("nan")}, "rollout.interval is nan", "above 0"),
        ({"approve": [30]}, "rollout.approve names 30", "Its steps are 5, 25, 50, 95, 100"),
        ({"margins": {"errors": 0.7}}, "rollout.margins.errors is 0.7", "below 0.5"),
        ({"margins": {"on_classes": "shrug"}}, "rollout.margins.on_classes is 'shrug'", "pause, rollback or ignore"),
        ({"margins": {"limits": {"slower": {"x": 0.1}}}}, "rollout.margins.limits.slower is", "by milliseconds"),
        ({"prometheus": {"url": "https://u:p@host"}}, "rollout.prometheus.url is", "without credentials"),
        ({"prometheus": {"tenant": "a\r\nX-Evil: 1"}}, "rollout.prometheus.tenant is", "printable"),
        ({"prometheus": {"headers": {"a b": "1"}}}, "rollout.prometheus.headers is", "header names"),
        ({"prometheus": {"selectors": {'x"} or': "1"}}}, "rollout.prometheus.selectors is", "label names"),
        ({"prometheus": {"profile": "linkerd"}}, "rollout.prometheus.profile is 'linkerd'", "istio"),
        ({"prometheus": {"queries": {"requests": "x"}}}, "rollout.prometheus.queries lacks 'errors'", "must be given"),
        (
            {"prometheus": {"queries": {"requests": "$ns", "errors": "y"}}},
            "rollout.prometheus.queries.requests has a placeholder that is none",
            "$namespace",
        ),
        ([5, 100], "rollout is [5, 100]", "steps"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_what_is_allowed(section: Any, said: str, hint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(section)
    assert said in refused.value.message
    assert hint in refused.value.hint


def test_a_project_file_may_hold_other_sections(tmp_path: Path) -> None:
    file = tmp_path / "kanary.yaml"
    file.write_text("drift: {window: 100}\nrollout:\n  steps: [20, 100]\n  bake: {seconds: 5m}\n", encoding="utf-8")
    assert load(file).bake.seconds == 300
    assert load(file).steps == (20, 100)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rollout: [", "is no YAML"),
        ("- 1\n", "is no mapping"),
        ("drift: {}\n", "has no section `rollout:`"),
        ("rollout: {bake: {secs: 1}}\n", "rollout.bake has no key 'secs'"),
    ],
)
def test_a_project_file_that_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "kanary.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load(file)
    assert said in refused.value.message
    assert str(file) in refused.value.message


def test_a_project_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read"):
        load(tmp_path / "nowhere.yaml")


def test_what_a_policy_leaves_open_of_prometheus_is_as_in_the_settings(tmp_path: Path) -> None:
    given = {"prometheus_url": "http://p:1", "prometheus_token_file": "t", "prometheus_tenant": "a"}
    given |= {"prometheus_ca_file": "ca", "prometheus_selectors": "cluster=prod,team=x"}
    config = settings.load({**given}, {"HOME": str(tmp_path)}, tmp_path)
    own = policies.Prometheus(tenant="own", selectors={"team": "y"})
    asked = with_settings(Policy(prometheus=own), config).prometheus
    assert (asked.url, asked.token_file, asked.ca_file) == ("http://p:1", str(tmp_path / "t"), str(tmp_path / "ca"))
    assert (asked.tenant, dict(asked.selectors)) == ("own", {"cluster": "prod", "team": "y"})
    elsewhere = Policy(prometheus=policies.Prometheus(url="http://other"))
    assert with_settings(elsewhere, config) == elsewhere, "another server is not sent this one's token"


def test_the_example_project_file_is_a_policy() -> None:
    file = Path(__file__).parents[2] / "examples" / "breast_cancer" / "kanary.yaml"
    assert load(file).steps[-1] == policies.PROMOTION
