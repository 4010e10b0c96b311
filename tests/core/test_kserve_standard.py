"""Standard mode, trap by trap. Which test holds which trap of both modes stands in kanary/kserve/README.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kanary import manifests, release
from kanary.errors import InputError, KanaryError
from kanary.kserve import deploy, rollback, standard, steer
from kanary.kserve.deploy import Ready, Started
from kanary.kserve.rollback import Rollback
from kanary.kserve.status import service_status
from kanary.operations import Request
from tests.core.cluster import NAMESPACE, Killed, digest, path
from tests.core.standard_cluster import StandardCluster, manifest, named

FIRST = "m-predictor"


def start(cluster: StandardCluster, number: int, kill_after: int | None = None, **more: Any) -> Started:
    act = deploy.start_canary(manifest(number, **more), run_id=f"run{number}", clock=cluster.clock)
    return cluster.run(act, kill_after)


def ready(cluster: StandardCluster, started: Started, **more: Any) -> Ready:
    return cluster.run(deploy.wait_ready(started, clock=cluster.clock, **more))


def deployed(cluster: StandardCluster, number: int, percent: int = 0, **more: Any) -> Ready:
    started = start(cluster, number, **more)
    found = ready(cluster, started)
    if percent:
        cluster.run(steer.set_traffic("m", NAMESPACE, percent, token=started.token, clock=cluster.clock))
    cluster.run(deploy.finish(started))
    return found


def promoted(cluster: StandardCluster) -> steer.Moved:
    return cluster.run(steer.promote("m", NAMESPACE, clock=cluster.clock))


def rolled_back(cluster: StandardCluster, kill_after: int | None = None, **more: Any) -> Rollback:
    act = rollback.rollback("m", NAMESPACE, "it is wrong", clock=cluster.clock, **more)
    return cluster.run(act, kill_after)


def patch(cluster: StandardCluster, spec: dict[str, Any]) -> None:
    cluster.send(Request("PATCH", path("m"), body={"spec": spec}))


def during_a_canary() -> StandardCluster:
    cluster = StandardCluster()
    deployed(cluster, 1)
    deployed(cluster, 2, 10)
    return cluster


def after_a_promotion() -> StandardCluster:
    cluster = during_a_canary()
    promoted(cluster)
    return cluster


def never_ready() -> StandardCluster:
    cluster = StandardCluster(bad={"s3://models/2"})
    deployed(cluster, 1)
    started = start(cluster, 2)
    with pytest.raises(KanaryError, match="CrashLoopBackOff: exit code 3: cannot load"):
        ready(cluster, started)
    return cluster


def hanging() -> StandardCluster:
    cluster = StandardCluster(slow={"s3://models/2"})
    deployed(cluster, 1)
    start(cluster, 2)
    return cluster


def changed_in_place() -> StandardCluster:
    """kubectl apply of v2 under the predictor's own name, not ready yet: it would take everything."""
    cluster = StandardCluster(slow={"s3://models/2"})
    deployed(cluster, 1)
    patch(cluster, {"predictor": manifests.content(manifest(2))})
    return cluster


SITUATIONS = [during_a_canary, after_a_promotion, never_ready, hanging, changed_in_place]


def assert_restored(cluster: StandardCluster) -> None:
    content = manifests.content(cluster.service)
    assert manifests.model_digest(content) == digest(1)
    assert not manifests.merge_patch(content, manifests.content(manifest(1)))
    assert not cluster.service["spec"].get("canary")
    assert sum(cluster.split.values()) == 100
    assert len(cluster.split) == 1
    assert release.denial(cluster.state, digest(2)) is not None
    assert cluster.state.intent is not None
    assert cluster.state.intent.phase == release.DONE


def test_the_first_release_is_the_predictor_and_takes_everything() -> None:
    cluster = StandardCluster()
    found = deployed(cluster, 1)
    assert (found.revision, cluster.split) == (FIRST, {FIRST: 100})
    assert "canary" not in cluster.service["spec"]
    assert "canaryTrafficPercent" not in cluster.service["spec"]["predictor"]
    (entry,) = cluster.state.history
    assert (entry.revision, entry.verdict) == (FIRST, release.PROMOTED)


