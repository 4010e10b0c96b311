from __future__ import annotations

from typing import Any

import pytest

from kanary import errors, manifests, release
from kanary.errors import InputError, KanaryError
from kanary.kserve import decide, deploy, rollback, steer
from kanary.kserve.deploy import Started
from kanary.kserve.rollback import Rollback
from kanary.kserve.store import Token
from kanary.operations import Request
from tests.core.cluster import NAMESPACE, Cluster, Killed, digest, manifest, path, shares

GOOD = (1, 3)


def deployed(cluster: Cluster, number: int, percent: int = 0) -> Started:
    started = cluster.run(deploy.start_canary(manifest(number), run_id=f"run{number}", clock=cluster.clock))
    cluster.run(deploy.wait_ready(started, clock=cluster.clock))
    if percent:
        cluster.run(steer.set_traffic("m", NAMESPACE, percent, token=started.token, clock=cluster.clock))
    cluster.run(deploy.finish(started))
    return started


def rolled_back(cluster: Cluster, kill_after: int | None = None, **more: Any) -> Rollback:
    act = rollback.rollback("m", NAMESPACE, "it is wrong", clock=cluster.clock, **more)
    return cluster.run(act, kill_after)


def promoted(cluster: Cluster) -> None:
    cluster.run(steer.promote("m", NAMESPACE, clock=cluster.clock))


def during_a_canary() -> Cluster:
    cluster = Cluster()
    deployed(cluster, 1)
    deployed(cluster, 2, 10)
    return cluster


def after_a_promotion() -> Cluster:
    cluster = during_a_canary()
    promoted(cluster)
    return cluster


def never_ready() -> Cluster:
    cluster = Cluster(bad={"s3://models/2"})
    deployed(cluster, 1)
    started = cluster.run(deploy.start_canary(manifest(2), run_id="run2", clock=cluster.clock))
    with pytest.raises(KanaryError, match="cannot load"):
        cluster.run(deploy.wait_ready(started, clock=cluster.clock))
    return cluster


def hanging() -> Cluster:
    cluster = Cluster(slow={"s3://models/2"})
    deployed(cluster, 1)
    cluster.run(deploy.start_canary(manifest(2), run_id="run2", clock=cluster.clock))
    return cluster


def applied_without_a_percentage() -> Cluster:
    """kubectl apply of v2, not ready yet: it would take everything."""
    cluster = Cluster(slow={"s3://models/2"})
    deployed(cluster, 1)
    cluster.touch(**manifests.content(manifest(2)))
    return cluster


SITUATIONS = [during_a_canary, after_a_promotion, never_ready, hanging, applied_without_a_percentage]


def assert_restored(cluster: Cluster) -> None:
    content = manifests.content(cluster.service)
    assert manifests.model_digest(content) == digest(1)
    assert not manifests.merge_patch(content, manifests.content(manifest(1)))
    assert manifests.percent(cluster.service) is None, "a leftover 0 would starve the next release"
    newest = cluster.service["status"]["components"]["predictor"]["latestCreatedRevision"]
    assert shares(cluster.service) == {newest[-2:]: 100}
    assert release.denial(cluster.state, digest(2)) is not None
    assert cluster.state.intent is not None
    assert cluster.state.intent.phase == release.DONE


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_rollback_restores_traffic_and_content(situation: Any) -> None:
    cluster = situation()
    done = rolled_back(cluster)
    assert (done.outcome, done.bad_version, done.target_version, done.denied) == ("done", "v2", "v1", True)
    assert_restored(cluster)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_killed_anywhere_and_run_again_it_goes_on(situation: Any) -> None:
    for kill_after in range(100):
        cluster = situation()
        bad = bad_revision(cluster)
        cluster.splits.clear()
        # The controller may have gone on meanwhile, or not.
        for settles in (False, True):
            try:
                rolled_back(cluster, kill_after)
            except Killed:
                if settles:
                    cluster.settle()
                continue
            assert kill_after > 2, "it never sent what it has to"
            break
        done = rolled_back(cluster)
        assert done.outcome in ("done", "already")
        assert_restored(cluster)
        seen = [split.get(bad, 0) for split in cluster.splits]
        assert seen == sorted(seen, reverse=True)
        assert cluster.state.epoch <= situation().state.epoch + 1, "going on is no new act"
        if done.outcome == "already":
            return
    raise AssertionError("it never ends")


