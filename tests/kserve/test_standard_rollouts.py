"""Standard mode on a real API, a real Envoy and real servers: what is asked for, what answers, what the status says."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.gateway.rig import binomial_interval
from tests.kserve.rig import Namespace, component, condition, ready, wait
from tests.kserve.standard_rig import (
    DEPLOYMENTS,
    all_ready,
    canaries,
    canary,
    deploy,
    predict,
    promote,
    routed,
    statuses,
    weights,
)

pytestmark = pytest.mark.destructive


def test_a_first_deployment_serves_and_tells_where(ns: Namespace) -> None:
    status = deploy(ns, "one")["status"]
    assert status["deploymentMode"] == "Standard"
    assert status["clusterServingRuntimeName"] == "fake"
    assert condition(status, "PredictorReady")["reason"] == "NewReplicaSetAvailable"
    assert predict(ns)[:2] == ("one", "m-predictor")
    for url in (status["url"], component(status)["url"]):
        assert predict(ns, url.removeprefix("http://").partition(":")[0])[0] == "one"
    path = status["address"]["url"].partition(f":{ns.sandbox.envoy.port}")[2]
    client = ns.client()
    assert client.get(f"{path}/v1/models/m", host="127.0.0.1").json == {"name": "m"}
    client.close()
    routed(ns, {"m-predictor": 1})


def test_a_canary_gets_its_share_and_no_more(ns: Namespace) -> None:
    deploy(ns, "one")
    canaries(ns, canary(ns, "v2", "two", 25))
    all_ready(ns, v2=25)
    routed(ns, {"m-predictor": 75, "m-v2-predictor": 25})
    asked = 2000
    client = ns.client()
    counted = Counter(client.get(host=f"m.{ns.name}.localhost").revision for _ in range(asked))
    client.close()
    lowest, highest = binomial_interval(asked, 0.25)
    assert lowest <= counted["m-v2-predictor"] <= highest
    assert sum(counted.values()) == asked
    assert set(counted) == {"m-predictor", "m-v2-predictor"}


@pytest.mark.parametrize("domain", ["localhost", "svc.cluster.local"])
def test_at_zero_percent_a_canary_answers_by_its_own_service_alone(ns: Namespace, domain: str) -> None:
    deploy(ns, "one")
    canaries(ns, canary(ns, "v2", "two", 0))
    all_ready(ns, v2=0)
    assert predict(ns, f"m-v2-predictor.{ns.name}.{domain}")[:2] == ("two", "m-v2-predictor")
    assert {predict(ns)[0] for _ in range(50)} == {"one"}
    routed(ns, {"m-predictor": 100, "m-v2-predictor": 0})


def test_the_predictors_own_service_takes_no_part_in_the_split(ns: Namespace) -> None:
    deploy(ns, "one")
    canaries(ns, canary(ns, "v2", "two", 100))
    all_ready(ns, v2=100)
    routed(ns, {"m-predictor": 0, "m-v2-predictor": 100})
    assert {predict(ns)[0] for _ in range(20)} == {"two"}
    assert {predict(ns, f"m-predictor.{ns.name}.svc.cluster.local")[0] for _ in range(20)} == {"one"}


def test_two_canaries_share_with_stable_and_each_can_go_alone(ns: Namespace) -> None:
    deploy(ns, "one")
    second, third = canary(ns, "v2", "two", 30), canary(ns, "v3", "three", 20)
    canaries(ns, second, third)
    all_ready(ns, v2=30, v3=20)
    routed(ns, {"m-predictor": 50, "m-v2-predictor": 30, "m-v3-predictor": 20})
    assert {predict(ns)[0] for _ in range(200)} == {"one", "two", "three"}
    with ns.load() as load:
        canaries(ns, third)
        all_ready(ns, v3=20)
        wait(lambda: len(ns.servers()) == 2, "the removed canary's server is gone")
    assert (load.failed, load.broken) == ([], [])


def test_promotion_restarts_nothing_and_fails_no_request(ns: Namespace) -> None:
    deploy(ns, "one")
    canaries(ns, canary(ns, "v2", "two", 50))
    all_ready(ns, v2=50)
    before = predict(ns, f"m-v2-predictor.{ns.name}.localhost")
    with ns.load() as load:
        promote(ns, "v2", "two")
        status = ns.wait("promoted", lambda s: ready(s) and "m-v2-" in component(s).get("url", ""))["status"]
        wait(lambda: len(ns.servers()) == 1, "the old predictor's server is gone")
    assert (load.failed, load.broken) == ([], [])
    assert predict(ns) == before
    assert ("canaryStatuses" in status, condition(status, "CanaryPredictorReady")) == (False, {})
    assert status["address"]["url"].endswith("/m-v2-predictor")
    routed(ns, {"m-v2-predictor": 1})
    deployments = ns.items(DEPLOYMENTS.format(ns.name))
    assert [one["metadata"]["name"] for one in deployments] == ["m-v2-predictor"]
    assert deployments[0]["metadata"]["generation"] == 1


def test_taking_a_canary_back_fails_no_request(ns: Namespace) -> None:
    deploy(ns, "one")
    canaries(ns, canary(ns, "v2", "two", 50))
    all_ready(ns, v2=50)
    before = predict(ns, f"m-predictor.{ns.name}.svc.cluster.local")
    with ns.load() as load:
        wait(lambda: len({answer.revision for answer in load.answers}) == 2, "both answer")
        canaries(ns)
        all_ready(ns)
        after = len(load.answers)
        wait(lambda: len(load.answers) > after + 100, "requests after the rollback")
    assert (load.failed, load.broken) == ([], [])
    # One request of each connection may have been on its way when the status was read, for as long as it takes.
    revisions = Counter(answer.revision for answer in load.answers[after:])
    assert revisions.pop("m-v2-predictor", 0) <= len(load.threads)
    assert set(revisions) == {"m-predictor"}
    assert predict(ns) == before
    wait(lambda: len(ns.servers()) == 1, "the canary's server is gone")


def test_a_rollback_after_promotion_to_another_name_is_a_cold_start(ns: Namespace) -> None:
    deploy(ns, "one")
    canaries(ns, canary(ns, "v2", "two", 50))
    all_ready(ns, v2=50)
    first = predict(ns, f"m-predictor.{ns.name}.svc.cluster.local")
    promote(ns, "v2", "two")
    ns.wait("promoted", lambda s: ready(s) and "m-v2-" in component(s).get("url", ""))
    promote(ns, "v1", "one")
    status = ns.wait("not ready", lambda s: condition(s, "Ready")["status"] == "False")["status"]
    assert condition(status, "PredictorReady")["status"] == "False"
    ns.wait("rolled back", lambda s: ready(s) and "m-v1-" in component(s).get("url", ""))
    version, revision, process = predict(ns)
    assert (version, revision) == ("one", "m-v1-predictor")
    assert process != first[2]


def test_a_new_model_in_place_replaces_the_server_without_a_failed_request(ns: Namespace) -> None:
    deploy(ns, "one")
    first = predict(ns)
    with ns.load() as load:
        ns.patch({"spec": {"predictor": {"model": {"storageUri": ns.sandbox.model("two")}}}})
        wait(lambda: predict(ns)[0] == "two", "the new one answers")
        wait(lambda: len(ns.servers()) == 1, "the old server is gone")
    assert (load.failed, load.broken) == ([], [])
    assert predict(ns)[1] == first[1] == "m-predictor"
    assert condition(ns.wait("ready", ready)["status"], "PredictorReady")["reason"] == "NewReplicaSetAvailable"


def test_an_annotation_restarts_every_deployment_and_a_percentage_none(ns: Namespace) -> None:
    deploy(ns, "one")
    canaries(ns, canary(ns, "v2", "two", 10))
    all_ready(ns, v2=10)
    before = {name: server["pid"] for name, server in ns.servers().items()}
    canaries(ns, canary(ns, "v2", "two", 40))
    all_ready(ns, v2=40)
    ns.patch({"spec": {"predictor": {"canaryTrafficPercent": 10}}})
    routed(ns, {"m-predictor": 60, "m-v2-predictor": 40})
    assert {name: server["pid"] for name, server in ns.servers().items()} == before
    with ns.load() as load:
        ns.annotate("example.com/any", "x")
        wait(lambda: len(ns.servers()) == 2 and not set(ns.servers()) & set(before), "two other servers")
        all_ready(ns, v2=40)
    assert (load.failed, load.broken) == ([], [])


def test_a_canary_that_cannot_load_gets_nothing_and_ready_stays(ns: Namespace) -> None:
    deploy(ns, "one")
    with ns.load() as load:
        canaries(ns, canary(ns, "bad", "broken", 30))
        status = ns.wait("told", lambda s: statuses(s) == {"bad": (30, False)})["status"]
        wait(lambda: "BackOff" in ns.events(), "an event tells that it ended")
    assert (load.failed, load.broken) == ([], [])
    assert {answer.revision for answer in load.answers} == {"m-predictor"}
    assert condition(status, "CanaryPredictorReady")["reason"] == "CanariesNotReady"
    assert condition(status, "Ready")["status"] == "True"
    routed(ns, {"m-predictor": 100})
    assert predict(ns, f"m-bad-predictor.{ns.name}.localhost")[0] in ("revision-not-ready", "revision-unreachable")
    canaries(ns, canary(ns, "bad", "two", 30))
    all_ready(ns, bad=30)
    routed(ns, {"m-predictor": 70, "m-bad-predictor": 30})


def test_a_new_model_that_never_listens_leaves_the_old_one_serving(ns: Namespace) -> None:
    deploy(ns, "one", {"serving.knative.dev/progress-deadline": "2s"})
    first = predict(ns)
    ns.patch({"spec": {"predictor": {"model": {"storageUri": ns.sandbox.model("silent")}}}})
    status = ns.wait("given up", lambda s: condition(s, "Ready")["status"] == "False")["status"]
    assert condition(status, "PredictorReady")["reason"] == "ProgressDeadlineExceeded"
    assert {predict(ns) for _ in range(20)} == {first}
    ns.patch({"spec": {"predictor": {"model": {"storageUri": ns.sandbox.model("one")}}}})
    ns.wait("ready again", ready)
    assert predict(ns) == first
    ns.patch({"spec": {"predictor": {"model": {"storageUri": ns.sandbox.model("two")}}}})
    ns.wait("ready", ready)
    wait(lambda: predict(ns)[0] == "two", "the mended one answers")


def test_a_predictor_that_cannot_load_is_not_ready_and_says_why(ns: Namespace) -> None:
    ns.create("broken", annotations={"serving.kserve.io/deploymentMode": "RawDeployment"})
    blocked = ns.wait(
        "blocked", lambda s: (s.get("modelStatus") or {}).get("transitionStatus") == "BlockedByFailedLoad"
    )
    status = blocked["status"]
    assert (condition(status, "Ready")["status"], status["deploymentMode"]) == ("False", "Standard")
    assert condition(status, "PredictorReady")["reason"] == "MinimumReplicasUnavailable"
    failure = status["modelStatus"]["lastFailureInfo"]
    assert (failure["reason"], failure["exitCode"]) == ("ModelLoadFailed", 3)
    assert predict(ns)[0] == "no-service"
    assert weights(ns) == {}
    ns.patch({"spec": {"predictor": {"model": {"storageUri": ns.sandbox.model("one")}}}})
    ns.wait("mended", ready)
    assert predict(ns)[0] == "one"


def test_stopped_it_answers_nothing_and_resumed_it_serves_again(ns: Namespace) -> None:
    deploy(ns, "one")
    canaries(ns, canary(ns, "v2", "two", 50))
    all_ready(ns, v2=50)
    ns.annotate("serving.kserve.io/stop", "true")
    status = ns.wait("stopped", lambda s: condition(s, "CanaryPredictorReady").get("reason") == "Stopped")["status"]
    assert (condition(status, "Stopped")["status"], condition(status, "Ready")["reason"]) == ("True", "Stopped")
    wait(lambda: ns.servers() == {}, "the servers are gone")
    assert predict(ns)[0] == "no-service"
    wait(lambda: ns.items(DEPLOYMENTS.format(ns.name)) == [] and weights(ns) == {}, "Deployments and routes are gone")
    ns.annotate("serving.kserve.io/stop", "false")
    ns.wait("resumed", ready)
    all_ready(ns, v2=50)
    assert {predict(ns)[0] for _ in range(100)} == {"one", "two"}


def test_a_deleted_service_leaves_nothing(ns: Namespace) -> None:
    deploy(ns, "one")
    canaries(ns, canary(ns, "v2", "two", 50))
    all_ready(ns, v2=50)
    kinds = (DEPLOYMENTS, "/api/v1/namespaces/{}/pods", "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers")
    paths = [kind.format(ns.name) for kind in (*kinds, "/api/v1/namespaces/{}/services")]
    wait(lambda: all(len(ns.items(path)) == 2 for path in paths), "two of each kind")
    ns.delete()
    wait(lambda: ns.sandbox.api.get(f"{ns.path}/m").status_code == 404, "the object is gone")
    wait(lambda: ns.servers() == {} and all(ns.items(path) == [] for path in paths), "everything is gone")
    assert predict(ns)[0] == "no-service"
