"""Checks a compiled pipeline at submission, so that nothing is refused half-way through a run.

Works on PipelineSpec as the proto-JSON that the KFP compiler writes (api/v2alpha1/pipeline_spec.proto).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from sandbox.engine import cel, lightweight
from sandbox.errors import InvalidSpec, Unsupported

_MAX_DEPTH = 50
_TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "LIST": (list,),
    "STRUCT": (dict,),
}
_SCHEMA = "2.1.0"


def check(spec: Mapping[str, Any], platform_spec: Mapping[str, Any] | None = None) -> None:
    """Raise InvalidSpec or Unsupported, saying where, for a pipeline that this engine would not run faithfully."""
    if not isinstance(spec, dict):
        raise InvalidSpec("the pipeline is not a mapping", "", "submit what the KFP compiler wrote")
    version = spec.get("schemaVersion")
    if version is None or "pipelineInfo" not in spec or "root" not in spec:
        raise InvalidSpec(
            "not a compiled KFP v2 pipeline (schemaVersion, pipelineInfo and root are needed)",
            "",
            "compile it with kfp 2: kfp dsl compile --py FILE --output pipeline.yaml",
        )
    if version != _SCHEMA:
        raise Unsupported(f"schema version {version!r}; this engine knows {_SCHEMA}", "schemaVersion")
    name = _mapping(spec["pipelineInfo"], "pipelineInfo").get("name")
    if not isinstance(name, str) or not name:
        raise InvalidSpec("the pipeline has no name", "pipelineInfo.name")
    root = _mapping(spec["root"], "root")
    _check_component(root, "root", spec, ())


def bind_parameters(spec: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The pipeline's parameters with defaults filled in and types checked; InvalidSpec names what is wrong."""
    definitions = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    unknown = sorted(set(given) - set(definitions))
    if unknown:
        raise InvalidSpec(
            f"unknown parameter {unknown[0]!r}",
            "runtime_config.parameters",
            f"this pipeline takes: {', '.join(sorted(definitions)) or 'no parameters'}",
        )
    bound: dict[str, Any] = {}
    for name, definition in definitions.items():
        if name in given and given[name] is not None:
            bound[name] = typed(given[name], definition.get("parameterType"), f"runtime_config.parameters.{name}")
        elif "defaultValue" in definition:
            bound[name] = typed(definition["defaultValue"], definition.get("parameterType"), f"root.{name}")
        elif not definition.get("isOptional"):
            raise InvalidSpec(f"parameter {name!r} is missing", "runtime_config.parameters")
    return bound


def typed(value: Any, kind: str | None, where: str) -> Any:
    """`value` as parameter type `kind`, whole numbers as int as in Go's JSON. InvalidSpec where it is of another."""
    if kind in ("TASK_FINAL_STATUS", "TASK_CONFIG", None):
        return value
    allowed = _TYPES.get(kind)
    if allowed is None:
        raise Unsupported(f"parameter type {kind}", where)
    fits = isinstance(value, allowed) and (kind == "BOOLEAN" or not isinstance(value, bool))
    if fits and kind == "NUMBER_INTEGER":
        fits = isinstance(value, int) or value.is_integer()
    if not fits:
        raise InvalidSpec(f"{value!r} is not of type {kind}", where)
    return plain_numbers(value, where)


def plain_numbers(value: Any, where: str = "") -> Any:
    """Numbers as they come out of protobuf's JSON: 3.0 is 3. NaN and infinity have no JSON and are refused."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidSpec(f"{value} cannot be a parameter value: JSON has no such number", where)
        return int(value) if value.is_integer() and abs(value) < 1e21 else value
    if isinstance(value, list):
        return [plain_numbers(item, where) for item in value]
    if isinstance(value, dict):
        return {key: plain_numbers(item, where) for key, item in value.items()}
    return value


def executors(spec: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every executor of the pipeline by its label."""
    yield from spec.get("deploymentSpec", {}).get("executors", {}).items()