@pytest.mark.parametrize("situation", SITUATIONS)
def test_once_taken_away_the_traffic_never_comes_back_to_the_bad_revision(situation: Any) -> None:
    cluster = situation()
    bad = bad_revision(cluster)
    cluster.splits.clear()
    rolled_back(cluster)
    seen = [split.get(bad, 0) for split in cluster.splits]
    assert seen == sorted(seen, reverse=True)


def bad_revision(cluster: Cluster) -> str:
    created: str = cluster.service["status"]["components"]["predictor"]["latestCreatedRevision"]
    # Where the controller has not seen the bad content yet, it makes the next revision of it.
    return created[-2:] if created[-2:] != "01" else "02"


def test_the_brake_takes_three_round_trips() -> None:
    cluster = during_a_canary()
    trips: list[list[Request]] = []
    act = rollback.rollback("m", NAMESPACE, clock=cluster.clock)
    answer: Any = None
    while True:
        step: Any = act.send(answer)
        trips.append(list(step.requests))
        answer = [cluster.send(request) for request in step.requests]
        if any(request.method == "PATCH" for request in step.requests):
            break
    act.close()
    assert len(trips) == 3
    (stop,) = trips[-1]
    assert stop.path == path("m")
    assert stop.body["spec"] == {"predictor": {"canaryTrafficPercent": 0}}
    assert stop.body["metadata"]["resourceVersion"]


def test_the_intent_and_the_denial_are_written_before_the_service_is_touched() -> None:
    cluster = during_a_canary()
    before = len(cluster.sent)
    with pytest.raises(Killed):
        rolled_back(cluster, kill_after=2)
    assert [r.method for r in cluster.sent[before:] if r.path == path("m")] == ["GET"]
    assert cluster.state.intent is not None
    assert (cluster.state.intent.action, cluster.state.intent.phase) == (release.ROLLBACK, release.BEGUN)
    assert release.denial(cluster.state, digest(2)) is not None


def test_nothing_of_the_services_own_annotations_or_labels_is_ever_written() -> None:
    cluster = after_a_promotion()
    rolled_back(cluster)
    writes = [r for r in cluster.sent if r.path == path("m") and r.method == "PATCH"]
    assert writes
    assert all(set(r.body.get("metadata", {})) <= {"resourceVersion"} for r in writes)


def test_done_again_it_does_nothing() -> None:
    cluster = during_a_canary()
    rolled_back(cluster)
    before = cluster.version
    again = rolled_back(cluster)
    assert again.outcome == "already"
    assert "operator has rolled back from v2 already" in again.why
    assert cluster.version == before


def test_what_was_applied_again_is_rolled_back_again() -> None:
    cluster = during_a_canary()
    rolled_back(cluster)
    cluster.touch(**manifests.content(manifest(2)))
    cluster.settle()
    status = cluster.run(steer.status("m", NAMESPACE))
    assert any("v2 is back in the spec, though operator denied it" in note for note in status.notes)
    assert rolled_back(cluster).outcome == "done"
    assert_restored(cluster)


def test_a_rollback_waits_for_nobodys_lease() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    started = cluster.run(deploy.start_canary(manifest(2), run_id="run2", clock=cluster.clock))
    assert rolled_back(cluster).outcome == "done"
    with pytest.raises(errors.Held, match="operator started rollback") as held:
        cluster.run(deploy.wait_ready(started, clock=cluster.clock))
    assert held.value.who == "operator"
    with pytest.raises(errors.Held):
        cluster.run(steer.set_traffic("m", NAMESPACE, 10, token=started.token, clock=cluster.clock))
    assert_restored(cluster)


def test_an_automations_rollback_stops_where_an_operator_has_acted() -> None:
    cluster = during_a_canary()
    token = Token(cluster.state.epoch, "automation")
    cluster.run(steer.set_traffic("m", NAMESPACE, 20, clock=cluster.clock))
    before = cluster.version
    with pytest.raises(errors.Held, match="operator started set-traffic"):
        rolled_back(cluster, token=token)
    assert cluster.version == before


