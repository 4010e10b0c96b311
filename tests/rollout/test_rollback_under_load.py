from __future__ import annotations

from datetime import datetime

import pytest

from kanary import manifests, release
from kanary.errors import InputError
from tests.rollout.conftest import Deploy, Models
from tests.rollout.rig import Service
from tests.waiting import wait_for

pytestmark = pytest.mark.sandbox


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_a_rollback_loses_no_request_and_leaves_the_canary_none(
    service: Service, deployed: Deploy, models: Models
) -> None:
    before = service.document()
    canary = deployed(models.v2, 50).revision
    with service.traffic(rate=150) as traffic:
        wait_for(lambda: traffic.summary().by_revision.get(canary, 0) > 30, "the canary answers")
        done = service.sandbox.answer("rollback", service.name, "--reason", "it predicts nonsense")
        at_end = traffic.summary()
        wait_for(lambda: traffic.summary().requests > at_end.requests + 200, "requests after the rollback")
        summary = traffic.stop()
    assert (summary.failed, set(summary.by_status)) == (0, {"200"})
    assert done["outcome"] == "done"
    times = done["seconds"]
    assert 0 <= times["sent"] <= times["patched"] <= times["effective"] <= times["restored"]

    effective = moment(done["started"]) + times["effective"]
    wait_for(
        lambda: len(service.sandbox.access_log(service.name)) >= summary.requests,
        "the gateway has logged every request",
    )
    reached = [entry for entry in service.sandbox.access_log() if entry["revision"] == canary]
    assert len(reached) >= summary.by_revision[canary]
    assert [entry for entry in reached if moment(entry["time"]) > effective] == []

    after = service.document()
    assert manifests.content(after) == manifests.content(before)
    assert manifests.percent(after) is None
    assert manifests.PERCENT not in after["spec"]["predictor"]
    for key in ("annotations", "labels"):
        assert after["metadata"].get(key) == before["metadata"].get(key)
    status, state = service.status(), service.state()
    assert status.split == {status.created: 100}
    assert (status.canary, status.notes) == ("", ())
    assert service.predict().headers["kanary-model-version"] == "v1"
    (denied,) = state.denied
    assert (denied.digest, denied.version, denied.why) == (models.v2.digest, "v2", "it predicts nonsense")
    assert [(entry.version, entry.verdict) for entry in state.history] == [
        ("v1", release.PROMOTED),
        ("v2", release.ROLLED_BACK),
    ]


def test_a_rollback_after_the_promotion_loses_no_request_either(
    service: Service, deployed: Deploy, models: Models
) -> None:
    canary = deployed(models.v2, 50).revision
    assert service.sandbox.answer("promote", service.name)["in_force"]
    with service.traffic(rate=100) as traffic:
        wait_for(lambda: traffic.summary().by_revision.get(canary, 0) > 50, "the promoted revision answers")
        assert service.sandbox.answer("rollback", service.name)["outcome"] == "done"
        answered = traffic.summary().requests
        wait_for(lambda: traffic.summary().requests > answered + 50, "requests after the rollback")
        summary = traffic.stop()
    assert summary.failed == 0, summary.reasons
    status = service.status()
    assert status.split == {status.created: 100}
    assert status.created != canary
    assert service.predict().headers["kanary-model-version"] == "v1"


def test_a_version_that_was_rolled_back_is_refused_and_another_one_does_not_resurrect_it(
    service: Service, deployed: Deploy, models: Models
) -> None:
    deployed(models.v2, 20)
    service.sandbox.answer("rollback", service.name, "--reason", "too many false alarms")
    settled = service.document()
    with pytest.raises(InputError) as refused:
        deployed(models.v2, 20)
    who = service.state().denied[0].who
    assert who
    for told in ("v2", models.v2.digest, f"{who} rolled it back", "too many false alarms"):
        assert told in refused.value.message
    assert service.document()["metadata"]["resourceVersion"] == settled["metadata"]["resourceVersion"]

    newest = deployed(models.v3, 50)
    status = service.status()
    assert status.split == {status.stable: 50, newest.revision: 50}
    versions = {revision.name: revision.version for revision in status.revisions}
    assert versions == {status.stable: "v1", newest.revision: "v3"}
    with service.traffic(rate=200, seconds=1) as traffic:
        summary = traffic.wait()
    assert summary.failed == 0
    assert set(summary.by_revision) == set(versions)
    assert service.sandbox.answer("promote", service.name)["in_force"]
    assert service.predict().headers["kanary-model-version"] == "v3"
    assert manifests.model_digest(manifests.content(service.document())) == models.v3.digest
