"""Whether a pipeline has the shape of a PipelineSpec at all, before the engine asks whether it makes sense.

Fields the proto does not have are passed over, those it has must be of their type. Names become names of files, so
they must not be paths. Source: api/v2alpha1/pipeline_spec.proto of kubeflow/pipelines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sandbox.documents import PipelineDocument
from sandbox.engine.check import check
from sandbox.errors import InvalidSpec

Shape = Any
"""A type or several, `object` for any, {field: shape} for a message, Whole, [shape] for a list, or NamesTo."""

_LONGEST_NAME = 200


@dataclass(frozen=True)
class NamesTo:
    """A map whose keys are names that the pipeline's author chose."""

    shape: Shape


@dataclass(frozen=True)
class Whole:
    """A message that means nothing unless it has all its fields."""

    fields: dict[str, Shape]


NUMBER = (int, float)
COUNT = (int, float, str)  # proto-JSON writes 64-bit integers as text

_ARTIFACT_TYPE = {"schemaTitle": str, "schemaUri": str, "schemaVersion": str, "instanceSchema": str}
_INPUTS = {
    "artifacts": NamesTo({"artifactType": _ARTIFACT_TYPE, "isArtifactList": bool, "isOptional": bool}),
    "parameters": NamesTo({"parameterType": str, "isOptional": bool, "defaultValue": object}),
}
_OUTPUTS = {
    "artifacts": NamesTo({"artifactType": _ARTIFACT_TYPE, "metadata": NamesTo(object), "isArtifactList": bool}),
    "parameters": NamesTo({"parameterType": str, "isOptional": bool}),
}
_TASK_PARAMETER = Whole({"producerTask": str, "outputParameterKey": str})
_TASK_ARTIFACT = Whole({"producerTask": str, "outputArtifactKey": str})
_PARAMETER = {
    "taskOutputParameter": _TASK_PARAMETER,
    "runtimeValue": {"constant": object, "runtimeParameter": str},
    "componentInputParameter": str,
    "parameterExpressionSelector": str,
    "taskFinalStatus": Whole({"producerTask": str}),
}
_ARTIFACT = {"taskOutputArtifact": _TASK_ARTIFACT, "componentInputArtifact": str}
_TASK = {
    "taskInfo": {"name": str},
    "componentRef": {"name": str},
    "inputs": {"parameters": NamesTo(_PARAMETER), "artifacts": NamesTo(_ARTIFACT)},
    "dependentTasks": [str],
    "cachingOptions": {"enableCache": bool, "cacheKey": str},
    "triggerPolicy": {"condition": str, "strategy": str},
    "parameterIterator": {"items": {"raw": str, "inputParameter": str}, "itemInput": str},
    "artifactIterator": {"items": {"inputArtifact": str}, "itemInput": str},
    "iteratorPolicy": {"parallelismLimit": NUMBER},
    "retryPolicy": {
        "maxRetryCount": NUMBER,
        "backoffDuration": str,
        "backoffFactor": NUMBER,
        "backoffMaxDuration": str,
    },
}
_SELECTOR = Whole({"producerSubtask": str, "outputParameterKey": str})
_DAG_OUTPUTS = {
    "artifacts": NamesTo({"artifactSelectors": [Whole({"producerSubtask": str, "outputArtifactKey": str})]}),
    "parameters": NamesTo(
        {"valueFromParameter": _SELECTOR, "valueFromOneof": {"parameterSelectors": [_SELECTOR]}},
    ),
}
_COMPONENT = {
    "inputDefinitions": _INPUTS,
    "outputDefinitions": _OUTPUTS,
    "executorLabel": str,
    "dag": {"tasks": NamesTo(_TASK), "outputs": _DAG_OUTPUTS},
}
_RESOURCES = {
    "cpuLimit": NUMBER,
    "cpuRequest": NUMBER,
    "memoryLimit": NUMBER,
    "memoryRequest": NUMBER,
    "resourceCpuLimit": str,
    "resourceCpuRequest": str,
    "resourceMemoryLimit": str,
    "resourceMemoryRequest": str,
    "accelerator": {"type": str, "count": COUNT, "resourceType": str, "resourceCount": COUNT},
}
_EXECUTOR = {
    "container": {
        "image": str,
        "command": [str],
        "args": [str],
        "env": [Whole({"name": str, "value": str})],
        "resources": _RESOURCES,
    },
    "importer": {
        "artifactUri": {"constant": object, "runtimeParameter": str},
        "typeSchema": _ARTIFACT_TYPE,
        "metadata": NamesTo(object),
        "reimport": bool,
    },
}
_PIPELINE = {
    "pipelineInfo": {"name": str, "displayName": str, "description": str},
    "schemaVersion": str,
    "sdkVersion": str,
    "defaultPipelineRoot": str,
    "components": NamesTo(_COMPONENT),
    "root": _COMPONENT,
    "deploymentSpec": {"executors": NamesTo(_EXECUTOR)},
}


def check_pipeline(document: PipelineDocument) -> None:
    """Raises InvalidSpec for what is no pipeline, Unsupported for one that the engine cannot run; both say where."""
    check_shape(document.spec, _PIPELINE, "")
    check(document.spec, document.platform_spec or None)


def check_shape(value: Any, shape: Shape, where: str) -> None:
    """Raises InvalidSpec naming the first place where `value` is not of `shape`."""
    if isinstance(shape, dict):
        for name, item in _expect(value, dict, where).items():
            if name in shape:
                check_shape(item, shape[name], f"{where}.{name}" if where else name)
    elif isinstance(shape, Whole):
        missing = [name for name in shape.fields if name not in _expect(value, dict, where)]
        if missing:
            raise InvalidSpec(f"lacks {missing[0]}", where)
        check_shape(value, shape.fields, where)
    elif isinstance(shape, NamesTo):
        for name, item in _expect(value, dict, where).items():
            _check_name(name, where)
            check_shape(item, shape.shape, f"{where}.{name}")
    elif isinstance(shape, list):
        for number, item in enumerate(_expect(value, list, where)):
            check_shape(item, shape[0], f"{where}[{number}]")
    else:
        _expect(value, shape, where)


def _expect(value: Any, kinds: Any, where: str) -> Any:
    accepted = kinds if isinstance(kinds, tuple) else (kinds,)
    # bool is an int to Python, and to nobody else.
    if not isinstance(value, accepted) or (isinstance(value, bool) and not {bool, object} & set(accepted)):
        names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
        raise InvalidSpec(f"must be {names.get(accepted[0], 'a number')}, not {type(value).__name__}", where)
    return value


def _check_name(name: str, where: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(name) > _LONGEST_NAME:
        raise InvalidSpec(f"{name[:50]!r} cannot be a name: it would be a path, or too long for one", where)