def test_an_automations_rollback_keeps_the_epoch() -> None:
    cluster = during_a_canary()
    epoch = cluster.state.epoch
    assert rolled_back(cluster, token=Token(epoch, "automation")).outcome == "done"
    assert cluster.state.epoch == epoch
    assert_restored(cluster)


def test_every_write_of_somebody_else_in_between_is_seen() -> None:
    """A kubectl edit lands before each of our patches: 409, read again, decided again."""
    cluster = during_a_canary()
    edits = iter(range(2, 5))

    def interfere(request: Request) -> None:
        if request.method == "PATCH" and request.path == path("m") and "resourceVersion" in request.body["metadata"]:
            replicas = next(edits, None)
            if replicas is not None:
                cluster.before_request = None
                cluster.touch(minReplicas=replicas)
                cluster.before_request = interfere

    cluster.before_request = interfere
    assert rolled_back(cluster).outcome == "done"
    assert next(edits, None) is None, "not every edit came to pass"
    assert_restored(cluster)


def test_who_acts_between_two_reads_that_were_sent_at_once_is_not_overruled() -> None:
    """The epoch is read before, the service after somebody's act: neither tells of a conflict."""
    cluster = during_a_canary()
    cluster.backwards = True
    edited = acted = False

    def interfere(request: Request) -> None:
        nonlocal edited, acted
        cluster.before_request = None
        if not edited and request.method == "PATCH" and "resourceVersion" in request.body["metadata"]:
            edited = True
            cluster.touch(minReplicas=2)
        elif edited and not acted and (request.method, request.path) == ("GET", path("m")):
            acted = True
            cluster.run(steer.set_traffic("m", NAMESPACE, 20, clock=cluster.clock))
        cluster.before_request = interfere

    cluster.before_request = interfere
    with pytest.raises(errors.Held, match="operator started set-traffic"):
        cluster.run(steer.set_traffic("m", NAMESPACE, 30, clock=cluster.clock))
    assert acted
    assert manifests.percent(cluster.service) == 20


@pytest.mark.parametrize("at", [rollback.PLAN, decide.STOP, rollback.EFFECTIVE])
def test_who_acts_while_a_rollback_waits_is_not_overruled(at: str) -> None:
    cluster = during_a_canary()
    token = Token(cluster.state.epoch, "automation")
    acted = False

    def act(progress: rollback.Progress) -> None:
        nonlocal acted
        if progress.kind == at and not acted:
            acted = True
            cluster.run(steer.set_traffic("m", NAMESPACE, 20, clock=cluster.clock))

    with pytest.raises(errors.Held, match="operator started set-traffic"):
        rolled_back(cluster, token=token, deny=False, on_progress=act)
    assert acted
    assert manifests.percent(cluster.service) == 20


def test_a_revision_that_somebody_makes_of_the_bad_content_does_not_pass_for_the_restored_one() -> None:
    cluster = during_a_canary()
    touched = False

    def annotate(request: Request) -> None:
        nonlocal touched
        restores = request.method == "PATCH" and "model" in request.body["spec"]["predictor"]
        if restores and not touched:
            touched = True
            service = cluster.service | {"metadata": cluster.service["metadata"] | {"annotations": {"a": "b"}}}
            cluster.objects[path("m")] = service
            cluster.touch()
            cluster.settle()

    cluster.before_request = annotate
    splits = cluster.splits
    splits.clear()
    assert rolled_back(cluster).outcome == "done"
    assert touched
    assert_restored(cluster)
    assert all(split.get("03", 0) == 0 for split in splits), "03 is v2 once more"


def test_a_service_that_was_found_in_the_cluster_is_restored_as_it_was_found() -> None:
    cluster = Cluster()
    cluster.send(Request("POST", path("m").rpartition("/")[0], body=manifest(1)))
    cluster.settle()
    deployed(cluster, 2, 10)
    assert [entry.verdict for entry in cluster.state.history] == [release.FOUND, release.CANARY]
    assert rolled_back(cluster).outcome == "done"
    assert_restored(cluster)


def test_where_nobody_recorded_the_stable_content_the_traffic_is_saved_and_that_is_said() -> None:
    cluster = Cluster()
    cluster.send(Request("POST", path("m").rpartition("/")[0], body=manifest(1)))
    cluster.settle()
    cluster.touch(**manifests.content(manifest(2)) | {"canaryTrafficPercent": 50})
    cluster.settle()
    assert shares(cluster.service) == {"01": 50, "02": 50}
    done = rolled_back(cluster)
    assert done.outcome == "held"
    assert "never recorded" in done.why
    assert shares(cluster.service) == {"01": 100}
    assert done.effective is not None


