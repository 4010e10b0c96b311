"""Writes models.json: OpenAPI v3 schemas of the kinds served, read off the Python models of kserve and kubernetes.

Run it after an upgrade of either package: `python -m sandbox.kubernetes.schemas.generate`. The models say names and
types; what they leave out (formats, list types, defaults, bounds) is written down below. The server never imports this.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

Schema = dict[str, Any]


def words(text: str) -> list[str]:
    return text.split()


ROOTS = words(
    "V1beta1InferenceService V1alpha1ServingRuntime V1alpha1ClusterServingRuntime V1ConfigMap V1Secret V1Lease "
    "V1alpha1TrainedModel V1alpha1InferenceGraph V1alpha1ClusterStorageContainer "
    "V1SelfSubjectReview V1SelfSubjectAccessReview V1SelfSubjectRulesReview "
    "CoreV1Event EventsV1Event V1Namespace V1ServiceAccount V1Pod V1Service V1Deployment V2HorizontalPodAutoscaler"
)
OPEN = {"GithubComKedacoreKedaV2ApisKedaV1alpha1ScaleTriggers", "V1ContainerRestartRule"}
QUANTITY: Schema = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": (
        r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
        r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
    ),
    "x-kubernetes-int-or-string": True,
}
INT_OR_STRING: Schema = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
SCALARS: dict[str, Schema] = {
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "int": {"type": "integer", "format": "int32"},
    "datetime": {"type": "string", "format": "date-time"},
    "V1Time": {"type": "string", "format": "date-time"},
    "KnativeURL": {"type": "string"},
    "KnativeVolatileTime": {"type": "string"},
    "ResourceQuantity": QUANTITY,
    "V1beta1MetricQuantity": QUANTITY,
    "K8sIoApimachineryPkgApiResourceQuantity": QUANTITY,
    "object": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
}
INT64 = set(
    words(
        "activeDeadlineSeconds canaryTrafficPercent containerConcurrency terminationGracePeriodSeconds timeout percent "
        "tolerationSeconds fsGroup runAsGroup runAsUser expirationSeconds seconds observedGeneration generation "
        "deletionGracePeriodSeconds supplementalGroups"
    )
)
PLAIN_INTEGERS = set(
    words(
        "pipelineParallelSize tensorParallelSize batchSize maxLatency maxBatchSize replicas memBufferBytes "
        "modelLoadingTimeoutMillis runtimeManagementPort failedCopies totalCopies"
    )
)
INT_OR_STRING_FIELDS = {"port", "targetPort", "maxSurge", "maxUnavailable"}
QUANTITY_FIELDS = {"limits", "requests", "overhead", "sizeLimit", "divisor", "averageValue", "capacity"}
LIST_MAP_KEYS = {
    "V1ContainerPort": ["containerPort", "protocol"],
    "V1EnvVar": ["name"],
    "V1VolumeMount": ["mountPath"],
    "V1VolumeDevice": ["devicePath"],
    "V1TopologySpreadConstraint": ["topologyKey", "whenUnsatisfiable"],
    "V1PodSchedulingGate": ["name"],
    "V1PodResourceClaim": ["name"],
    "V1OwnerReference": ["uid"],
    "V1ResourceClaim": ["name"],
}
# Built-in kinds merge these lists by key too; in a CRD made from the same Go types they are atomic.
BUILTIN_LIST_MAP_KEYS = {
    "V1Container": ["name"],
    "V1Volume": ["name"],
    "V1ServicePort": ["port", "protocol"],
    "V1NamespaceCondition": ["type"],
    "V1PodCondition": ["type"],
    "V1DeploymentCondition": ["type"],
    "V1LocalObjectReference": ["name"],
}
ATOMIC_MAPS = set(
    words(
        "V1ConfigMapKeySelector V1ConfigMapEnvSource V1ObjectFieldSelector V1ResourceFieldSelector V1SecretKeySelector "
        "V1SecretEnvSource V1ConfigMapVolumeSource V1SecretProjection V1TypedLocalObjectReference "
        "V1LabelSelector V1LocalObjectReference V1SecretReference V1NodeSelectorTerm V1NodeSelector V1ObjectReference "
        "V1OwnerReference"
    )
)
BYTES: Schema = {"type": "object", "additionalProperties": {"type": "string", "format": "byte"}}
CANARY_TRAFFIC = {"type": "integer", "format": "int32", "minimum": 0, "maximum": 100}
STATES = ["", "Pending", "Standby", "Loading", "Loaded", "FailedToLoad"]
OVERLAYS: dict[str, dict[str, Schema]] = {
    "V1beta1CanarySpec": {"trafficPercent": CANARY_TRAFFIC},
    "V1beta1PredictorSpec": {
        "name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
    },
    "V1beta1StorageUri": {
        "mountPath": {"type": "string", "default": "/mnt/models", "maxLength": 255, "pattern": "^/.*"},
        "uri": {"type": "string", "minLength": 1},
    },
    "V1beta1LoggerSpec": {"mode": {"type": "string", "enum": ["all", "request", "response"]}},
    "V1beta1ModelCopies": {"failedCopies": {"type": "integer", "default": 0}, "totalCopies": {"type": "integer"}},
    "V1beta1ModelRevisionStates": {
        "activeModelState": {"type": "string", "enum": STATES, "default": "Pending"},
        "targetModelState": {"type": "string", "enum": STATES, "default": ""},
    },
    "V1beta1ModelStatus": {
        "transitionStatus": {
            "type": "string",
            "enum": ["", "UpToDate", "InProgress", "BlockedByFailedLoad", "InvalidSpec"],
            "default": "UpToDate",
        }
    },
    "V1beta1FailureInfo": {
        "reason": {
            "type": "string",
            "enum": words(
                "ModelLoadFailed RuntimeUnhealthy RuntimeDisabled NoSupportingRuntime RuntimeNotRecognized "
                "InvalidPredictorSpec"
            ),
        }
    },
    "V1beta1MetricsSpec": {"type": {"type": "string", "enum": ["Resource", "External", "PodMetric"]}},
    "V1beta1ResourceMetricSource": {"name": {"type": "string", "enum": ["cpu", "memory"]}},
    "V1beta1ExternalMetrics": {"backend": {"type": "string", "enum": ["prometheus", "graphite"]}},
    "V1beta1PodMetrics": {"backend": {"type": "string", "enum": ["opentelemetry"]}},
    "V1beta1MetricTarget": {"type": {"type": "string", "enum": ["Utilization", "Value", "AverageValue"]}},
    "V1alpha1SupportedModelFormat": {"priority": {"type": "integer", "format": "int32", "minimum": 1}},
    "V1GRPCAction": {"service": {"type": "string", "default": ""}},
    "V1ConfigMapVolumeSource": {"name": {"type": "string", "default": ""}},
    "V1SecretProjection": {"name": {"type": "string", "default": ""}},
    "V1ContainerPort": {"protocol": {"type": "string", "default": "TCP"}},
    "V1LocalObjectReference": {"name": {"type": "string", "default": ""}},
    "V1ConfigMapKeySelector": {"name": {"type": "string", "default": ""}},
    "V1SecretKeySelector": {"name": {"type": "string", "default": ""}},
    "V1ConfigMapEnvSource": {"name": {"type": "string", "default": ""}},
    "V1SecretEnvSource": {"name": {"type": "string", "default": ""}},
    "V1ObjectMeta": {"finalizers": {"x-kubernetes-list-type": "set"}},
    "V1Secret": {"data": BYTES},
    "V1ConfigMap": {"binaryData": BYTES},
}
# Fields that are newer than the package.
NEWER: dict[str, dict[str, Schema]] = {
    "V1LeaseSpec": {"preferredHolder": {"type": "string"}, "strategy": {"type": "string"}},
}
REQUIRED: dict[str, list[str]] = {
    "KnativeCondition": ["status", "type"],
    "V1beta1InferenceServiceSpec": ["predictor"],
    "V1beta1ModelFormat": ["name"],
    "V1alpha1SupportedModelFormat": ["name"],
    "V1PodOS": [],
    "V1beta1ModelCopies": ["failedCopies"],
    "V1beta1ModelRevisionStates": ["activeModelState"],
    "V1beta1ModelStatus": ["transitionStatus"],
    "V1beta1CanaryStatus": ["name", "ready", "trafficPercent"],
    "V1beta1MetricsSpec": ["type"],
    # The API server defaults this one for built-in kinds and a CRD inlines it without.
    "V1ObjectMeta": [],
    "CoreV1Event": ["involvedObject", "metadata"],
    "V1beta1PredictorSpec": [],
    "V1beta1TransformerSpec": [],
    "V1beta1ExplainerSpec": [],
    "V1beta1ARTExplainerSpec": [],
    "V1beta1WorkerSpec": [],
}
ENUMS = {
    "scaleMetric": ["cpu", "memory", "concurrency", "rps"],
    "scaleMetricType": ["Utilization", "Value", "AverageValue"],
}
# Of the CRD's two copies of the predictor, KServe's patches relax only the stable one.
IMPLEMENTATIONS = words("huggingface lightgbm model onnx paddle pmml pytorch sklearn tensorflow triton xgboost")


def model_class(name: str) -> type[Any] | None:
    """The model class of either package, or None for a name that neither has."""
    for module in ("kserve.models", "kserve", "kubernetes.client.models"):
        found = getattr(importlib.import_module(module), name, None)
        if found is not None and hasattr(found, "openapi_types"):
            return found  # type: ignore[no-any-return]
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    try:
        return getattr(importlib.import_module(f"kserve.models.{snake}"), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError):
        return None


def field_schema(field: str, declared: str, queue: list[str]) -> Schema:
    """The schema of one declared type; names of models that it mentions are added to `queue`."""
    inner = re.fullmatch(r"list\[(.+)\]", declared)
    if inner:
        return list_schema(field, inner[1], queue)
    if field == "nodeSelector" and declared == "dict(str, str)":
        return {"type": "object", "additionalProperties": SCALARS["str"], "x-kubernetes-map-type": "atomic"}
    inner = re.fullmatch(r"dict\(str, (.+)\)", declared)
    if inner:
        return {"type": "object", "additionalProperties": field_schema(field, inner[1], queue)}
    if field in QUANTITY_FIELDS and declared in ("str", "object"):
        return QUANTITY
    if declared == "object" and field in INT_OR_STRING_FIELDS:
        return INT_OR_STRING
    if declared == "int" and field in INT64:
        return {"type": "integer", "format": "int64"}
    if declared == "int" and field in PLAIN_INTEGERS:
        return {"type": "integer"}
    if declared in SCALARS:
        schema = dict(SCALARS[declared])
        return schema | {"enum": ENUMS[field]} if field in ENUMS else schema
    if declared in OPEN or model_class(declared) is None:
        return dict(SCALARS["object"])
    queue.append(declared)
    return {"$ref": f"#/components/schemas/{declared}"}


def list_schema(field: str, item: str, queue: list[str]) -> Schema:
    schema: Schema = {"type": "array", "items": field_schema(field, item, queue)}
    if item in LIST_MAP_KEYS:
        schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": LIST_MAP_KEYS[item]}
    elif item in BUILTIN_LIST_MAP_KEYS:
        schema["x-builtin-list-map-keys"] = BUILTIN_LIST_MAP_KEYS[item]
    if field == "storageUris":
        schema["minItems"] = 1
    return schema


def definition(name: str, queue: list[str]) -> Schema:
    cls = model_class(name)
    assert cls is not None, name
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for attribute, declared in cls.openapi_types.items():
        key = cls.attribute_map[attribute]
        schema = field_schema(key, declared, queue)
        overlay = OVERLAYS.get(name, {}).get(key, {})
        properties[key] = overlay if "type" in overlay else schema | overlay
        setter = getattr(cls, attribute).fset
        if "must not be `None`" in inspect.getsource(setter):
            required.append(key)
    properties |= NEWER.get(name, {})
    required = REQUIRED.get(name, required)
    schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = sorted(required)
    if name in ATOMIC_MAPS:
        schema["x-kubernetes-map-type"] = "atomic"
    return schema


def relaxed(definitions: dict[str, Schema], name: str) -> str:
    """Adds a copy of a framework's definition without required fields and with probe ports optional; its name."""
    copy = json.loads(json.dumps(definitions[name]))
    copy.pop("required", None)
    for probe in ("livenessProbe", "readinessProbe"):
        if probe in copy["properties"]:
            copy["properties"][probe] = {"$ref": "#/components/schemas/StableProbe"}
    definitions[f"Stable{name}"] = copy
    return f"Stable{name}"


