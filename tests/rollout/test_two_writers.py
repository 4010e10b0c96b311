from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from kanary import manifests, release
from kanary.errors import Held, KanaryError
from kanary.kserve.rollback import rollback
from kanary.kserve.steer import Moved
from tests.rollout.conftest import Deploy, Models
from tests.rollout.rig import NAMESPACE, Service
from tests.waiting import wait_for

pytestmark = pytest.mark.sandbox


def in_force(service: Service) -> bool:
    status = service.status()
    return status.effective == status.requested


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """What each act gives, or its KanaryError, all of them begun at the same moment."""
    line = Barrier(len(acts))

    def one(act: Callable[[], Any]) -> Any:
        line.wait(60)
        try:
            return act()
        except KanaryError as error:
            return error

    with ThreadPoolExecutor(len(acts)) as threads:
        return list(threads.map(one, acts))


def test_of_two_operators_at_once_the_later_wins_and_the_other_is_told(
    service: Service, deployed: Deploy, models: Models
) -> None:
    deployed(models.v2, 10)
    for _ in range(5):
        epoch = service.state().epoch
        ended = at_once(lambda: service.move(20), lambda: service.move(30))
        state, status = service.state(), service.status()
        # Both wrote their intent down, one after the other; the later one is what is in force.
        assert state.epoch == epoch + 2
        assert state.intent is not None
        assert (state.intent.percent, state.intent.phase) == (status.requested, release.DONE)
        wait_for(lambda: in_force(service), "what was asked last is in force")
        assert {type(one) for one in ended} <= {Moved, Held}
        assert sum(isinstance(one, Moved) for one in ended) >= 1
        for loser in (one for one in ended if isinstance(one, Held)):
            assert "started set-traffic" in loser.message
            assert loser.who == state.intent.who
    assert [entry.version for entry in state.history] == ["v1", "v2"]


def test_of_two_deployments_at_once_one_waits_its_turn(service: Service, deployed: Deploy, models: Models) -> None:
    ended = at_once(
        lambda: deployed(models.v2, 20, run_id="run-of-v2"), lambda: deployed(models.v3, 20, run_id="run-of-v3")
    )
    (refused,) = (one for one in ended if isinstance(one, KanaryError))
    winner, loser = (models.v3, models.v2) if ended.index(refused) == 0 else (models.v2, models.v3)
    assert f"is being worked on by deploy run-of-{winner.version}" in refused.message
    assert [entry.version for entry in service.state().history] == ["v1", winner.version]
    assert service.status().effective == 20
    assert deployed(loser, 30).percent == 30
    assert [(entry.version, entry.verdict) for entry in service.state().history] == [
        ("v1", release.PROMOTED),
        (winner.version, release.REPLACED),
        (loser.version, release.CANARY),
    ]


def test_a_rollback_stops_a_deployment_that_is_under_way(service: Service, models: Models, tmp_path: Path) -> None:
    before = service.document()
    never_ready = replace(models.v2, uri=(tmp_path / "nowhere").as_uri())
    deployment = service.deploying(never_ready, 50, timeout_s=60)
    wait_for(lambda: service.status().canary, "the deployment's canary is there")
    done = service.sandbox.answer("rollback", service.name, "--reason", "not today")
    said, _ = deployment.communicate(timeout=60)
    assert deployment.returncode == 1
    who = service.state().denied[0].who
    assert f"Held: {who} started rollback" in said
    assert done["outcome"] == "done"
    check_rolled_back(service, models, manifests.content(before))


def test_a_rollback_wins_whatever_moment_of_a_deployment_it_meets(
    service: Service, deployed: Deploy, models: Models
) -> None:
    before = service.document()

    def roll_back() -> Any:
        wait_for(lambda: manifests.model_version(manifests.content(service.document())) == "v2", "v2 is in the spec")
        with service.sandbox.api() as api:
            return api.call(rollback(service.name, NAMESPACE, "not today"))

    with service.traffic(rate=50) as traffic:
        deployment, taken_back = at_once(lambda: deployed(models.v2, 50), roll_back)
        summary = traffic.stop()
    assert not isinstance(taken_back, KanaryError), taken_back
    assert taken_back.outcome == "done"
    if isinstance(deployment, KanaryError):
        assert isinstance(deployment, Held), deployment
        assert "started rollback" in deployment.message
    assert summary.failed == 0
    check_rolled_back(service, models, manifests.content(before))


def check_rolled_back(service: Service, models: Models, content: dict[str, Any]) -> None:
    after, status, state = service.document(), service.status(), service.state()
    assert manifests.content(after) == content
    assert manifests.percent(after) is None
    assert status.split == {status.created: 100}
    assert [entry.digest for entry in state.denied] == [models.v2.digest]
    assert [(entry.version, entry.verdict) for entry in state.history] == [
        ("v1", release.PROMOTED),
        ("v2", release.ROLLED_BACK),
    ]
    assert service.predict().headers["kanary-model-version"] == "v1"
