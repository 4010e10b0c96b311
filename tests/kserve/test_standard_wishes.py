"""What an InferenceService in Standard mode asks for: pods of a canary, numbers of replicas, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from sandbox.kserve.config import Config, mode
from sandbox.kserve.config import read as read_config
from sandbox.kserve.knative import Document
from sandbox.kserve.runtimes import Runtime
from sandbox.kserve.standard_route import describe
from sandbox.kserve.standard_wish import (
    FIRST_RELEASE,
    NEXT_RELEASE,
    StandardWish,
    merged_canary,
    standard_wish,
    workloads,
)
from sandbox.kserve.status import Urls
from sandbox.kserve.store import standard_from
from tests.kserve.standard_replay import LAB, World

_URLS = Urls("http://m", "http://127.0.0.1/m-predictor", "http://{name}", "", "http://127.0.0.1/{name}")
_NONE = {"serving.kserve.io/autoscalerClass": "none"}


def _service(predictor: Document, *canaries: Document, annotations: Document | None = None) -> Document:
    metadata = {"name": "m", "namespace": "ns", "annotations": annotations or {}}
    standard = {"serving.kserve.io/deploymentMode": "Standard"}
    metadata["annotations"] = standard | (annotations or {})
    return {"metadata": metadata, "spec": {"predictor": predictor, "canary": list(canaries)}}


def _model(uri: str, **more: Any) -> Document:
    return {"modelFormat": {"name": "lab"}, "storageUri": uri} | more


def _canary(name: str, percent: int, **predictor: Any) -> Document:
    return {"trafficPercent": percent, "predictor": {"name": name, "model": _model(f"s3://{name}")} | predictor}


def _wish(service: Document, *available: Runtime) -> StandardWish:
    return standard_wish(service, available or (LAB,), Config(), _URLS)


def _replicas(service: Document, release: str, ready: bool) -> list[int | None]:
    return [one.fixed for one in workloads(_wish(service), lambda name: ready, release)]


def test_a_canary_has_from_the_predictor_what_it_does_not_set() -> None:
    resources = {"limits": {"cpu": "1", "memory": "1Gi"}}
    stable = {
        "model": _model("s3://1", args=["--x"], resources=resources, runtime="lab-python"),
        "annotations": {"a": "1", "b": "1"},
        "serviceAccountName": "reader",
        "maxReplicas": 3,
    }
    canary = {"name": "v2", "model": _model("s3://2", resources={"limits": {"cpu": "2"}}), "annotations": {"b": "2"}}
    assert merged_canary(stable, canary) == {
        "name": "v2",
        "model": {
            "modelFormat": {"name": "lab"},
            "storageUri": "s3://2",
            "args": ["--x"],
            "resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
            "runtime": "lab-python",
        },
        "annotations": {"a": "1", "b": "2"},
        "serviceAccountName": "reader",
    }


def test_lists_of_a_canary_replace_the_predictors() -> None:
    stable = {"containers": [{"name": "kserve-container", "env": [{"name": "A", "value": "1"}]}]}
    canary = {"containers": [{"name": "kserve-container", "command": ["x"]}]}
    assert merged_canary(stable, canary)["containers"] == canary["containers"]


def test_a_promoted_canary_keeps_its_pods() -> None:
    stable = {"model": _model("s3://1", args=["--x"]), "minReplicas": 4}
    before = _wish(_service(stable, _canary("v2", 25, model=_model("s3://2")))).canaries[0].pods.template
    after = _wish(_service(stable | {"name": "v2", "model": _model("s3://2", args=["--x"])})).stable
    assert before is not None
    assert after.template is not None
    assert (after.deployment, after.template.digest) == ("m-v2-predictor", before.digest)


@pytest.mark.parametrize(("percent", "canary", "stable"), [(25, 1, 3), (30, 2, 2), (100, 4, 1), (0, 0, 4)])
def test_replicas_of_a_canary_are_rounded_up_and_taken_from_the_predictor(
    percent: int, canary: int, stable: int
) -> None:
    service = _service({"model": _model("s3://1"), "minReplicas": 4}, _canary("v2", percent), annotations=_NONE)
    assert _replicas(service, NEXT_RELEASE, ready=True) == [stable, canary]


@pytest.mark.parametrize(("release", "stable"), [(FIRST_RELEASE, 3), (NEXT_RELEASE, 4)])
def test_the_first_release_takes_replicas_for_canaries_that_are_not_ready(release: str, stable: int) -> None:
    service = _service({"model": _model("s3://1"), "minReplicas": 4}, _canary("v2", 25), annotations=_NONE)
    assert _replicas(service, release, ready=False) == [stable, 1]


def test_two_canaries_leave_the_predictor_one_replica_at_least() -> None:
    canaries = (_canary("v2", 50, minReplicas=3), _canary("v3", 50, minReplicas=3))
    service = _service({"model": _model("s3://1"), "minReplicas": 4}, *canaries, annotations=_NONE)
    assert _replicas(service, NEXT_RELEASE, ready=True) == [1, 3, 3]


def test_an_autoscaler_keeps_a_canary_at_zero_percent_at_one_replica() -> None:
    wish = _wish(_service({"model": _model("s3://1"), "maxReplicas": 5}, _canary("v2", 0)))
    stable, canary = workloads(wish, lambda name: True, NEXT_RELEASE)
    assert [(one.scaled, one.minimum, one.maximum) for one in (stable, canary)] == [(True, 1, 5), (True, 1, 1)]


def test_what_autoscales_is_no_part_of_the_pods() -> None:
    small = _wish(_service({"model": _model("s3://1"), "minReplicas": 1})).stable.template
    large = _wish(_service({"model": _model("s3://1"), "minReplicas": 5, "canaryTrafficPercent": 3})).stable.template
    assert small is not None
    assert small == large
    assert not [key for key in small.document["annotations"] if key.startswith("autoscaling.knative.dev/")]


def test_a_canary_that_nothing_can_serve_leaves_the_rest_as_it_is() -> None:
    world = World()
    model = {"modelFormat": {"name": "nosuch"}, "storageUri": "s3://2"}
    good = _service({"model": _model("s3://1")}, _canary("v2", 50))
    world.reconcile(good)
    for _, server in list(world.starting()):
        world.answer(good, server)
    before = world.record
    world.reconcile(_service({"model": _model("s3://1")}, _canary("v2", 50, model=model)))
    assert world.record == before
    assert world.events.count("InternalError") == 1
    world.reconcile(_service({"model": _model("s3://1")}, _canary("v3", 50, model=model)))
    assert world.status["canaryStatuses"] == [
        {"modelStatus": {"transitionStatus": ""}, "name": "v3", "ready": False, "trafficPercent": 50}
    ]


def test_an_explainer_is_refused_by_name() -> None:
    service = _service({"model": _model("s3://1")})
    service["spec"]["explainer"] = {"containers": [{}]}
    problem = _wish(service).stable.problem
    assert problem is not None
    assert (problem.reason, problem.message) == ("NotEmulated", "spec.explainer: the sandbox does not emulate it")


def test_a_record_is_read_as_it_was_written() -> None:
    world = World(release=NEXT_RELEASE)
    service = _service({"model": _model("s3://1")}, _canary("v2", 50))
    world.reconcile(service)
    for _, server in list(world.starting()):
        world.answer(service, server)
    world.reconcile(_service({"model": _model("s3://2")}))
    assert world.record is not None
    assert all((world.record.leaving, world.record.routed, world.record.scalers))
    assert standard_from(json.loads(json.dumps(asdict(world.record)))) == world.record


def test_the_gateway_is_told_of_grpc_and_of_the_port_of_metrics() -> None:
    world = World(release=NEXT_RELEASE)
    service = _service({"model": _model("s3://1", ports=[{"name": "h2c", "containerPort": 9000}])})
    world.reconcile(service)
    for _, server in list(world.starting()):
        world.answer(service, server)
    assert world.record is not None
    servers = {name: replace(one, metrics_port=9001) for name, one in world.servers.items()}
    described = describe(("ns", "m"), world.record, world.record.routed, servers, None)
    assert [(one.http2, one.metrics_port) for one in described.revisions] == [(True, 9001)]


@pytest.mark.parametrize(
    ("recorded", "annotation", "default", "expected"),
    [
        ("", "", "", "Knative"),
        ("", "", "Standard", "Standard"),
        ("", "", "RawDeployment", "Standard"),
        ("", "RawDeployment", "", "Standard"),
        ("", "Serverless", "Standard", "Knative"),
        ("", "NoSuchMode", "Standard", "Standard"),
        ("Standard", "Knative", "", "Standard"),
    ],
)
def test_the_mode_is_the_statuss_else_the_annotations_else_the_default(
    recorded: str, annotation: str, default: str, expected: str
) -> None:
    deploy = json.dumps({"defaultDeploymentMode": default} if default else {})
    service: Document = {"metadata": {"annotations": {"serving.kserve.io/deploymentMode": annotation}}}
    service["status"] = {"deploymentMode": recorded} if recorded else {}
    assert mode(service, read_config({"data": {"deploy": deploy}})) == expected
