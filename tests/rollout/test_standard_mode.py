"""Standard mode in the sandbox, with real servers, a real Envoy and traffic that must not fail."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from components.deploy.deployment import Deployed, Target, deploy
from kanary import manifests, release
from kanary.errors import KanaryError
from kanary.kserve import deploy as rollout
from sandbox.modelserver.client import servers
from tests.rollout.conftest import Models
from tests.rollout.rig import NAMESPACE, Model, Service

pytestmark = pytest.mark.sandbox
Run = Callable[..., Deployed]


@pytest.fixture
def standard(empty: Service) -> Run:
    """The deploy step's logic: standard(model, percent) gives the revision."""

    def run(model: Model, percent: int = 0, *, timeout_s: float = 180.0, mode: str = "Standard") -> Deployed:
        target = Target(empty.name, NAMESPACE, percent, timeout_s, f"run-of-{model.version}", mode)
        return deploy(model.path, model.uri, model.digest, target)

    return run


@pytest.fixture
def beside(standard: Run, empty: Service, models: Models) -> Service:
    """A service in Standard mode with v1 stable, and v2 as its canary at half of the traffic."""
    assert standard(models.v1).revision == f"{empty.name}-predictor"
    assert standard(models.v2, 50, mode="").percent == 50
    return empty


def answered(service: Service, count: int = 60) -> Counter[str]:
    """Model versions that answer at the service's URL."""
    return Counter(service.predict().headers["kanary-model-version"] for _ in range(count))


def process(service: Service, deployment: str) -> int:
    """The process of a Deployment's server."""
    found = [one for one in servers(service.sandbox.home, 60.0) if one["id"].startswith(f"{NAMESPACE}/{deployment}-")]
    return int(found[0]["pid"])


def test_a_canary_is_promoted_without_a_failed_request_and_taken_back_without_one(
    beside: Service, models: Models
) -> None:
    status = beside.status()
    assert (status.mode, status.effective) == ("Standard", 50)
    assert status.stable == f"{beside.name}-predictor"
    pid = process(beside, status.canary)
    with beside.traffic(rate=60) as traffic:
        moved = beside.sandbox.answer("promote", beside.name)
        assert moved["in_force"]
        assert moved["readiness"]["ok"]
        assert moved["readiness"]["target"] == "v1"
        assert process(beside, status.canary) == pid, "the very same process: nothing was restarted"
        assert set(answered(beside)) == {"v2"}
        done = beside.sandbox.answer("rollback", beside.name, "--reason", "after all")
        assert (done["outcome"], done["to"]) == ("done", "v1")
        assert set(answered(beside)) == {"v1"}
        summary = traffic.stop()
    assert summary.failed == 0
    assert [(entry.version, entry.verdict) for entry in beside.state().history] == [
        ("v1", release.PROMOTED),
        ("v2", release.ROLLED_BACK),
    ]


def test_a_rollback_of_a_canary_takes_its_traffic_and_loses_no_request(beside: Service, models: Models) -> None:
    before = manifests.stable_content(beside.document())
    canary = beside.status().canary
    with beside.traffic(rate=60) as traffic:
        done = beside.sandbox.answer("rollback", beside.name)
        assert done["outcome"] == "done"
        assert done["seconds"]["effective"] is not None
        assert set(answered(beside)) == {"v1"}
        summary = traffic.stop()
    assert summary.failed == 0
    after = beside.document()
    assert after["spec"].get("canary") == []
    assert manifests.stable_content(after) == before
    assert canary not in beside.status().split
    with pytest.raises(KanaryError, match="denied"):
        deploy(models.v2.path, models.v2.uri, models.v2.digest, Target(beside.name, NAMESPACE, 10))


def test_any_release_of_the_history_comes_back_and_the_traffic_waits_for_it(
    beside: Service, standard: Run, models: Models
) -> None:
    beside.sandbox.answer("promote", beside.name)
    standard(models.v3, 50)
    beside.sandbox.answer("promote", beside.name)
    listed = beside.sandbox.answer("history", beside.name)
    assert [entry["version"] for entry in listed["releases"]] == ["v3", "v2", "v1"]
    tried = beside.sandbox.answer("rollback", beside.name, "--to", "v1", "--dry-run")
    assert tried["cold"]
    assert set(answered(beside, 10)) == {"v3"}, "a dry run changes nothing"
    with beside.traffic(rate=60) as traffic:
        done = beside.sandbox.answer("rollback", beside.name, "--to", "v1")
        assert (done["outcome"], done["to"]) == ("done", "v1")
        summary = traffic.stop()
    assert summary.failed == 0
    assert set(answered(beside)) == {"v1"}


def test_a_canary_that_cannot_load_says_why_and_leaves_stable_everything(
    empty: Service, standard: Run, models: Models, tmp_path: Path
) -> None:
    standard(models.v1)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.json").write_text(json.dumps({"format": "nothing"}), encoding="utf-8")
    document = manifests.inference_service(empty.name, NAMESPACE, broken.as_uri(), "v9", "sha256:9", mode="Standard")
    with empty.sandbox.api() as api:
        started = api.call(rollout.start_canary(document, run_id="r9"))
        with pytest.raises(KanaryError, match=r"v9 .* is not ready") as told:
            api.call(rollout.wait_ready(started, deadline=60.0, patience=3.0))
        assert "not ready after" not in told.value.message, "it knows better than that time is up"
        api.call(rollout.finish(started))
    status = empty.status()
    assert (status.canary_ready, status.split) == (False, {status.stable: 100})
    assert empty.sandbox.answer("rollback", empty.name)["outcome"] == "done"
    assert set(answered(empty, 10)) == {"v1"}