def test_a_canary_stands_beside_stable_at_zero_percent_with_a_replica() -> None:
    cluster = StandardCluster()
    deployed(cluster, 1)
    found = deployed(cluster, 2)
    (entry,) = cluster.service["spec"]["canary"]
    assert (entry["trafficPercent"], entry["predictor"]["minReplicas"]) == (0, 1)
    assert found.revision == named(2)
    assert found.url == f"http://{named(2)}"
    assert cluster.split == {FIRST: 100}
    assert manifests.model_digest(manifests.stable_content(cluster.service)) == digest(1)
    moved = cluster.run(steer.set_traffic("m", NAMESPACE, 10, clock=cluster.clock))
    assert (moved.in_force, moved.after.split) == (True, {FIRST: 90, named(2): 10})
    assert [(one.role, one.version) for one in moved.after.revisions] == [("stable", "v1"), ("canary", "v2")]


def test_a_name_comes_from_the_digest_and_differs_from_stables() -> None:
    content = manifests.content(manifest(2))
    name = manifests.canary_name(content, "")
    assert name == manifests.canary_name(content, "other") == manifests.canary_name(dict(content), "")
    assert manifests.canary_name(content, name) != name
    assert manifests.canary_name(manifests.content(manifest(3)), "") != name
    assert len(f"{'x' * 40}-{name}-predictor") <= 63


def test_a_promotion_restarts_nothing_and_fails_nothing() -> None:
    cluster = during_a_canary()
    servers = dict(cluster.world.servers)
    moved = promoted(cluster)
    assert moved.in_force
    assert cluster.split == {named(2): 100}
    predictor = cluster.service["spec"]["predictor"]
    assert f"m-{predictor['name']}-predictor" == named(2)
    assert cluster.service["spec"]["canary"] == []
    (kept,) = [name for name in cluster.world.servers if name.startswith(named(2))]
    assert kept in servers
    assert [entry.verdict for entry in cluster.state.history] == [release.PROMOTED, release.PROMOTED]


