"""What KServe 0.20's webhooks do to an InferenceService on create and update: defaults first, refusals later.

Source: kserve pkg/apis/serving/v1beta1 and recordings of the real webhooks. The API server works without this module.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes import runtimeadmission
from sandbox.kubernetes.registry import KSERVE, Resource
from sandbox.kubernetes.status import ApiError

Body = dict[str, Any]
MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER = "serving.kserve.io/autoscalerClass"
KNATIVE_AUTOSCALER = "autoscaling.knative.dev/class"
OLD_MODES = {"RawDeployment": "Standard", "Serverless": "Knative"}
AUTOSCALERS = ("hpa", "external", "keda", "none")
NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"
# In the order in which KServe turns them into `model`; those with a protocol get v2 unless they say otherwise.
FRAMEWORKS = (
    *("sklearn", "tensorflow", "xgboost", "pytorch", "triton"),
    *("onnx", "huggingface", "pmml", "lightgbm", "paddle"),
)
V2_FRAMEWORKS = ("triton", "onnx", "huggingface")
EXACTLY_ONE = (
    "exactly one of [Name, SKLearn, XGBoost, Tensorflow, PyTorch, Triton, ONNX, HuggingFace, PMML, LightGBM, Paddle, "
    "Model, StorageUris, StorageContainerName, WorkerSpec, PodSpec] must be specified in PredictorSpec"
)
EXACTLY_ONE_TRANSFORMER = "exactly one of [PodSpec, ComponentExtensionSpec] must be specified in TransformerSpec"
CANARY_FORBIDDEN = ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling")


class Refused(Exception):
    """A webhook's reason."""


@dataclass(frozen=True)
class Admission:
    """KServe's webhooks. `default_mode` is that of KServe's config map; only Standard is written on objects."""

    default_mode: str = "Knative"

    def mutate(self, resource: Resource, body: Body, old: Body | None) -> Body:
        """The object with KServe's defaults. Raises ApiError 500 where the real webhook panics."""
        if not _concerns(resource):
            return body
        body = copy.deepcopy(body)
        _default_mode(body, self.default_mode)
        spec = body.get("spec") or {}
        if not isinstance(spec, dict):
            return body
        predictor = spec.get("predictor")
        if isinstance(predictor, dict):
            _default_predictor(predictor, body["metadata"])
        if not isinstance(predictor, dict) or not _implementations(predictor):
            raise ApiError(
                500, "", _denied("defaulter", "panic: runtime error: index out of range [0] with length 0 [recovered]")
            )
        for component in _components(body["spec"]):
            _default_containers(component)
        return body

    def validate(self, resource: Resource, body: Body, old: Body | None, existing: Iterable[Body] = ()) -> None:
        """Raises ApiError 403 with KServe's reason, or with ours for a kind that the sandbox cannot run.

        `existing`: the objects of the kind that there are, in the same namespace.
        """
        if resource.unserved:
            why = f"the sandbox has nothing that runs a {resource.kind}; use a cluster with KServe for it"
            raise ApiError(403, "Forbidden", f'admission webhook "sandbox.kanary" denied the request: {why}')
        if resource.group == KSERVE and resource.kind in runtimeadmission.KINDS:
            if why := runtimeadmission.refusal(resource.kind, body, existing):
                raise ApiError(403, "Forbidden", _denied("validator", why, resource.kind.lower()))
            return
        if not _concerns(resource) or body["metadata"].get("deletionTimestamp"):
            return
        try:
            if old is not None:
                _check_change(body, old)
            _check_service(body)
        except Refused as refused:
            raise ApiError(403, "Forbidden", _denied("validator", str(refused))) from refused


def _concerns(resource: Resource) -> bool:
    return resource.group == KSERVE and resource.kind == "InferenceService"


def _denied(webhook: str, why: str, kind: str = "inferenceservice") -> str:
    return f'admission webhook "{kind}.kserve-webhook-server.{webhook}" denied the request: {why}'


def _default_mode(body: Body, default: str) -> None:
    annotations = body["metadata"].get("annotations") or {}
    mode = annotations.get(MODE)
    wanted = OLD_MODES.get(mode, mode) if mode is not None else default if default == "Standard" else None
    if wanted is not None and wanted != mode:
        body["metadata"]["annotations"] = annotations | {MODE: wanted}


