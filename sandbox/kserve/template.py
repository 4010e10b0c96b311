"""The pod template of one component, as KServe would write it into the component's Knative Service or Deployment.

Any change of what it holds makes a revision: model, container, and every annotation and label of the InferenceService
that is not on KServe's list of exceptions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from sandbox.kserve import config as configuration
from sandbox.kserve import payloadlog
from sandbox.kserve.config import KNATIVE, STORAGE_URI_ANNOTATION, Config
from sandbox.kserve.decide import Problem
from sandbox.kserve.knative import Document, Template
from sandbox.kserve.runtimes import NoRuntime, Runtime, preload

NOT_EMULATED = "NotEmulated"
FRAMEWORKS = (
    *("sklearn", "xgboost", "tensorflow", "pytorch", "triton"),
    *("onnx", "huggingface", "pmml", "lightgbm", "paddle"),
)
# Fields of a component that are no part of the pod's spec.
_NO_POD_FIELDS = frozenset(
    {"model", "containers", "canaryTrafficPercent", "minReplicas", "maxReplicas", "scaleTarget", "scaleMetric"}
    | {"scaleMetricType", "autoScaling", "logger", "batcher", "labels", "annotations", "deploymentStrategy", "timeout"}
    | {"containerConcurrency", "workerSpec", "name", "storageUris", "storageContainerName", *FRAMEWORKS}
)
# KServe puts them on the Knative Service itself, not on the template: they make no revision.
_OF_SERVICE = ("serving.knative.dev/rollout-duration", "serving.knative.openshift.io/enablePassthrough")


class Refused(Exception):
    """A component that cannot be run. `reason` is that of its Ready condition, `event` the event's text if another."""

    def __init__(self, message: str, reason: str, event: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.event = event


def template(
    isvc: Document,
    component: Document,
    kind: str,
    containers: Sequence[Document],
    uri: str,
    config: Config,
    runtime: Runtime | None = None,
) -> Template:
    """The template of `component` (spec.<kind>) with these containers, its model at `uri`. Raises Refused."""
    main = _runnable(containers, isvc["metadata"]["name"])
    annotations = _annotations(isvc, component, runtime, config, uri)
    kept = ("timeout", "containerConcurrency")
    document: Document = {
        "annotations": annotations,
        "labels": _labels(isvc, component, kind, runtime, config),
        "spec": {key: value for key, value in component.items() if key not in _NO_POD_FIELDS}
        | {"containers": [main]}
        | {key: component[key] for key in kept if key in component},
    }
    warm = runtime.preload if runtime is not None and runtime.preload else preload(annotations)
    return Template(document, digest(document), warm)


def digest(document: Document) -> str:
    """What tells one template from another."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def problem_of(refusal: Refused | NoRuntime) -> Problem:
    """Why there is no template, as it is told."""
    if isinstance(refusal, NoRuntime):
        return Problem(refusal.message, refusal.failure, event=refusal.event)
    return Problem(str(refusal), reason=refusal.reason, event=refusal.event)


def storage_uri(container: Document) -> str:
    """Where a custom container's model lies; empty where it says nothing of it."""
    return next((entry.get("value", "") for entry in container.get("env") or [] if entry["name"] == "STORAGE_URI"), "")


def _runnable(containers: Sequence[Document], name: str) -> Document:
    main, *others = containers
    if others:
        text = f"the sandbox runs one container a revision; there is also {others[0].get('name')}"
        raise Refused(text, NOT_EMULATED)
    if not main.get("command"):
        text = f"container {main.get('name', 'kserve-container')} has no command: the sandbox runs no images"
        raise Refused(f"{text}; name the command that the image would run", NOT_EMULATED)
    if secret := next((entry["name"] for entry in main.get("env") or [] if "valueFrom" in entry), ""):
        raise Refused(f"environment variable {secret}: the sandbox does not emulate valueFrom", NOT_EMULATED)
    environment = [entry for entry in main.get("env") or [] if entry["name"] != "INFERENCE_SERVICE_NAME"]
    return main | {"env": [*environment, {"name": "INFERENCE_SERVICE_NAME", "value": name}]}


def _annotations(
    isvc: Document, component: Document, runtime: Runtime | None, config: Config, uri: str
) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in (
        (runtime.spec.get("annotations") if runtime else None),
        isvc["metadata"].get("annotations"),
        component.get("annotations"),
    ):
        found |= {key: value for key, value in (source or {}).items() if key not in config.annotations}
    found |= payloadlog.annotated(component.get("logger"))
    if component.get("batcher"):
        found["internal.serving.kserve.io/batcher"] = json.dumps(component["batcher"], sort_keys=True)
    if uri:
        found[STORAGE_URI_ANNOTATION] = uri
    if configuration.mode(isvc, config) != KNATIVE:
        return found
    found.setdefault("autoscaling.knative.dev/class", "kpa.autoscaling.knative.dev")
    found["autoscaling.knative.dev/min-scale"] = str(component.get("minReplicas", 1))
    for field, key in (("maxReplicas", "max-scale"), ("scaleTarget", "target"), ("scaleMetric", "metric")):
        if component.get(field):
            found[f"autoscaling.knative.dev/{key}"] = str(component[field])
    return {key: value for key, value in found.items() if key not in _OF_SERVICE}


def _labels(isvc: Document, component: Document, kind: str, runtime: Runtime | None, config: Config) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in (
        (runtime.spec.get("labels") if runtime else None),
        isvc["metadata"].get("labels"),
        component.get("labels"),
        {"serving.kserve.io/inferenceservice": isvc["metadata"]["name"], "component": kind},
    ):
        found |= source or {}
    return {key: value for key, value in found.items() if key not in config.labels}