def test_a_canary_may_not_set_what_scales_and_keeps_stables_when_it_is_promoted() -> None:
    cluster = StandardCluster()
    deployed(cluster, 1, min_replicas=4, max_replicas=9)
    deployed(cluster, 2, min_replicas=2, max_replicas=3)
    (entry,) = cluster.service["spec"]["canary"]
    assert "maxReplicas" not in entry["predictor"]
    promoted(cluster)
    predictor = cluster.service["spec"]["predictor"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (4, 9)


def test_a_canary_gets_replicas_for_its_share_and_never_more_than_stable_asks_for() -> None:
    cluster = StandardCluster()
    deployed(cluster, 1, min_replicas=4)
    deployed(cluster, 2)
    for percent, replicas in ((5, 1), (50, 2), (51, 3), (99, 4)):
        moved = cluster.run(steer.set_traffic("m", NAMESPACE, percent, clock=cluster.clock))
        assert moved.in_force
        assert cluster.service["spec"]["canary"][0]["predictor"]["minReplicas"] == replicas
    assert "stable keeps 1 of its 4 replicas" in "; ".join(moved.after.notes)


def test_without_a_replica_of_stable_and_an_autoscaler_a_canary_is_refused() -> None:
    cluster = StandardCluster()
    document = manifest(1)
    document["metadata"]["annotations"][manifests.AUTOSCALER] = "none"
    cluster.run(deploy.start_canary(document, clock=cluster.clock))
    cluster.settle()
    patch(cluster, {"predictor": {"minReplicas": 0}})
    with pytest.raises(InputError, match="A canary of ns/m would have no replica"):
        manifests.canary_entry(cluster.service, manifests.content(manifest(2)), 0)


def test_kserve_0_20_0_sets_no_weights_and_that_is_told() -> None:
    cluster = StandardCluster()
    cluster.world.release = "0.20.0"
    deployed(cluster, 1)
    deployed(cluster, 2)
    moved = cluster.run(steer.set_traffic("m", NAMESPACE, 50, deadline=20.0, clock=cluster.clock))
    assert not moved.in_force
    assert (moved.after.requested, moved.after.effective, moved.after.split) == (50, 0, {FIRST: 100})
    assert "the HTTPRoute has no weight for the canary" in moved.why


def test_after_a_promotion_in_0_20_0_the_route_has_another_name() -> None:
    cluster = StandardCluster()
    cluster.world.release = "0.20.0"
    deployed(cluster, 1)
    deployed(cluster, 2)
    moved = promoted(cluster)
    assert (moved.in_force, moved.after.split) == (True, {named(2): 100})


def test_without_gateway_api_no_weight_is_in_force() -> None:
    cluster = StandardCluster(gateway=False)
    deployed(cluster, 1)
    deployed(cluster, 2)
    moved = cluster.run(steer.set_traffic("m", NAMESPACE, 50, deadline=20.0, clock=cluster.clock))
    assert (moved.in_force, moved.after.split) == (False, {FIRST: 100})
    assert "there is no HTTPRoute" in moved.why


def test_a_route_that_the_gateway_has_not_accepted_is_not_in_force() -> None:
    cluster = StandardCluster()
    deployed(cluster, 1)
    deployed(cluster, 2)
    cluster.accepted = False
    moved = cluster.run(steer.set_traffic("m", NAMESPACE, 50, deadline=20.0, clock=cluster.clock))
    assert not moved.in_force
    assert "has not accepted" in moved.why


def test_a_percentage_of_knative_mode_is_told_to_mean_nothing() -> None:
    cluster = StandardCluster()
    deployed(cluster, 1)
    patch(cluster, {"predictor": {manifests.PERCENT: 10}})
    found = cluster.run(steer.status("m", NAMESPACE))
    assert found.requested is None
    assert "KServe ignores it" in "; ".join(found.notes)
    with pytest.raises(InputError, match="means nothing in Standard mode"):
        manifests.inference_service("m", "ns", "s3://m/1", "v1", "d", 10, mode="Standard")


def test_ready_stays_true_beside_a_failing_canary_and_is_not_believed() -> None:
    cluster = never_ready()
    conditions = {one["type"]: one["status"] for one in cluster.service["status"]["conditions"]}
    assert (conditions["Ready"], conditions["CanaryPredictorReady"]) == ("True", "False")
    found = cluster.run(steer.status("m", NAMESPACE))
    assert (found.ready, found.canary_ready) == (True, False)
    assert "exit code 3" in found.failure
    assert cluster.split == {FIRST: 100}
    with pytest.raises(KanaryError, match="is not ready"):
        cluster.run(steer.set_traffic("m", NAMESPACE, 10, clock=cluster.clock))


def test_a_canary_that_loses_its_server_is_not_counted_as_having_its_share() -> None:
    cluster = during_a_canary()
    (name,) = [name for name in cluster.world.servers if name.startswith(named(2))]
    cluster.world.answer(cluster.service | {"metadata": cluster.service["metadata"] | {"uid": "u"}}, name, ready=False)
    cluster.settle()
    found = cluster.run(steer.status("m", NAMESPACE))
    assert (found.requested, found.effective, found.canary_ready) == (10, 0, False)
    assert "10 % requested, 0 % effective: canary not ready" in found.notes


@pytest.mark.parametrize("component", ["transformer", "explainer"])
def test_a_share_past_a_transformer_or_an_explainer_is_refused(component: str) -> None:
    cluster = during_a_canary()
    service = cluster.service
    service["spec"][component] = {"containers": [{"name": "c"}]}
    for act in (
        deploy.start_canary(manifest(3), clock=cluster.clock),
        steer.set_traffic("m", NAMESPACE, 20, clock=cluster.clock),
    ):
        with pytest.raises(KanaryError, match=f"{component}: in Standard mode KServe sends"):
            cluster.run(act)


def test_several_canaries_are_told_and_not_steered() -> None:
    cluster = during_a_canary()
    third = manifests.canary_entry(cluster.service, manifests.content(manifest(3)), 5)
    cluster.service["spec"]["canary"].append(third)
    assert "2 canaries" in "; ".join(cluster.run(steer.status("m", NAMESPACE)).notes)
    with pytest.raises(KanaryError, match="has several canaries"):
        cluster.run(steer.set_traffic("m", NAMESPACE, 20, clock=cluster.clock))
    assert rolled_back(cluster).outcome == "done"
    assert cluster.service["spec"]["canary"] == []


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_rollback_restores_traffic_and_content(situation: Any) -> None:
    cluster = situation()
    done = rolled_back(cluster)
    assert (done.outcome, done.bad_version, done.target_version) == ("done", "v2", "v1")
    assert done.effective is not None
    assert_restored(cluster)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_killed_anywhere_and_run_again_it_goes_on(situation: Any) -> None:
    for kill_after in range(20):
        cluster = situation()
        try:
            rolled_back(cluster, kill_after)
        except Killed:
            rolled_back(cluster)
            assert_restored(cluster)
        else:
            assert kill_after > 2
            return
    raise AssertionError("it never came to its end")


def test_a_rollback_during_a_canary_is_one_patch() -> None:
    cluster = during_a_canary()
    cluster.sent.clear()
    rolled_back(cluster)
    patches = [request.body for request in cluster.sent if request.method == "PATCH"]
    assert [body["spec"] for body in patches] == [{"canary": []}]
    assert cluster.deployments() == {FIRST}


def test_after_a_promotion_traffic_stays_until_the_old_content_is_up_again() -> None:
    """The old Deployment is gone: its content comes up as a canary, and is promoted when it is ready."""
    cluster = after_a_promotion()
    assert cluster.deployments() == {named(2)}
    cluster.splits.clear()
    said: list[str] = []
    done = rolled_back(cluster, on_progress=lambda step: said.append(step.text))
    assert done.outcome == "done"
    assert cluster.split == {named(1): 100}
    assert all(sum(split.values()) == 100 for split in cluster.splits)
    assert "has come up anew" in said[0]


def test_where_the_old_content_does_not_come_up_the_traffic_stays_where_it_is() -> None:
    cluster = after_a_promotion()
    cluster.slow.add("s3://models/1")
    done = rolled_back(cluster, deadline=30.0)
    assert (done.outcome, cluster.split) == ("held", {named(2): 100})
    cluster.slow.clear()
    for deployment, _ in list(cluster.world.starting()):
        assert deployment == named(1)
    assert rolled_back(cluster).outcome == "done"
    assert_restored(cluster)


def test_nothing_of_the_services_own_annotations_or_labels_is_ever_written() -> None:
    cluster = after_a_promotion()
    rolled_back(cluster)
    bodies = [r.body for r in cluster.sent if r.method == "PATCH"]
    assert bodies
    assert all(set(body["metadata"]) == {"resourceVersion"} for body in bodies)


def test_the_services_own_mode_is_kept_and_another_is_refused() -> None:
    cluster = StandardCluster()
    assert cluster.run(deploy.mode_for("m", NAMESPACE)) == "Knative"
    assert cluster.run(deploy.mode_for("m", NAMESPACE, "Standard")) == "Standard"
    deployed(cluster, 1)
    assert cluster.run(deploy.mode_for("m", NAMESPACE)) == "Standard"
    with pytest.raises(InputError, match="ns/m runs in KServe's mode Standard, and Knative is asked for"):
        cluster.run(deploy.mode_for("m", NAMESPACE, "Knative"))


def test_a_server_that_runs_again_after_a_crash_is_not_called_a_failure() -> None:
    cluster = never_ready()
    crashed = {"lastState": {"terminated": {"exitCode": 3, "message": "cannot load"}}}

    def failure(state: dict[str, Any]) -> str:
        pods = [{"status": {"containerStatuses": [crashed | {"state": state}]}}]
        return service_status(cluster.service | {standard.PODS: pods}).failure

    assert failure({"running": {"startedAt": "now"}}) == ""
    assert failure({"waiting": {"reason": "CrashLoopBackOff"}}) == "CrashLoopBackOff: exit code 3: cannot load"
    assert failure({"waiting": {"reason": "ContainerCreating"}}) == ""


def test_every_trap_that_the_readme_names_has_the_test_that_it_names() -> None:
    root = Path(__file__).parents[2]
    readme = (root / "kanary" / "kserve" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", readme.partition("## Traps")[2]))
    tests = "".join(path.read_text(encoding="utf-8") for path in (root / "tests" / "core").glob("test_*.py"))
    assert len(named) > 30
    assert not {name for name in named if f"def {name}(" not in tests}