def _default_predictor(predictor: Body, metadata: Body) -> None:
    framework = next((name for name in FRAMEWORKS if isinstance(predictor.get(name), dict)), "")
    if framework:
        spec = predictor.pop(framework)
        if framework in V2_FRAMEWORKS:
            spec.setdefault("protocolVersion", "v2")
        predictor["model"] = {"modelFormat": {"name": framework}} | spec
    model = predictor.get("model")
    if not isinstance(model, dict):
        return
    form = model.get("modelFormat")
    name = form.get("name", "") if isinstance(form, dict) else ""
    if name in ("triton", "vLLM"):
        model.setdefault("protocolVersion", "v2")
    if name and isinstance(name, str):
        annotations = metadata.get("annotations") or {}
        metadata["annotations"] = {"modelFormat": name} | annotations


def _components(spec: Body) -> list[Body]:
    canaries = [canary.get("predictor") for canary in _list(spec.get("canary")) if isinstance(canary, dict)]
    found = [spec.get("predictor"), spec.get("transformer"), spec.get("explainer"), *canaries]
    return [component for component in found if isinstance(component, dict)]


def _default_containers(component: Body) -> None:
    # The webhook answers with the Go struct, which always writes these.
    for container in [component.get(name) for name in ("model", *FRAMEWORKS)] + _list(component.get("containers")):
        if isinstance(container, dict):
            container.setdefault("name", "")
            container.setdefault("resources", {})


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _implementations(predictor: Body) -> int:
    named = sum(predictor.get(name) is not None for name in ("model", *FRAMEWORKS))
    return named + bool(predictor.get("containers"))


def _check_change(body: Body, old: Body) -> None:
    mode = (old.get("status") or {}).get("deploymentMode", "")
    if mode:
        mode = OLD_MODES.get(mode, mode)
        wanted = (body["metadata"].get("annotations") or {}).get(MODE, mode)
        if wanted != mode:
            raise Refused(f"update rejected: deploymentMode cannot be changed from '{mode}' to '{wanted}'")
    new_predictor, old_predictor = body["spec"]["predictor"], old["spec"]["predictor"]
    renamed = new_predictor.get("name", "") != old_predictor.get("name", "")
    if renamed and (_storage_uri(new_predictor) or "") == (_storage_uri(old_predictor) or ""):
        raise Refused("predictor.name change requires a model change (e.g. storageUri)")


def _storage_uri(predictor: Body) -> str | None:
    for name in ("model", *FRAMEWORKS):
        spec = predictor.get(name)
        if spec and "storageUri" in spec:
            return str(spec["storageUri"])
    for container in predictor.get("containers") or ():
        for variable in container.get("env") or ():
            if variable.get("name") == "STORAGE_URI":
                return str(variable.get("value", ""))
    return None


def _check_service(body: Body) -> None:
    metadata, spec = body["metadata"], body["spec"]
    annotations = metadata.get("annotations") or {}
    if not re.fullmatch(NAME, metadata["name"]):
        raise Refused(
            f'the InferenceService "{metadata["name"]}" is invalid: a InferenceService name must consist of lower case '
            "alphanumeric characters or '-', and must start with alphabetical character. (e.g. \"my-name\" or "
            f"\"abc-123\", regex used for validation is '{NAME}')"
        )
    autoscaler = annotations.get(AUTOSCALER)
    if autoscaler is not None and autoscaler not in AUTOSCALERS:
        raise Refused(f"[{autoscaler}] is not a supported autoscaler class type")
    predictor = spec["predictor"]
    if any((predictor.get(name) or {}).get("name") for name in ("model", *FRAMEWORKS)):
        raise Refused("the 'name' field is not allowed in standard predictor")
    _check_predictor(predictor)
    _check_scaling(predictor, annotations)
    transformer = spec.get("transformer")
    if transformer is not None:
        if not transformer.get("containers"):
            raise Refused(EXACTLY_ONE_TRANSFORMER)
        _check_extensions(transformer)
        _check_scaling(transformer, annotations)
    _check_canaries(spec, annotations)


def _check_predictor(predictor: Body) -> None:
    if _implementations(predictor) != 1:
        raise Refused(EXACTLY_ONE)
    _check_extensions(predictor)


