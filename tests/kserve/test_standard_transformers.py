"""A transformer in Standard mode: a Deployment of its own before the predictor, told where that is."""

from __future__ import annotations

import pytest

from tests.kserve.rig import Document, Namespace, condition, ready, wait
from tests.kserve.standard_rig import MODE, all_ready, canaries, canary, model, predict, promote, routed, weights

pytestmark = pytest.mark.destructive
_COMMAND = ["python3", "-m", "tests.kserve.fake_transformer"]


def _deploy(ns: Namespace, command: list[str] = _COMMAND) -> Document:
    container = {"name": "kserve-container", "image": "localhost/t:1", "command": command}
    ns.sandbox.post(
        ns.path,
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "m", "annotations": MODE},
            "spec": {"predictor": {"model": model(ns, "one")}, "transformer": {"containers": [container]}},
        },
    )
    return ns.wait("predictor ready", lambda s: condition(s, "PredictorReady").get("status") == "True")


def test_the_service_leads_to_the_transformer_and_that_to_the_predictor(ns: Namespace) -> None:
    _deploy(ns)
    status = ns.wait("ready", ready)["status"]
    assert predict(ns)[:2] == ("transformed one", "m-transformer")
    assert predict(ns, f"m-predictor.{ns.name}.localhost")[:2] == ("one", "m-predictor")
    assert condition(status, "TransformerReady")["status"] == "True"
    assert set(status["components"]) == {"predictor", "transformer"}
    assert status["address"]["url"].endswith("/m-transformer")
    wait(lambda: weights(ns, "m") == weights(ns, "m-transformer") == {"m-transformer": 1}, "two HTTPRoutes")
    routed(ns, {"m-predictor": 1})
    assert len(ns.servers()) == 2


def test_a_canarys_share_goes_past_the_transformer(ns: Namespace) -> None:
    _deploy(ns)
    ns.wait("ready", ready)
    canaries(ns, canary(ns, "v2", "two", 50))
    all_ready(ns, v2=50)
    wait(lambda: weights(ns, "m") == {"m-transformer": 50, "m-v2-predictor": 50}, "the HTTPRoute is split")
    assert {predict(ns)[0] for _ in range(100)} == {"transformed one", "two"}
    promote(ns, "v2", "two")
    ns.wait("promoted", lambda s: "canaryStatuses" not in s and ready(s))
    wait(lambda: {predict(ns)[0] for _ in range(20)} == {"transformed two"}, "the transformer asks the promoted one")


def test_without_its_transformer_the_service_is_not_ready_and_leads_nowhere(ns: Namespace) -> None:
    status = _deploy(ns, ["python3", "-m", "tests.kserve.no_such_module"])["status"]
    assert condition(status, "TransformerReady")["status"] == "False"
    assert condition(status, "IngressReady")["message"] == "Transformer HTTPRoute not created"
    assert condition(status, "Ready")["status"] == "False"
    assert predict(ns)[0] == "no-service"
