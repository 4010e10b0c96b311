from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.kserve import payloadlog
from sandbox.kserve.knative import Revision, Template
from tests.kserve.rig import Document, Namespace, Sandbox, ready
from tests.serving.payload_rig import sink
from tests.serving.predictor_rig import V1_GOOD, write_model
from tests.waiting import wait_for

UID = "0a1b2c3d-0000-0000-0000-000000000000"


def revision(logger: Document | None, annotations: Document | None = None) -> Revision:
    known = (annotations or {}) | payloadlog.annotated(logger)
    labels = {"serving.kserve.io/inferenceservice": "m", "component": "predictor"}
    return Revision("m-predictor-00001", Template({"annotations": known, "labels": labels}, "f" * 64), 0.0)


def test_a_server_is_told_what_kserve_s_agent_would_be() -> None:
    logger = {
        "mode": "request",
        "url": "http://sink:80/x",
        "metadataHeaders": ["X-Tenant", "X-User"],
        "metadataAnnotations": ["model-version", "not-there"],
    }
    found = revision(logger, {"model-version": "v7", "other": "x"})
    assert {key: value for key, value in found.template.document["annotations"].items() if "internal" in key} == {
        "internal.serving.kserve.io/logger": "true",
        "internal.serving.kserve.io/logger-mode": "request",
        "internal.serving.kserve.io/logger-sink-url": "http://sink:80/x",
        "internal.serving.kserve.io/logger-metadata-headers": "X-Tenant,X-User",
        "internal.serving.kserve.io/logger-metadata-annotations": "model-version,not-there",
    }
    told = payloadlog.environment("garden", UID, found)
    assert json.loads(told[payloadlog.VARIABLE]) == {
        "url": "http://sink:80/x",
        "mode": "request",
        "metadataHeaders": ["X-Tenant", "X-User"],
        "metadataAnnotations": {"model-version": "v7"},
        "inferenceservicename": "m",
        "namespace": "garden",
        "component": "predictor",
        "endpoint": "",
        "source": f"m-predictor-00001-deployment-{'f' * 10}-0a1b2",
        "revision": "m-predictor-00001",
    }
    assert payloadlog.environment("garden", UID, revision(None)) == {}


@pytest.mark.parametrize("url", [{}, {"url": "s3://bucket/logs"}])
def test_a_logger_that_cannot_be_obeyed_tells_the_server_nothing(url: Document) -> None:
    found = revision({"mode": "all"} | url)
    assert payloadlog.environment("garden", UID, found) == {}
    assert "no payloads are logged" in payloadlog.ignored(found.template.document)


def test_a_logger_without_a_url_is_told_of_in_an_event(ns: Namespace) -> None:
    ns.create("v1")
    ns.settled({"01": 100})
    assert "PayloadLoggerIgnored" not in ns.events()
    ns.patch({"spec": {"predictor": {"logger": {"mode": "all"}}}})
    ns.settled({"02": 100})
    wait_for(lambda: "PayloadLoggerIgnored" in ns.events(), "the event is written")


def test_predictions_through_the_sandbox_arrive_as_events(kserve: Sandbox, ns: Namespace, tmp_path: Path) -> None:
    spec = write_model(tmp_path / "model")
    with sink() as taking:
        service(ns, tmp_path / "model", {"mode": "all", "url": taking.url, "metadataAnnotations": ["model-version"]})
        # It starts cold: torch and kserve take a while.
        wait_for(lambda: ready(ns.get("plants").get("status") or {}), "the predictor is ready", 120)
        url = f"http://127.0.0.1:{kserve.envoy.port}/v1/models/plants:predict"
        host = {"host": f"plants.{ns.name}.localhost", "ce-id": "one"}
        answer = httpx.post(url, json=V1_GOOD, headers=host, timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text
        request, response = sorted(taking.wait(2), key=lambda event: event.kind)
        pods = [pod["metadata"]["name"] for pod in ns.items(f"/api/v1/namespaces/{ns.name}/pods")]
        for event in (request, response):
            assert (
                event.headers
                | {
                    "ce-id": "one",
                    "ce-inferenceservicename": "plants",
                    "ce-namespace": ns.name,
                    "ce-component": "predictor",
                    "ce-endpoint": "",
                    "ce-revision": "plants-predictor-00001",
                    "ce-source": pods[0],
                    "ce-annotations": json.dumps({"model-version": spec.version}, separators=(",", ":")),
                }
                == event.headers
            )
        assert json.loads(request.body) == V1_GOOD
        assert response.body == answer.content


def service(ns: Namespace, model: Path, logger: Document) -> None:
    """An InferenceService whose container is the predictor itself, as `python` starts it."""
    container: dict[str, Any] = {
        "name": "kserve-container",
        "image": "localhost/serve:1",
        "command": [sys.executable, "-P", "-m", "serving.predictor"],
        "args": ["--model_name=plants", f"--model_dir={model}", "--http_port=8080", "--payload_nice=0"],
        "ports": [{"containerPort": 8080}],
    }
    version = json.loads((model / "model.json").read_text(encoding="utf-8"))["version"]
    predictor = {"containers": [container], "logger": logger, "annotations": {"model-version": version}}
    ns.sandbox.post(
        ns.path,
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "plants"},
            "spec": {"predictor": predictor},
        },
    )