def _check_extensions(component: Body) -> None:
    if component.get("containerConcurrency", 0) < 0:
        raise Refused("parallelism cannot be less than 0")
    least, most = component.get("minReplicas", 1), component.get("maxReplicas", 0)
    if least < 0:
        raise Refused("'MinReplicas' cannot be less than 0")
    if most < 0:
        raise Refused("'MaxReplicas' cannot be less than 0")
    if least > most and most != 0:
        raise Refused("'MinReplicas' cannot be greater than MaxReplicas")
    logger = component.get("logger")
    if logger is not None and logger.get("mode") not in ("all", "request", "response"):
        raise Refused("invalid logger type")
    storage = (logger or {}).get("storage")
    if storage is not None and not all(field in storage for field in ("path", "parameters", "key")):
        raise Refused("invalid logger storage configuration")


def _check_scaling(component: Body, annotations: Body) -> None:
    metric, target = component.get("scaleMetric"), component.get("scaleTarget")
    if annotations.get(MODE) == "Standard":
        if annotations.get(AUTOSCALER) == "hpa":
            _check_hpa(metric or "cpu", target)
        elif annotations.get(AUTOSCALER) == "keda" and metric is not None:
            raise Refused("ScaleMetric is not supported for KEDA")
    elif annotations.get(KNATIVE_AUTOSCALER) == "hpa.autoscaling.knative.dev":
        _check_hpa(metric or "cpu", target)
    else:
        if component.get("deploymentStrategy") is not None:
            raise Refused("customizing deploymentStrategy is only supported for raw deployment mode")
        if metric not in (None, "concurrency", "rps"):
            raise Refused(f"[{metric}] is not a supported metric")
        if metric == "rps" and target is not None and target < 1:
            raise Refused("the target for rps should be greater than 1")


def _check_hpa(metric: str, target: int | None) -> None:
    if metric not in ("cpu", "memory"):
        raise Refused(f"[{metric}] is not a supported metric")
    # Sic: the upper bound holds for memory too.
    if target is not None and ((metric == "cpu" and target < 1) or target > 100):
        raise Refused("the target utilization percentage should be a [1-100] integer")
    if target is not None and metric == "memory" and target < 1:
        raise Refused("the target memory should be greater than 1 MiB")


def _check_canaries(spec: Body, annotations: Body) -> None:
    canaries = spec.get("canary") or []
    if not canaries:
        return
    stable = spec["predictor"]
    if annotations.get(MODE) != "Standard":
        raise Refused("canary is only supported in Standard deployment mode")
    if _storage_uri(stable) is None and stable.get("model") is None:
        raise Refused(
            "canary requires a stable predictor with a model (multi-model serving is not supported with canary)"
        )
    names: set[str] = set()
    for index, canary in enumerate(canaries):
        name = canary["predictor"].get("name", "")
        if not name:
            raise Refused(f"canary[{index}] predictor.name is required")
        if name in names:
            raise Refused(f'canary predictor.name "{name}" is duplicated')
        if name == stable.get("name", ""):
            raise Refused(f'canary predictor.name "{name}" conflicts with stable predictor name')
        names.add(name)
        _check_canary(canary["predictor"], name, stable.get("minReplicas", 1))
    total = sum(canary["trafficPercent"] for canary in canaries)
    if total > 100:
        raise Refused(f"sum of canary trafficPercent values ({total}) must be <= 100")


def _check_canary(predictor: Body, name: str, stable_replicas: int) -> None:
    try:
        _check_predictor(predictor)
    except Refused as refused:
        raise Refused(f'canary "{name}" predictor: {refused}') from refused
    if predictor.get("workerSpec") is not None:
        raise Refused(f'canary "{name}" must not set workerSpec (multi-node is not yet supported for canary)')
    for field in CANARY_FORBIDDEN:
        if predictor.get(field) is not None and (field != "maxReplicas" or predictor[field] > 0):
            raise Refused(f'canary "{name}" must not set {field} (canary uses fixed replicas)')
    replicas = predictor.get("minReplicas")
    if replicas is not None and replicas > stable_replicas:
        raise Refused(
            f'canary "{name}" minReplicas ({replicas}) must not exceed stable predictor minReplicas ({stable_replicas})'
        )
