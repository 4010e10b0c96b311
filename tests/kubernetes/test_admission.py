"""What KServe's webhooks made of requests, recorded, asked of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes import differences
from tests.kubernetes.server import Server

Body = dict[str, Any]
(SETUP, *VECTORS) = json.loads((Path(__file__).parent / "vectors/admission.json").read_text(encoding="utf-8"))
COLLECTION = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices"
MERGE = {"Content-Type": "application/merge-patch+json"}


def expanded(value: Any) -> Any:
    """{"@container": [version, uri]} is the recordings' container with these in its environment."""
    if isinstance(value, list):
        return [expanded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "@container" not in value:
        return {key: expanded(item) for key, item in value.items()}
    version, uri = value["@container"]
    variables = [{"name": "MODEL_VERSION", "value": version}, {"name": "STORAGE_URI", "value": uri}]
    return SETUP["container"] | {"env": variables}


@pytest.fixture
def ready_service(kube: Server, namespace: str) -> str:
    """The collection that holds the recordings' service, as its controller left it."""
    path = COLLECTION.format(namespace)
    with kube.client(**MERGE) as client:
        client.post(path, json=expanded(SETUP["base"]), headers={"Content-Type": "application/json"}).raise_for_status()
        finalizers = {"metadata": {"finalizers": ["inferenceservice.finalizers"]}}
        client.patch(f"{path}/m", json=finalizers).raise_for_status()
        status = {"status": {"deploymentMode": "Standard"}}
        client.patch(f"{path}/m/status", json=status).raise_for_status()
    return path


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_webhook_answer_is_the_recorded_one(vector: Body, ready_service: str, kube: Server) -> None:
    with kube.client() as client:
        path = f"{ready_service}/m" if vector["method"] == "PATCH" else ready_service
        headers = MERGE if vector["method"] == "PATCH" else {}
        body = expanded(vector["body"])
        response = client.request(vector["method"], path, json=body, params={"dryRun": "All"}, headers=headers)
        client.patch(f"{ready_service}/m", json={"metadata": {"finalizers": None}}, headers=MERGE)
    answer = response.json()
    matches = response.status_code == vector["status"]
    if response.is_error:
        matches = matches and answer["message"] == vector.get("message")
        matches = matches and answer.get("details", {}).get("causes") == vector.get("causes")
    else:
        matches = matches and answer["spec"] == expanded(vector["spec"])
        metadata = answer["metadata"]
        matches = matches and metadata.get("annotations") == vector["annotations"]
        matches = matches and metadata["generation"] == vector["generation"]
    assert matches != (vector["name"] in differences.ADMISSION), answer


def test_a_kind_that_nothing_runs_is_refused_by_name(kube: Server, namespace: str) -> None:
    body = {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "InferenceGraph", "metadata": {"name": "g"}}
    with kube.client() as client:
        answer = client.post(f"/apis/serving.kserve.io/v1alpha1/namespaces/{namespace}/inferencegraphs", json=body)
    assert answer.status_code == 403
    assert "InferenceGraph" in answer.json()["message"]


def test_frameworks_become_models(kube: Server, namespace: str) -> None:
    spec = {"predictor": {"triton": {"storageUri": "s3://m/1"}}}
    body = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "t"}}
    with kube.client() as client:
        answer = client.post(COLLECTION.format(namespace), json=body | {"spec": spec}).json()
    model = answer["spec"]["predictor"]["model"]
    assert (model["modelFormat"], model["protocolVersion"]) == ({"name": "triton"}, "v2")
    assert "triton" not in answer["spec"]["predictor"]


def runtime(name: str, **form: Any) -> Body:
    formats = [{"name": "kanary-test", "version": "1", "autoSelect": True} | form]
    spec = {"containers": [], "protocolVersions": ["v2"], "supportedModelFormats": formats}
    head = {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ServingRuntime"}
    return {**head, "metadata": {"name": name}, "spec": spec}


def test_two_runtimes_of_one_priority_are_refused(kube: Server, namespace: str) -> None:
    path = f"/apis/serving.kserve.io/v1alpha1/namespaces/{namespace}/servingruntimes"
    with kube.client() as client:
        client.post(path, json=runtime("one", priority=1)).raise_for_status()
        refused = client.post(path, json=runtime("two", priority=1))
        assert (refused.status_code, refused.json()["message"]) == (
            403,
            'admission webhook "servingruntime.kserve-webhook-server.validator" denied the request: same priority '
            f"assigned for the model format kanary-test in the servingruntimes one and two in namespace {namespace}",
        )
        client.post(path, json=runtime("two", priority=2)).raise_for_status()
        client.post(path, json=runtime("three", priority=1, version="2")).raise_for_status()
        client.post(path, json=runtime("four", priority=1, autoSelect=False)).raise_for_status()
        client.put(f"{path}/one", json=client.get(f"{path}/one").json()).raise_for_status()


def test_a_runtime_with_two_priorities_for_a_format_is_refused(kube: Server, namespace: str) -> None:
    path = f"/apis/serving.kserve.io/v1alpha1/namespaces/{namespace}/servingruntimes"
    body = runtime("two", priority=1)
    body["spec"]["supportedModelFormats"].append({"name": "kanary-test", "autoSelect": True, "priority": 2})
    with kube.client() as client:
        client.post(path, json=runtime("one", priority=7)).raise_for_status()
        refused = client.post(path, json=body)
    assert refused.status_code == 403
    assert "different priorities assigned for the model format kanary-test under the servingruntime two" in refused.text
