"""Reads a PipelineSpec: the proto-JSON that the KFP compiler writes (api/v2alpha1/pipeline_spec.proto)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from sandbox.errors import InvalidSpec, Unsupported

_TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "LIST": (list,),
    "STRUCT": (dict,),
}


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


def as_text(value: Any) -> str:
    """A parameter as KFP writes it where text is wanted: 1, 0.5, true, JSON for lists and structs, "" for null."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float) and not value.is_integer():
        return format(Decimal(repr(value)), "f")
    return json.dumps(plain_numbers(value), separators=(",", ":"), ensure_ascii=False)


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


def executor_of(spec: Mapping[str, Any], found: Mapping[str, Any]) -> Mapping[str, Any]:
    """What runs a component that is no DAG; {} where the pipeline has no such executor."""
    executor: Mapping[str, Any] = (
        spec.get("deploymentSpec", {}).get("executors", {}).get(found.get("executorLabel"), {})
    )
    return executor


def is_loop(task: Mapping[str, Any]) -> bool:
    """Whether a task runs once for each of some items (dsl.ParallelFor)."""
    return "parameterIterator" in task or "artifactIterator" in task


def runs_after_failure(task: Mapping[str, Any]) -> bool:
    """Whether a task waits for the end of those before it, however they end (ignore_upstream_failure, exit tasks)."""
    return bool(task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED")


def is_exit_task(task: Mapping[str, Any]) -> bool:
    """Whether a task is the exit task of a dsl.ExitHandler, which runs after a termination, too."""
    parameters = task.get("inputs", {}).get("parameters", {}).values()
    before = task.get("dependentTasks", [])
    return runs_after_failure(task) and (
        any("taskFinalStatus" in source for source in parameters)
        or (bool(before) and all(name.startswith("exit-handler-") for name in before))
    )


def upstream(task: Mapping[str, Any]) -> set[str]:
    """The tasks of the same DAG that a task waits for: named dependencies, and the producers of its inputs."""
    names = set(task.get("dependentTasks", []))
    inputs = task.get("inputs", {})
    for source in [*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()]:
        for key in ("taskOutputParameter", "taskOutputArtifact", "taskFinalStatus"):
            if key in source:
                names.add(source[key]["producerTask"])
    return names


def selectors(source: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Where an output of a DAG may come from; several for a dsl.OneOf."""
    several = source.get("valueFromOneof", {}).get("parameterSelectors") or source.get("artifactSelectors")
    return list(several) if several else [source["valueFromParameter"]] if "valueFromParameter" in source else []