def component(spec: Mapping[str, Any], task: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The component a task refers to."""
    name = task.get("componentRef", {}).get("name", "")
    found = spec.get("components", {}).get(name)
    if not isinstance(found, dict):
        raise InvalidSpec(f"there is no component {name!r}", f"{where}.componentRef.name")
    return found


def upstream(task: Mapping[str, Any]) -> set[str]:
    """The tasks of the same DAG that a task waits for: named dependencies, and the producers of its inputs."""
    names = set(task.get("dependentTasks", []))
    inputs = task.get("inputs", {})
    for source in [*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()]:
        for key in ("taskOutputParameter", "taskOutputArtifact"):
            if key in source:
                names.add(source[key]["producerTask"])
    return names


def _check_component(found: Mapping[str, Any], where: str, spec: Mapping[str, Any], above: tuple[str, ...]) -> None:
    if "dag" in found:
        tasks = _mapping(_mapping(found["dag"], f"{where}.dag").get("tasks", {}), f"{where}.dag.tasks")
        for name, task in tasks.items():
            _check_task(name, _mapping(task, f"{where}.dag.tasks.{name}"), f"{where}.dag.tasks.{name}", spec, tasks)
            reference = task.get("componentRef", {}).get("name", "")
            if reference in above:
                raise InvalidSpec(f"component {reference!r} contains itself", f"{where}.dag.tasks.{name}")
            if len(above) > _MAX_DEPTH:
                raise InvalidSpec(f"nested more than {_MAX_DEPTH} deep", where)
            place = f"components.{reference}"
            _check_component(component(spec, task, f"{where}.dag.tasks.{name}"), place, spec, (*above, reference))
        _check_acyclic(tasks, where)
        return
    label = found.get("executorLabel")
    executor = dict(executors(spec)).get(label or "")
    if executor is None:
        raise InvalidSpec(f"there is no executor {label!r}", f"{where}.executorLabel")
    place = f"deploymentSpec.executors.{label}"
    if "importer" in executor:
        raise Unsupported("an importer: the sandbox does not run importers yet", place)
    if "container" not in executor:
        raise Unsupported(f"an executor of kind {', '.join(executor) or 'none'}", place)
    lightweight.read(_mapping(executor["container"], f"{place}.container"), place)


def _check_task(
    name: str, task: Mapping[str, Any], where: str, spec: Mapping[str, Any], siblings: Mapping[str, Any]
) -> None:
    for key in ("parameterIterator", "artifactIterator"):
        if key in task:
            raise Unsupported("a loop (dsl.ParallelFor): the sandbox does not run loops yet", f"{where}.{key}")
    policy = task.get("triggerPolicy", {})
    if policy.get("strategy", "ALL_UPSTREAM_TASKS_SUCCEEDED") not in (
        "ALL_UPSTREAM_TASKS_SUCCEEDED",
        "TRIGGER_STRATEGY_UNSPECIFIED",
    ):
        raise Unsupported(
            f"{policy['strategy']} (dsl.ExitHandler, ignore_upstream_failure): not run by the sandbox yet",
            f"{where}.triggerPolicy.strategy",
        )
    if condition := policy.get("condition"):
        try:
            cel.parse(condition)
        except cel.ConditionError as error:
            raise InvalidSpec(
                f"the condition cannot be parsed: {condition}: {error.message}", f"{where}.triggerPolicy.condition"
            ) from error
    missing = upstream(task) - set(siblings)
    if missing:
        raise InvalidSpec(f"waits for {sorted(missing)[0]!r}, which is no task beside it", where)
    for kind in ("parameters", "artifacts"):
        for key, source in task.get("inputs", {}).get(kind, {}).items():
            _check_source(source, f"{where}.inputs.{kind}.{key}")


def _check_source(source: Mapping[str, Any], where: str) -> None:
    if "parameterExpressionSelector" in source:
        raise Unsupported("a part of a parameter (parameterExpressionSelector): not run by the sandbox yet", where)
    known = {
        "componentInputParameter",
        "taskOutputParameter",
        "runtimeValue",
        "componentInputArtifact",
        "taskOutputArtifact",
    }
    if not known & set(source):
        raise Unsupported(f"an input of kind {', '.join(source) or 'none'}", where)
    if "runtimeValue" in source and "constant" not in source["runtimeValue"]:
        raise Unsupported("a runtime value that is no constant", where)


def _check_acyclic(tasks: Mapping[str, Any], where: str) -> None:
    waiting = {name: upstream(task) for name, task in tasks.items()}
    while ready := [name for name, names in waiting.items() if not names & set(waiting)]:
        for name in ready:
            del waiting[name]
    if waiting:
        raise InvalidSpec(f"tasks wait for each other: {', '.join(sorted(waiting))}", f"{where}.dag.tasks")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidSpec(f"must be a mapping, not {type(value).__name__}", where)
    return value