def test_a_first_release_cannot_be_rolled_back_and_is_left_alone() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    before = cluster.version
    with pytest.raises(KanaryError, match="its only release"):
        rolled_back(cluster)
    assert cluster.version == before


def test_a_first_release_that_was_never_ready_cannot_be_rolled_back() -> None:
    cluster = Cluster(bad={"s3://models/1"})
    cluster.run(deploy.start_canary(manifest(1), run_id="run1", clock=cluster.clock))
    cluster.settle()
    with pytest.raises(KanaryError, match="never been ready"):
        rolled_back(cluster)


def test_a_canary_that_took_everything_when_the_service_was_resumed_is_told_and_taken_back() -> None:
    """Stopping deletes the revisions: the canary becomes 00001, the name that the history has for stable."""
    cluster = during_a_canary()
    for stopped in ("true", "false"):
        body = {"metadata": {"annotations": {"serving.kserve.io/stop": stopped}}}
        cluster.send(Request("PATCH", path("m"), body=body))
        cluster.settle()
    assert shares(cluster.service) == {"01": 100}
    notes = "; ".join(cluster.run(steer.status("m", NAMESPACE)).notes)
    assert "m-predictor-00001 was v1, and the spec holds another model" in notes
    assert rolled_back(cluster).outcome == "done"
    assert_restored(cluster)


def test_two_releases_back_is_not_one_rollback_run_twice() -> None:
    cluster = after_a_promotion()
    deployed(cluster, 3, 10)
    promoted(cluster)
    assert rolled_back(cluster).target_version == "v2"
    assert rolled_back(cluster).outcome == "already"
    assert manifests.model_digest(manifests.content(cluster.service)) == digest(2)


def test_where_kserve_remembers_nothing_the_stable_content_itself_comes_up() -> None:
    cluster = after_a_promotion()
    component = cluster.world.status["components"]["predictor"]
    del component["previousRolledoutRevision"]
    cluster.touch(minReplicas=1)
    cluster.objects[path("m")]["status"]["components"]["predictor"].pop("previousRolledoutRevision", None)
    cluster.splits.clear()
    done = rolled_back(cluster)
    assert done.outcome == "done"
    assert_restored(cluster)
    assert all(sum(split.values()) == 100 for split in cluster.splits)


def test_a_stable_content_that_does_not_come_up_is_told_and_traffic_stays_safe() -> None:
    cluster = during_a_canary()
    cluster.bad.add("s3://models/1")
    done = rolled_back(cluster, deadline=60.0)
    assert done.outcome == "held"
    assert "cannot load" in done.why
    assert shares(cluster.service) == {"01": 100}
    cluster.bad.clear()
    cluster.world.answer(cluster.service, "m-predictor-00003")
    assert rolled_back(cluster).outcome == "done"
    assert_restored(cluster)


def test_a_setting_taken_back_does_not_deny_the_model() -> None:
    cluster = Cluster()
    deployed(cluster, 1)
    cluster.touch(timeout=1, canaryTrafficPercent=50)
    cluster.settle()
    assert shares(cluster.service) == {"01": 50, "02": 50}
    done = rolled_back(cluster)
    assert (done.outcome, done.denied) == ("done", False)
    assert release.denial(cluster.state, digest(1)) is None
    assert "timeout" not in cluster.service["spec"]["predictor"]


def test_a_canary_that_only_failed_to_start_may_be_taken_back_without_being_denied() -> None:
    cluster = never_ready()
    token = Token(cluster.state.epoch, "deploy run2")
    done = rolled_back(cluster, token=token, deny=False)
    assert (done.outcome, done.denied) == ("done", False)
    assert [entry.verdict for entry in cluster.state.history] == [release.PROMOTED, release.FAILED]
    cluster.bad.clear()
    deployed(cluster, 2, 10)
    assert shares(cluster.service) == {"03": 90, "04": 10}


def test_a_service_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="no InferenceService 'm' in namespace 'ns'"):
        rolled_back(Cluster())
