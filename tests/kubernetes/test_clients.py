"""The Python clients, unchanged, with the kubeconfig that the API writes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.kubernetes.server import Server

MERGE = {"Content-Type": "application/merge-patch+json"}
READY = {"status": {"url": "http://m", "observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}}


def manifest(namespace: str) -> dict[str, Any]:
    spec = {"predictor": {"model": {"modelFormat": {"name": "pytorch"}, "storageUri": "s3://m/1"}}}
    metadata = {"name": "m", "namespace": namespace}
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata, "spec": spec}


def test_kserve_client(kube: Server, namespace: str) -> None:
    kserve = pytest.importorskip("kserve")
    from kubernetes import client as kubernetes

    service = kserve.KServeClient(config_file=str(kube.kubeconfig))
    predictor = kserve.V1beta1PredictorSpec(
        model=kserve.V1beta1ModelSpec(model_format=kserve.V1beta1ModelFormat(name="pytorch"), storage_uri="s3://m/1")
    )
    wanted = kserve.V1beta1InferenceService(
        api_version="serving.kserve.io/v1beta1",
        kind="InferenceService",
        metadata=kubernetes.V1ObjectMeta(name="m", namespace=namespace),
        spec=kserve.V1beta1InferenceServiceSpec(predictor=predictor),
    )
    service.create(wanted)
    wanted.spec.predictor.canary_traffic_percent = 10
    patched = service.patch("m", wanted, namespace=namespace)
    assert patched["spec"]["predictor"]["canaryTrafficPercent"] == 10
    path = f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices/m/status"
    with kube.client() as client:
        helper = threading.Timer(0.3, client.patch, (path,), {"json": READY, "headers": MERGE})
        helper.start()
        service.wait_isvc_ready("m", namespace=namespace, timeout_seconds=60, polling_interval=1)
        helper.join()
    # A watch, which the client sends as watch=True and ends when the service is ready.
    service.get("m", namespace=namespace, watch=True, timeout_seconds=60)
    assert service.is_isvc_ready("m", namespace=namespace)
    assert service.replace("m", wanted, namespace=namespace)["metadata"]["generation"] == 2
    service.delete("m", namespace=namespace)
    with pytest.raises(RuntimeError, match="404"):
        service.get("m", namespace=namespace)


def test_kubernetes_client_watches_events_and_holds_leases(kube: Server, namespace: str) -> None:
    kubernetes = pytest.importorskip("kubernetes")
    import datetime

    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(kube.kubeconfig), client_configuration=configuration)
    with kubernetes.client.ApiClient(configuration) as api:
        core, coordination = kubernetes.client.CoreV1Api(api), kubernetes.client.CoordinationV1Api(api)
        about = kubernetes.client.V1ObjectReference(kind="InferenceService", name="m", namespace=namespace)
        metadata = kubernetes.client.V1ObjectMeta(generate_name="m-")
        event = kubernetes.client.CoreV1Event(metadata=metadata, involved_object=about, reason="Promoted", message="m")
        core.create_namespaced_event(namespace, event)
        stream = kubernetes.watch.Watch().stream(core.list_namespaced_event, namespace, timeout_seconds=1)
        assert [seen["object"].reason for seen in stream] == ["Promoted"]
        now = datetime.datetime.now(datetime.UTC)
        spec = kubernetes.client.V1LeaseSpec(holder_identity="me", lease_duration_seconds=15, renew_time=now)
        lease = kubernetes.client.V1Lease(metadata=kubernetes.client.V1ObjectMeta(name="l"), spec=spec)
        held = coordination.create_namespaced_lease(namespace, lease)
        assert held.spec.renew_time == now
        held.spec.holder_identity = "you"
        stale = held.metadata.resource_version
        coordination.replace_namespaced_lease("l", namespace, held)
        held.metadata.resource_version = stale
        with pytest.raises(kubernetes.client.ApiException, match="409"):
            coordination.replace_namespaced_lease("l", namespace, held)
