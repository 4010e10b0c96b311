"""From an InferenceService to what it wishes for: the pod template that KServe would hand to Knative, or why it cannot.

Any change of what the template holds makes a revision: model, container, and every annotation and label of the
InferenceService that is not on KServe's list of exceptions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from sandbox.kserve import config as configuration
from sandbox.kserve import payloadlog
from sandbox.kserve.config import KNATIVE, STORAGE_URI_ANNOTATION, Config
from sandbox.kserve.decide import Problem, Wish
from sandbox.kserve.knative import Document, Template
from sandbox.kserve.runtimes import NoRuntime, Runtime, choose, container, fill, preload
from sandbox.kserve.status import Names, Urls

_FRAMEWORKS = (
    *("sklearn", "xgboost", "tensorflow", "pytorch", "triton"),
    *("onnx", "huggingface", "pmml", "lightgbm", "paddle"),
)
# Fields of a predictor that are no part of the pod's spec.
_NO_POD_FIELDS = frozenset(
    {"model", "containers", "canaryTrafficPercent", "minReplicas", "maxReplicas", "scaleTarget", "scaleMetric"}
    | {"scaleMetricType", "autoScaling", "logger", "batcher", "labels", "annotations", "deploymentStrategy", "timeout"}
    | {"containerConcurrency", "workerSpec", "name", "storageUris", "storageContainerName", *_FRAMEWORKS}
)
NOT_EMULATED = "NotEmulated"


class Refused(Exception):
    """A predictor that makes no pod template; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def wish(isvc: Document, available: Sequence[Runtime], config: Config, urls: Urls) -> Wish:
    """What `isvc` asks for, with `available` the runtimes it may use."""
    metadata = isvc["metadata"]
    predictor = (isvc.get("spec") or {}).get("predictor") or {}
    annotations = metadata.get("annotations") or {}
    mode = configuration.mode(isvc, config)
    names, template, problem = Names(urls), None, None
    try:
        _check_emulated(isvc, mode)
        names, template = pod_template(isvc, predictor, available, config, names)
    except Refused as refused:
        problem = refused.problem
    except NoRuntime as missing:
        problem = Problem(missing.message, missing.failure, event=missing.event)
    return Wish(
        name=metadata["name"],
        names=names,
        template=template,
        problem=problem,
        percent=predictor.get("canaryTrafficPercent"),
        tag_routing=annotations.get("serving.kserve.io/enable-tag-routing") == "true",
        stopped=annotations.get("serving.kserve.io/stop", "").lower() == "true",
        mode=mode,
        service=service_name(isvc),
    )


def service_name(isvc: Document) -> str:
    """The name of the Knative Service: <name>-predictor, or <name>-<variant>-predictor where the predictor is named."""
    variant = ((isvc.get("spec") or {}).get("predictor") or {}).get("name")
    return "-".join(part for part in (isvc["metadata"]["name"], variant, "predictor") if part)


def _check_emulated(isvc: Document, mode: str) -> None:
    if mode != KNATIVE:
        text = f"the sandbox does not emulate the deployment mode {mode}"
        hint = "annotate a new InferenceService with serving.kserve.io/deploymentMode: Knative, or Standard"
        raise Refused(Problem(f"{text}; {hint}", reason=NOT_EMULATED))
    spec = isvc.get("spec") or {}
    for field in ("transformer", "explainer", "canary"):
        if spec.get(field):
            raise Refused(Problem(f"spec.{field}: the sandbox does not emulate it yet", reason=NOT_EMULATED))
    for field in ("workerSpec", "storageUris", "storageContainerName"):
        if (spec.get("predictor") or {}).get(field):
            text = f"spec.predictor.{field}: the sandbox does not emulate it"
            raise Refused(Problem(text, reason=NOT_EMULATED))


