from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kanary import manifests, release
from kanary.errors import KanaryError
from kanary.kserve import deploy as rollout
from tests.rollout.conftest import Deploy, Models
from tests.rollout.rig import NAMESPACE, Model, Service
from tests.waiting import wait_for

pytestmark = pytest.mark.sandbox


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployments that give a failing revision two seconds, from when its failure is told."""
    monkeypatch.setattr(rollout, "wait_ready", partial(rollout.wait_ready, patience=2.0))


def altered(model: Model, folder: Path) -> Model:
    """A release of which the served copy has one byte of its weights changed."""
    copy = folder / "altered"
    shutil.copytree(model.path, copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    return replace(model, uri=copy.as_uri())


def missing(model: Model, folder: Path) -> Model:
    """A release that is to be served from where nothing is."""
    return replace(model, uri=(folder / "nowhere").as_uri())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("spoil", "reason"), [(altered, "model.safetensors"), (missing, "nowhere")], ids=["altered", "missing"]
)
def test_a_canary_that_never_gets_ready_leaves_stable_everything(
    spoil: Callable[[Model, Path], Model],
    reason: str,
    service: Service,
    deployed: Deploy,
    models: Models,
    tmp_path: Path,
) -> None:
    before = service.document()
    with service.traffic(rate=50) as traffic:
        with pytest.raises(KanaryError) as failed:
            deployed(spoil(models.v2, tmp_path), 50)
        summary = traffic.stop()
    # The model server's own last words, not just that it is not ready.
    assert reason in failed.value.message
    assert "v2" in failed.value.message
    stable = service.status().revisions[0].name
    assert summary.failed == 0
    assert summary.requests > 30
    assert service.status().split == {stable: 100}
    assert service.predict().headers["kanary-model-version"] == "v1"
    after = service.document()
    assert manifests.content(after) == manifests.content(before)
    assert manifests.percent(after) is None
    # The cluster may have been at fault: the model itself is not denied, and works where its files are whole.
    assert service.state().denied == ()
    assert deployed(models.v2, 10).percent == 10


def test_rollback_cleans_up_after_a_canary_whose_server_exits(service: Service, models: Models) -> None:
    before = service.document()
    manifest = manifests.inference_service(
        *(service.name, NAMESPACE, models.v2.uri, "v2", models.v2.digest), args=["--no-such-option=1"]
    )
    with service.traffic(rate=50) as traffic:
        with service.sandbox.api() as api:
            started = api.call(rollout.start_canary(manifest))
            with pytest.raises(KanaryError) as failed:
                api.call(rollout.wait_ready(started, deadline=180, patience=3))
            api.call(rollout.finish(started))
        assert "--no-such-option" in failed.value.message
        status = service.status()
        assert status.canary == status.created
        assert status.canary not in status.split
        assert status.split == {status.stable: 100}
        refused = service.sandbox.run("set-traffic", service.name, "10")
        assert refused.returncode == 1
        assert "is not ready" in refused.stderr
        assert service.sandbox.answer("rollback", service.name)["outcome"] == "done"
        summary = traffic.stop()
    assert (summary.failed, models.v2.digest in {entry.digest for entry in service.state().denied}) == (0, True)
    after = service.document()
    assert manifests.content(after) == manifests.content(before)
    assert manifests.percent(after) is None
    status = service.status()
    assert status.split == {status.created: 100}
    assert status.failure == ""
    assert service.state().history[-1].verdict == release.ROLLED_BACK


def test_a_killed_canary_costs_stable_no_request_and_comes_back(
    service: Service, deployed: Deploy, models: Models
) -> None:
    canary = deployed(models.v2, 50).revision
    stable = service.status().stable
    pid = service.sandbox.server(canary)["pid"]
    with service.traffic(rate=150) as traffic:
        wait_for(lambda: traffic.summary().by_revision.get(canary, 0) > 30, "the canary answers")
        os.kill(pid, signal.SIGKILL)

        def back() -> bool:
            server = service.sandbox.server(canary)
            return bool(server["ready"]) and server["pid"] != pid

        wait_for(back, "the canary's server is started again")
        answered = traffic.summary()
        wait_for(
            lambda: traffic.summary().by_revision.get(canary, 0) > answered.by_revision.get(canary, 0) + 30,
            "the canary answers again",
        )
        summary = traffic.stop()
    # What fails is said to be the canary's, by its own header: the judge must see it.
    assert summary.failed_by_revision.get(stable, 0) == 0
    assert set(summary.failed_by_revision) <= {canary}
    assert summary.by_revision[stable] > 15
    assert service.sandbox.server(canary)["restarts"] >= 1
    assert service.status().split == {stable: 50, canary: 50}


@pytest.mark.usefixtures("impatient")
def test_an_operator_can_still_read_the_status_of_a_service_that_never_was_ready(
    empty: Service, deployed: Deploy, models: Models, tmp_path: Path
) -> None:
    with pytest.raises(KanaryError, match="nowhere"):
        deployed(missing(models.v1, tmp_path))
    found = empty.sandbox.answer("status", empty.name)
    assert found["split"] == {}
    assert "nowhere" in found["failure"]
    refused = empty.sandbox.run("rollback", empty.name)
    assert refused.returncode == 1
    assert "its first release has never been ready" in refused.stderr
    # Nothing was ever lost: the same release, where it is whole, simply takes the place.
    assert deployed(models.v1).percent == 100
    assert empty.predict().status_code == 200