def add_stable_predictor(definitions: dict[str, Schema]) -> None:
    probe = json.loads(json.dumps(definitions["V1Probe"]))
    for action in ("httpGet", "tcpSocket"):
        source = json.loads(json.dumps(definitions[probe["properties"][action]["$ref"].rsplit("/", 1)[1]]))
        source.pop("required", None)
        probe["properties"][action] = source
    definitions["StableProbe"] = probe
    # The same holds for the containers of a pod; nobody serves a probe without a port, but the CRD takes it.
    container = json.loads(json.dumps(definitions["V1Container"]))
    for field in ("livenessProbe", "readinessProbe"):
        container["properties"][field] = {"$ref": "#/components/schemas/StableProbe"}
    definitions["StableContainer"] = container
    predictor = json.loads(json.dumps(definitions["V1beta1PredictorSpec"]))
    predictor["properties"]["containers"]["items"] = {"$ref": "#/components/schemas/StableContainer"}
    del predictor["properties"]["ephemeralContainers"]
    for field in IMPLEMENTATIONS:
        target = predictor["properties"][field]["$ref"].rsplit("/", 1)[1]
        predictor["properties"][field] = {"$ref": f"#/components/schemas/{relaxed(definitions, target)}"}
    definitions["StablePredictorSpec"] = predictor
    properties = definitions["V1beta1InferenceServiceSpec"]["properties"]
    properties["predictor"] = {"$ref": "#/components/schemas/StablePredictorSpec"}
    properties["canary"]["x-kubernetes-list-type"] = "atomic"


def definitions() -> dict[str, Schema]:
    """All schemas by model name, each property once, references as OpenAPI v3 components."""
    done: dict[str, Schema] = {}
    queue = list(ROOTS)
    while queue:
        name = queue.pop()
        if name not in done:
            done[name] = definition(name, queue)
    add_stable_predictor(done)
    for implementation in [n for n in done if n.startswith("V1beta1") and n.endswith("Spec")]:
        properties = done[implementation]["properties"]
        served = "image" in properties and "storageUri" in properties and "name" in properties
        if served and REQUIRED.get(implementation) != []:
            base = {"name"} | ({"modelFormat"} if "modelFormat" in properties else set())
            done[implementation]["required"] = sorted(base)
    done["V1beta1InferenceServiceStatus"]["x-kubernetes-preserve-unknown-fields"] = True
    return done


def main() -> None:
    """Writes models.json beside this file."""
    target = Path(__file__).with_name("models.json")
    text = json.dumps(definitions(), sort_keys=True, separators=(",", ":"))
    target.write_text(text.replace('},"', '},\n"') + "\n", encoding="utf-8")
    print(f"{target.name}: {len(text):,} bytes")


if __name__ == "__main__":
    main()