def pod_template(
    isvc: Document, predictor: Document, available: Sequence[Runtime], config: Config, names: Names
) -> tuple[Names, Template]:
    """The pod template of `predictor`, one of `isvc`'s, and `names` with the runtime. Raises Refused and NoRuntime."""
    metadata = isvc["metadata"]
    model = model_of(predictor)
    runtime = None
    if model is not None:
        runtime = choose(model, available)
        names = Names(names.urls, runtime.name, runtime.cluster)
        main = _filled(container(runtime, model), metadata)
        others = predictor.get("containers") or []
        uri = model.get("storageUri", "")
        if model.get("storage"):
            raise Refused(Problem("spec.predictor.model.storage: give a storageUri instead", reason=NOT_EMULATED))
    else:
        main, *others = predictor.get("containers") or [{}]
        uri = next((entry.get("value", "") for entry in main.get("env") or [] if entry["name"] == "STORAGE_URI"), "")
    if others:
        text = f"the sandbox runs one container a revision; there is also {others[0].get('name')}"
        raise Refused(Problem(text, reason=NOT_EMULATED))
    if not main.get("command"):
        text = f"container {main.get('name', 'kserve-container')} has no command: the sandbox runs no images"
        raise Refused(Problem(f"{text}; name the command that the image would run", reason=NOT_EMULATED))
    if secret := next((entry["name"] for entry in main.get("env") or [] if "valueFrom" in entry), ""):
        text = f"environment variable {secret}: the sandbox does not emulate valueFrom"
        raise Refused(Problem(text, reason=NOT_EMULATED))
    environment = [entry for entry in main.get("env") or [] if entry["name"] != "INFERENCE_SERVICE_NAME"]
    main = main | {"env": [*environment, {"name": "INFERENCE_SERVICE_NAME", "value": metadata["name"]}]}
    annotations = _annotations(isvc, predictor, runtime, config, uri)
    document: Document = {
        "annotations": annotations,
        "labels": _labels(isvc, predictor, runtime, config),
        "spec": {key: value for key, value in predictor.items() if key not in _NO_POD_FIELDS}
        | {"containers": [main]}
        | {key: predictor[key] for key in ("timeout", "containerConcurrency") if key in predictor},
    }
    warm = runtime.preload if runtime is not None and runtime.preload else preload(annotations)
    return names, Template(document, digest(document), warm)


def digest(document: Document) -> str:
    """What tells one template from another."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def model_of(predictor: Document) -> Document | None:
    """spec.predictor.model; a framework's own field is what KServe's webhook would have made a model of."""
    if "model" in predictor:
        found: Document = predictor["model"]
        return found
    for name in _FRAMEWORKS:
        if name in predictor:
            return dict(predictor[name] or {}) | {"modelFormat": {"name": name}}
    return None


def _filled(main: Document, metadata: Document) -> Document:
    try:
        return fill(main, metadata)
    except ValueError as error:
        text = f"failed to replace placeholders in serving runtime container {main.get('name')}"
        raise Refused(Problem(text, "InvalidPredictorSpec", event=f"{text}: {error}")) from error


def _annotations(
    isvc: Document, predictor: Document, runtime: Runtime | None, config: Config, uri: str
) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in (
        (runtime.spec.get("annotations") if runtime else None),
        isvc["metadata"].get("annotations"),
        predictor.get("annotations"),
    ):
        found |= {key: value for key, value in (source or {}).items() if key not in config.annotations}
    found |= payloadlog.annotated(predictor.get("logger"))
    if predictor.get("batcher"):
        found["internal.serving.kserve.io/batcher"] = json.dumps(predictor["batcher"], sort_keys=True)
    if uri:
        found[STORAGE_URI_ANNOTATION] = uri
    if configuration.mode(isvc, config) != KNATIVE:
        return found
    found.setdefault("autoscaling.knative.dev/class", "kpa.autoscaling.knative.dev")
    found["autoscaling.knative.dev/min-scale"] = str(predictor.get("minReplicas", 1))
    for field, key in (("maxReplicas", "max-scale"), ("scaleTarget", "target"), ("scaleMetric", "metric")):
        if predictor.get(field):
            found[f"autoscaling.knative.dev/{key}"] = str(predictor[field])
    return found


def _labels(isvc: Document, predictor: Document, runtime: Runtime | None, config: Config) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in (
        (runtime.spec.get("labels") if runtime else None),
        isvc["metadata"].get("labels"),
        predictor.get("labels"),
        {"serving.kserve.io/inferenceservice": isvc["metadata"]["name"], "component": "predictor"},
    ):
        found |= source or {}
    return {key: value for key, value in found.items() if key not in config.labels}
