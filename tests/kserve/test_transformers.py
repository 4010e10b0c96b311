"""A transformer before a predictor: decided as KServe does it, and run for real with kserve's own Model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sandbox.kserve.config import Config
from sandbox.kserve.knative import Document
from sandbox.kserve.predictor import wish
from sandbox.kserve.servers import spec_of
from sandbox.kserve.status import component
from sandbox.kserve.transformer import reachable
from sandbox.modelserver.command import command
from tests.kserve.replay import CRASH, URLS, World, flat
from tests.kserve.rig import Namespace, condition, wait

PREDICTOR: Document = {"containers": [{"name": "kserve-container", "command": ["serve"]}]}
TRANSFORMER: Document = {"containers": [{"name": "kserve-container", "command": ["transform"], "args": ["--x"]}]}


def service(transformer: Document | None, predictor: Document = PREDICTOR, **annotations: Any) -> Document:
    spec = {"predictor": predictor} | ({"transformer": transformer} if transformer is not None else {})
    return {"metadata": {"name": "m", "namespace": "ns", "annotations": annotations}, "spec": spec}


def play(world: World, document: Document, *silent: str) -> dict[str, str]:
    """Reconcile, with every server answering but the `silent` ones; what the status says."""
    world.now += 1
    world.reconcile(document)
    for name in list(world.starting()):
        if name not in silent:
            world.answer(document, name)
    return flat(world.status)


def args_of(transformer: Document, predictor: Document = PREDICTOR) -> list[str]:
    template = wish(service(transformer, predictor), (), Config(), URLS).components["transformer"].template
    assert template is not None
    found: list[str] = template.document["spec"]["containers"][0]["args"]
    return found


def test_a_transformer_gets_the_arguments_that_kserve_gives_it() -> None:
    added = ["--model_name", "m", "--predictor_host", "m-predictor.ns", "--http_port", "8080"]
    assert args_of(TRANSFORMER) == ["--x", *added]
    assert args_of(TRANSFORMER | {"containerConcurrency": 3})[-2:] == ["--workers", "3"]
    own = {"command": ["t"], "args": ["--model_name=n", "--predictor_host", "elsewhere", "--http_port=9000"]}
    assert args_of({"containers": [own]}) == own["args"]
    assert "m-v2-predictor.ns" in args_of(TRANSFORMER, PREDICTOR | {"name": "v2"})


@pytest.mark.parametrize("name", ["m-predictor.ns", "m-predictor.ns.svc", "m-predictor.ns.svc.cluster.local:80"])
def test_a_predictors_name_in_the_cluster_leads_to_it_through_the_gateway(name: str) -> None:
    world = World()
    env = [{"name": "URL", "value": f"http://{name}/v1"}, {"name": "OTHER", "value": f"x{name}"}]
    document = service({"containers": [{"command": ["t"], "args": [f"--predictor_host={name}"], "env": env}]})
    play(world, document)
    (revision,) = world.known["transformer"].revisions
    spec = spec_of("ns", "uid", revision, True, {"m-predictor.ns": "/serving/ns/m-predictor"})
    ready = command(spec, 20001, None, gateway="127.0.0.1:8081")
    assert "--predictor_host=127.0.0.1:8081/serving/ns/m-predictor" in ready.argv
    assert ready.env["URL"] == "http://127.0.0.1:8081/serving/ns/m-predictor/v1"
    assert ready.env["OTHER"] == f"x{name}"


@pytest.mark.parametrize(
    "text", ["m-predictor.nsx", "x.m-predictor.ns", "m-predictor.ns.other", "a-m-predictor.ns", "m.n"]
)
def test_a_name_that_only_looks_like_a_components_stays(text: str) -> None:
    assert reachable(text, {"m-predictor.ns": "HERE"}) == text
    assert reachable(f"http://m-predictor.ns.svc:80/v1,{text} m-predictor.ns:8080", {"m-predictor.ns": "HERE"}) == (
        f"http://HERE/v1,{text} HERE:8080"
    )


def test_the_services_url_waits_for_the_transformer() -> None:
    world, document = World(), service(TRANSFORMER)
    state = play(world, document, "m-transformer-00001")
    assert (state["PredictorReady"], state["TransformerReady"][:7]) == ("True", "Unknown")
    assert state["RoutesReady"] == "Unknown TransformerRouteReady not ready"
    assert state["LatestDeploymentReady"] == "Unknown TransformerConfigurationReady not ready"
    assert ("url" in state, state["Ready"], world.entry) == (False, "Unknown", "")
    world.answer(document, "m-transformer-00001")
    state = flat(world.status)
    for kind in ("Ready", "TransformerReady", "RoutesReady", "LatestDeploymentReady", "IngressReady"):
        assert state[kind] == "True"
    assert world.entry == "transformer"
    found = component(world.status, "transformer")
    assert (found["url"], found["latestReadyRevision"]) == ("http://m-transformer", "m-transformer-00001")
    assert component(world.status, "predictor")["address"] == {"url": "http://127.0.0.1/m-predictor"}
    assert world.status["address"] == {"url": "http://127.0.0.1/m"}


def test_a_transformer_added_to_a_service_takes_over_once_it_is_ready() -> None:
    world = World()
    play(world, service(None))
    assert world.entry == "predictor"
    state = play(world, service(TRANSFORMER), "m-transformer-00001")
    assert (world.entry, state["Ready"]) == ("predictor", "True")
    world.answer(service(TRANSFORMER), "m-transformer-00001")
    assert world.entry == "transformer"


def test_a_transformer_taken_away_leaves_its_knative_service_behind_as_kserve_does() -> None:
    world = World()
    play(world, service(TRANSFORMER))
    state = play(world, service(None))
    assert (world.entry, state["Ready"], state["TransformerReady"]) == ("predictor", "True", "True")
    assert world.servers["m-transformer-00001"].running


def test_each_component_has_a_canary_of_its_own() -> None:
    world = World()
    play(world, service(TRANSFORMER))
    changed = TRANSFORMER | {"annotations": {"v": "2"}, "canaryTrafficPercent": 20}
    play(world, service(changed))
    traffic = component(world.status, "transformer")["traffic"]
    assert [(entry["percent"], entry["revisionName"]) for entry in traffic] == [
        (20, "m-transformer-00002"),
        (80, "m-transformer-00001"),
    ]
    assert traffic[1]["url"] == "http://prev-m-transformer"
    assert flat(world.status)["traffic"] == "100 % m-predictor-00001 (latest)"
    assert component(world.status, "predictor")["latestRolledoutRevision"] == "m-predictor-00001"


def test_a_transformer_that_cannot_be_run_leaves_the_predictor_alone() -> None:
    world = World()
    play(world, service(None))
    state = play(world, service({"containers": [{"name": "kserve-container", "image": "x"}]}))
    assert state["TransformerReady"].startswith("False NotEmulated: container kserve-container has no command")
    assert (state["PredictorReady"], state["Ready"], world.entry) == ("True", "True", "predictor")
    assert "InternalError" in world.events


def test_a_transformer_that_crashes_blocks_neither_predictor_nor_its_own_predecessor() -> None:
    world = World()
    play(world, service(TRANSFORMER))
    document = service(TRANSFORMER | {"annotations": {"v": "2"}})
    play(world, document, "m-transformer-00002")
    world.servers["m-transformer-00002"] = replace(world.servers["m-transformer-00002"], failure=CRASH)
    world.now += 601
    world.reconcile(document)
    state = flat(world.status)
    assert state["TransformerReady"].startswith('False RevisionFailed: Revision "m-transformer-00002" failed')
    assert (state["PredictorReady"], world.entry) == ("True", "transformer")
    assert component(world.status, "transformer")["traffic"][0]["revisionName"] == "m-transformer-00001"


def test_a_stopped_service_stops_its_transformer() -> None:
    world = World()
    play(world, service(TRANSFORMER))
    state = play(world, service(TRANSFORMER, PREDICTOR, **{"serving.kserve.io/stop": "true"}))
    assert (state["TransformerReady"], state["Stopped"], world.servers) == ("False Stopped", "True", {})
    assert play(world, service(TRANSFORMER))["Ready"] == "True"


@pytest.mark.sandbox
def test_a_kserve_model_transforms_what_the_predictor_is_asked_and_answers(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    assert predicted(ns) == {"predictions": ["one"], "transformed": False}
    module = ["python3", "-m", "tests.kserve.scaling_transformer"]
    ns.patch({"spec": {"transformer": {"containers": [{"name": "kserve-container", "command": module}]}}})
    ready = ns.wait("the transformer is ready", lambda s: condition(s, "TransformerReady").get("status") == "True")
    wait(lambda: predicted(ns) == {"predictions": ["one", "one"], "transformed": True}, "it is in the way")
    # The predictor's own address goes past it.
    path = component(ready["status"], "predictor")["address"]["url"].partition(f":{ns.sandbox.envoy.port}")[2]
    assert predicted(ns, path) == {"predictions": ["one"], "transformed": False}
    ns.deploy("two", 50)
    ns.settled({"01": 50, "02": 50})
    seen = {json.dumps(predicted(ns)["predictions"]) for _ in range(60)}
    assert seen == {'["one", "one"]', '["two", "two"]'}
    revisions = ns.revisions_in_access_log()
    assert {"m-transformer-00001", "m-predictor-00001", "m-predictor-00002"} <= revisions
    ns.delete()
    wait(lambda: ns.servers() == {}, "both components' servers are gone")


def predicted(ns: Namespace, path: str = "") -> Document:
    client = ns.client()
    try:
        body = b'{"instances": [1]}'
        host = "" if path else f"m.{ns.name}.localhost"
        answer = client.get(f"{path}/v1/models/m:predict", host=host, body=body)
        assert answer.status == 200, answer.body
        found = answer.json
    finally:
        client.close()
    return {"predictions": found["predictions"], "transformed": found.get("transformed", False)}
