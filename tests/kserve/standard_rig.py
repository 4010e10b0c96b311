"""InferenceServices in Standard mode, on the sandbox of `rig`: what is asked for, and who answers."""

from __future__ import annotations

import json
from typing import Any

from tests.kserve.rig import Document, Namespace, condition, ready, wait

MODE = {"serving.kserve.io/deploymentMode": "Standard"}
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes"
DEPLOYMENTS = "/apis/apps/v1/namespaces/{}/deployments"


def model(ns: Namespace, version: str) -> Document:
    """spec.predictor.model of the fake runtime with that version."""
    return {"name": "", "modelFormat": {"name": "fake"}, "storageUri": ns.sandbox.model(version)}


def deploy(ns: Namespace, version: str, annotations: Document | None = None, **predictor: Any) -> Document:
    """A service `m` whose predictor is of that version, and ready."""
    ns.sandbox.post(
        ns.path,
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "m", "annotations": MODE | (annotations or {})},
            "spec": {"predictor": {"model": model(ns, version)} | predictor},
        },
    )
    return ns.wait("the predictor is ready", ready)


def canary(ns: Namespace, name: str, version: str, percent: int, **predictor: Any) -> Document:
    """An entry of spec.canary."""
    return {"trafficPercent": percent, "predictor": {"name": name, "model": model(ns, version)} | predictor}


def canaries(ns: Namespace, *entries: Document) -> None:
    """Have exactly these."""
    ns.patch({"spec": {"canary": list(entries)}})


def promote(ns: Namespace, name: str, version: str) -> None:
    """Make a canary the predictor, as KServe's documentation has it: name and model together, no canary any more."""
    ns.patch({"spec": {"predictor": {"name": name, "model": model(ns, version)}, "canary": []}})


def statuses(status: Document) -> dict[str, tuple[int, bool]]:
    """Percentage and readiness of every canary."""
    return {one["name"]: (one["trafficPercent"], one["ready"]) for one in status.get("canaryStatuses") or []}


def all_ready(ns: Namespace, **percents: int) -> Document:
    """Wait until exactly these canaries are there and ready."""
    wanted = {name: (percent, True) for name, percent in percents.items()}
    return ns.wait(
        f"canaries {percents}", lambda status: statuses(status) == wanted and _canaries_ready(status, wanted)
    )


def predict(ns: Namespace, host: str = "") -> tuple[str, str, int]:
    """Version, revision and process of whoever answers a prediction; the version is the error's reason otherwise."""
    client = ns.client()
    try:
        answer = client.get("/v1/models/m:predict", host=host or f"m.{ns.name}.localhost", body=b'{"instances": [1]}')
    finally:
        client.close()
    found = json.loads(answer.body)
    if answer.status != 200:
        return found["reason"], answer.revision, 0
    return found["predictions"][0], answer.revision, found["pid"]


def weights(ns: Namespace, name: str = "m-predictor") -> dict[str, int]:
    """The backends of an HTTPRoute with their weights; empty where there is none. One without a weight has 1."""
    answer = ns.sandbox.api.get(f"{ROUTES.format(ns.name)}/{name}")
    if answer.status_code == 404:
        return {}
    return {ref["name"]: ref.get("weight") for ref in answer.json()["spec"]["rules"][0]["backendRefs"]}


def routed(ns: Namespace, wanted: dict[str, int]) -> None:
    """Wait until the HTTPRoute of the predictor has these backends."""
    wait(lambda: weights(ns) == wanted, f"the HTTPRoute leads to {wanted}")


def _canaries_ready(status: Document, wanted: Document) -> bool:
    return not wanted or condition(status, "CanaryPredictorReady").get("status") == "True"
