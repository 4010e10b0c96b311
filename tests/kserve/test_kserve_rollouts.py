"""Rollouts on a real API, a real Envoy and real servers: what is asked for, what answers, what the status says."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest

from tests.gateway.rig import binomial_interval
from tests.kserve.rig import Namespace, component, condition, ready, shares, wait

pytestmark = pytest.mark.destructive


def test_a_first_deployment_serves_and_tells_where(ns: Namespace) -> None:
    ns.create("one")
    status = ns.settled({"01": 100})["status"]
    assert ns.ask() == (200, "m-predictor-00001")
    assert component(status)["latestRolledoutRevision"] == "m-predictor-00001"
    assert status["clusterServingRuntimeName"] == "fake"
    client = ns.client()
    host = status["url"].removeprefix("http://").partition(":")[0]
    path = status["address"]["url"].partition(f":{ns.sandbox.envoy.port}")[2]
    body = client.get("/v1/models/m:predict", host=host, body=b'{"instances": [1, 2]}').json
    assert body["predictions"] == ["one", "one"]
    assert client.get(f"{path}/v1/models/m", host="127.0.0.1").json == {"name": "m"}
    client.close()


def test_a_canary_gets_its_share_and_no_more(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    ns.deploy("two", 10)
    status = ns.settled({"01": 90, "02": 10})["status"]
    assert [target.get("tag") for target in component(status)["traffic"]] == [None, "prev"]
    asked = 2000
    client = ns.client()
    counted = Counter(client.get(host=f"m.{ns.name}.localhost").revision for _ in range(asked))
    client.close()
    lowest, highest = binomial_interval(asked, 0.1)
    assert lowest <= counted["m-predictor-00002"] <= highest
    assert sum(counted.values()) == asked
    prev = component(status)["traffic"][1]["url"].removeprefix("http://").partition(":")[0]
    assert ns.ask(prev) == (200, "m-predictor-00001")


def test_with_tag_routing_a_canary_at_zero_answers_by_its_tag_alone(ns: Namespace) -> None:
    ns.create("one", annotations={"serving.kserve.io/enable-tag-routing": "true"})
    ns.settled({"01": 100})
    ns.deploy("two", 0)
    status = ns.wait(
        "the canary is ready", lambda s: component(s).get("latestReadyRevision", "")[-1:] == "2" and ready(s)
    )
    latest = component(status["status"])["traffic"][0]
    assert (latest["tag"], latest["percent"], latest["revisionName"]) == ("latest", 0, "m-predictor-00002")
    assert ns.ask(latest["url"].removeprefix("http://").partition(":")[0]) == (200, "m-predictor-00002")
    assert {ns.ask() for _ in range(50)} == {(200, "m-predictor-00001")}


@pytest.mark.parametrize("percent", [None, 100])
def test_a_promoted_canary_takes_everything_and_the_old_one_is_scaled_to_zero(
    ns: Namespace, percent: int | None
) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    ns.deploy("two", 10)
    ns.settled({"01": 90, "02": 10})
    with ns.load() as load:
        ns.percent(percent)
        status = ns.settled({"02": 100})["status"]
        wait(lambda: ns.servers()["m-predictor-00001"]["state"] == "stopped", "revision 1 is stopped")
    assert (load.failed, load.broken) == ([], [])
    remembered = (component(status)["latestRolledoutRevision"], component(status)["previousRolledoutRevision"])
    assert remembered == ("m-predictor-00002", "m-predictor-00001")
    assert {ns.ask() for _ in range(20)} == {(200, "m-predictor-00002")}


def test_rolling_a_canary_back_fails_no_request(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    ns.deploy("two", 50)
    ns.settled({"01": 50, "02": 50})
    with ns.load() as load:
        wait(lambda: len({answer.revision for answer in load.answers}) == 2, "both revisions answer")
        ns.percent(0)
        ns.settled({"01": 100})
        after = len(load.answers)
        wait(lambda: len(load.answers) > after + 100, "requests after the rollback")
    assert (load.failed, load.broken) == ([], [])
    # One request of each connection may have been on its way when the status was read, for as long as it takes.
    revisions = Counter(answer.revision for answer in load.answers[after:])
    assert revisions.pop("m-predictor-00002", 0) <= len(load.threads)
    assert set(revisions) == {"m-predictor-00001"}


def test_a_rollback_after_promotion_starts_the_old_revision_before_it_gets_traffic(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    ns.deploy("two", None)
    ns.settled({"02": 100})
    wait(lambda: ns.servers()["m-predictor-00001"]["state"] == "stopped", "revision 1 is stopped")
    with ns.load() as load:
        ns.percent(0)
        status = ns.settled({"01": 100})["status"]
    assert (load.failed, load.broken) == ([], [])
    assert ns.ask() == (200, "m-predictor-00001")
    assert component(status)["latestRolledoutRevision"] == "m-predictor-00001"


def test_a_canary_that_cannot_load_leaves_stable_at_everything(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    with ns.load() as load:
        ns.deploy("broken", 10)
        blocked = ns.wait("blocked", lambda s: s["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad")["status"]
    assert (load.failed, load.broken) == ([], [])
    assert {answer.revision for answer in load.answers} == {"m-predictor-00001"}
    failure = blocked["modelStatus"]["lastFailureInfo"]
    assert (failure["reason"], failure["exitCode"]) == ("ModelLoadFailed", 3)
    assert failure["message"].endswith("cannot load\n")
    assert shares(blocked) == {"m-predictor-00001": 100}
    assert component(blocked)["latestCreatedRevision"] != component(blocked)["latestReadyRevision"]
    assert condition(blocked, "Ready")["status"] == "Unknown"
    wait(lambda: "BackOff" in ns.events(), "an event tells it")
    ns.deploy("one", None)
    ns.settled({"03": 100})


def test_pods_and_revisions_can_be_read_and_a_pod_shows_the_servers_log(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    ns.deploy("two", 10)
    ns.settled({"01": 90, "02": 10})
    pods, revisions = (
        f"/api/v1/namespaces/{ns.name}/pods",
        f"/apis/serving.knative.dev/v1/namespaces/{ns.name}/revisions",
    )
    wait(lambda: len(ns.items(pods)) == len(ns.items(revisions)) == 2, "two pods, two revisions")
    wait(lambda: all((pod.get("status") or {}).get("phase") == "Running" for pod in ns.items(pods)), "the pods run")
    logs = [ns.sandbox.api.get(f"{pods}/{pod['metadata']['name']}/log").text for pod in ns.items(pods)]
    assert sorted(logs) == ["serving one\n", "serving two\n"]
    ns.percent(None)
    wait(lambda: len(ns.items(pods)) == 1, "the pod of the old revision goes with its server")
    ns.delete()
    wait(lambda: ns.items(pods) == ns.items(revisions) == [], "everything goes with the service")


def test_a_canary_that_never_listens_is_given_up_at_the_progress_deadline(ns: Namespace) -> None:
    ns.create("one", annotations={"serving.knative.dev/progress-deadline": "2s"})
    ns.settled({"01": 100})
    ns.deploy("silent", 10)
    status = ns.wait("given up", lambda s: condition(s, "Ready")["status"] == "False")["status"]
    assert condition(status, "PredictorReady")["reason"] == "RevisionFailed"
    assert shares(status) == {"m-predictor-00001": 100}
    assert ns.ask() == (200, "m-predictor-00001")


def test_a_replaced_canary_hands_over_only_when_its_successor_is_ready(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    ns.deploy("two", 50)
    ns.settled({"01": 50, "02": 50})
    with ns.load() as load:
        ns.deploy("three", 30)
        ns.settled({"01": 70, "03": 30})
        wait(lambda: ns.servers()["m-predictor-00002"]["state"] == "stopped", "revision 2 is stopped")
    assert (load.failed, load.broken) == ([], [])


def test_an_annotation_makes_a_revision_and_kubectls_own_does_not(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    ns.annotate("kubectl.kubernetes.io/last-applied-configuration", "{}")
    ns.annotate("example.com/any", "x")
    ns.settled({"02": 100})


def test_keys_on_the_config_maps_list_make_no_revision(ns: Namespace) -> None:
    listed = '{"serviceAnnotationDisallowedList": ["example.com/state"]}'
    with ns.sandbox.config_map("kserve", "inferenceservice-config", {"inferenceService": listed}):
        ns.create("one")
        ns.settled({"01": 100})
        ns.annotate("example.com/state", "x")
        ns.annotate("example.com/other", "x")
        assert len(ns.settled({"02": 100})["status"]["conditions"]) == 8


def test_idle_revisions_are_collected_as_knatives_config_map_says(ns: Namespace) -> None:
    settings = {f"retain-since-{what}-time": "disabled" for what in ("create", "last-active")}
    ns.create("one")
    ns.settled({"01": 100})
    ns.deploy("two", None)
    ns.settled({"02": 100})
    with ns.sandbox.config_map(
        "knative-serving",
        "config-gc",
        settings | dict.fromkeys(("min-non-active-revisions", "max-non-active-revisions"), "0"),
    ):
        wait(lambda: sorted(ns.servers()) == ["m-predictor-00002"], "the idle revision is collected")
        revisions = f"/apis/serving.knative.dev/v1/namespaces/{ns.name}/revisions"
        wait(lambda: len(ns.items(revisions)) == 1, "and shown no more")
    wait(lambda: "RevisionCollected" in ns.events(), "an event tells it")


@pytest.mark.parametrize("percent", [400, -5])
def test_a_percentage_out_of_range_is_refused_and_traffic_stays(ns: Namespace, percent: int) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    ns.deploy("two", percent)
    status = ns.wait("refused", lambda s: condition(s, "PredictorReady")["status"] == "False")["status"]
    assert condition(status, "PredictorReady")["reason"] == "ReconcileFailed"
    assert f"expected 0 <= {percent} <= 100: spec.traffic[0].percent" in condition(status, "Ready")["message"]
    assert component(status)["latestCreatedRevision"] == "m-predictor-00001"
    assert ns.ask() == (200, "m-predictor-00001")
    ns.percent(10)
    ns.settled({"01": 90, "02": 10})


def test_a_changed_source_does_not_alter_a_running_revision(ns: Namespace) -> None:
    ns.create("frozen")
    ns.settled({"01": 100})
    (ns.sandbox.models / "frozen" / "version").write_text("altered", encoding="utf-8")
    before = ns.servers()["m-predictor-00001"]
    os.kill(before["pid"], signal.SIGKILL)
    wait(lambda: ns.servers()["m-predictor-00001"]["restarts"] == 1 and _answers(ns), "it is back")
    client = ns.client()
    answer = client.get("/v1/models/m:predict", host=f"m.{ns.name}.localhost", body=b"{}").json
    client.close()
    assert answer["predictions"] == ["frozen"]


def test_a_model_without_a_runtime_is_an_invalid_spec(ns: Namespace) -> None:
    predictor = {"model": {"modelFormat": {"name": "nosuchformat"}, "storageUri": ns.sandbox.model("one")}}
    body = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "m"}}
    ns.sandbox.post(ns.path, body | {"spec": {"predictor": predictor}})
    status = ns.wait("refused", lambda s: (s.get("modelStatus") or {}).get("transitionStatus") == "InvalidSpec")[
        "status"
    ]
    assert status["modelStatus"]["lastFailureInfo"] == {
        "reason": "NoSupportingRuntime",
        "message": "No runtime found to support specified framework/version",
    }


def test_a_mode_that_is_not_emulated_is_refused_by_name(ns: Namespace) -> None:
    ns.create("one", annotations={"serving.kserve.io/deploymentMode": "ModelMesh"})
    status = ns.wait("refused", lambda s: condition(s, "Ready").get("status") == "False")["status"]
    assert condition(status, "PredictorReady")["reason"] == "NotEmulated"
    assert status["deploymentMode"] == "ModelMesh"
    assert ns.servers() == {}


def test_stopped_and_resumed_it_has_no_history(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    ns.deploy("two", 10)
    ns.settled({"01": 90, "02": 10})
    ns.annotate("serving.kserve.io/stop", "true")
    status = ns.wait("stopped", lambda s: condition(s, "Stopped").get("status") == "True")["status"]
    assert condition(status, "PredictorReady")["reason"] == "Stopped"
    wait(lambda: ns.servers() == {}, "servers are gone")
    assert ns.ask()[0] == 404
    ns.annotate("serving.kserve.io/stop", "false")
    ns.settled({"01": 100})
    assert ns.ask() == (200, "m-predictor-00001")


def test_a_deleted_service_leaves_no_server_and_no_route(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    ns.delete()
    wait(lambda: ns.sandbox.api.get(f"{ns.path}/m").status_code == 404, "the object is gone")
    wait(lambda: ns.servers() == {}, "the servers are gone")
    assert ns.ask()[0] == 404
    ns.create("two")
    ns.settled({"01": 100})
    client = ns.client()
    answer = client.get("/v1/models/m:predict", host=f"m.{ns.name}.localhost", body=b"{}").json
    client.close()
    assert answer["predictions"] == ["two"]


def test_deleting_a_service_during_a_canary_answers_404_from_then_on_and_breaks_nothing(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    ns.deploy("two", 50)
    ns.settled({"01": 50, "02": 50})
    with ns.load() as load:
        wait(lambda: len({answer.revision for answer in load.answers}) == 2, "both revisions answer")
        ns.delete()
        wait(lambda: bool(load.failed), "it answers no more")
        wait(lambda: ns.servers() == {}, "the servers are gone")
    assert load.broken == []
    assert {answer.status for answer in load.failed} == {404}


def _answers(ns: Namespace) -> bool:
    return ns.ask()[0] == 200
