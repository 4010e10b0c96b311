"""Checks a compiled pipeline at submission, so that nothing is refused half-way through a run.

What is well-formed, but would not be run as Kubeflow runs it, is Unsupported and says what to do instead.
"""

from __future__ import annotations

import graphlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.engine import builtin, cel, containers, lightweight
from sandbox.engine.spec import component, executor_of, is_loop, selectors, upstream
from sandbox.errors import InvalidSpec, Unsupported

_MAX_DEPTH = 50
_MAX_TASKS = 20_000
_SCHEMA = "2.1.0"
_STRATEGIES = ("ALL_UPSTREAM_TASKS_SUCCEEDED", "ALL_UPSTREAM_TASKS_COMPLETED", "TRIGGER_STRATEGY_UNSPECIFIED")
_SOURCES = {
    "parameters": {"componentInputParameter", "taskOutputParameter", "runtimeValue", "taskFinalStatus"},
    "artifacts": {"componentInputArtifact", "taskOutputArtifact"},
}


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
    _Walk(spec).component(_mapping(spec["root"], "root"), "root")


@dataclass
class _Walk:
    """The components looked at so far, each with the number of tasks and the levels below it."""

    spec: Mapping[str, Any]
    known: dict[str, tuple[int, int]] = field(default_factory=dict)
    above: list[str] = field(default_factory=list)

    def component(self, found: Mapping[str, Any], where: str) -> tuple[int, int]:
        """Tasks and levels of a component, checked with all that is in it."""
        if "dag" not in found:
            _check_executor(found, where, self.spec)
            return 1, 0
        tasks = _mapping(_mapping(found["dag"], f"{where}.dag").get("tasks", {}), f"{where}.dag.tasks")
        for name, task in tasks.items():
            component(self.spec, _mapping(task, f"{where}.dag.tasks.{name}"), f"{where}.dag.tasks.{name}")
        count, levels = 1, 0
        for name, task in tasks.items():
            place = f"{where}.dag.tasks.{name}"
            _check_task(task, place, self.spec, tasks)
            inside = self.reference(task, place)
            count, levels = count + inside[0], max(levels, inside[1] + 1)
        if levels > _MAX_DEPTH:
            raise InvalidSpec(f"nested more than {_MAX_DEPTH} deep", where)
        if count > _MAX_TASKS:
            raise InvalidSpec(f"more than {_MAX_TASKS:,} tasks, nested pipelines counted wherever they are used", where)
        _check_acyclic(tasks, where)
        _check_outputs(found["dag"], f"{where}.dag.outputs", self.spec, tasks)
        return count, levels

    def reference(self, task: Mapping[str, Any], place: str) -> tuple[int, int]:
        """The same of the component that a task refers to; each is walked once, however often it is used."""
        name = task.get("componentRef", {}).get("name", "")
        found = component(self.spec, task, place)
        if name in self.above:
            raise InvalidSpec(f"component {name!r} contains itself", place)
        if name not in self.known:
            self.above.append(name)
            if len(self.above) > _MAX_DEPTH:
                raise InvalidSpec(f"nested more than {_MAX_DEPTH} deep", place)
            self.known[name] = self.component(found, f"components.{name}")
            self.above.pop()
        return self.known[name]


def _check_executor(found: Mapping[str, Any], where: str, spec: Mapping[str, Any]) -> None:
    label = found.get("executorLabel")
    executor = executor_of(spec, found)
    if not executor:
        raise InvalidSpec(f"there is no executor {label!r}", f"{where}.executorLabel")
    place = f"deploymentSpec.executors.{label}"
    if "importer" in executor:
        builtin.check_importer(_mapping(executor["importer"], f"{place}.importer"), found, f"{place}.importer")
        return
    if "container" not in executor:
        raise Unsupported(f"an executor of kind {', '.join(executor) or 'none'}", place)
    container = _mapping(executor["container"], f"{place}.container")
    if builtin.is_volume_step(container):
        return
    if lightweight.is_lightweight(container, place):
        lightweight.read(container, place)
    else:
        containers.check(container, place)


def _check_task(task: Mapping[str, Any], where: str, spec: Mapping[str, Any], siblings: Mapping[str, Any]) -> None:
    policy = task.get("triggerPolicy", {})
    if policy.get("strategy", _STRATEGIES[0]) not in _STRATEGIES:
        raise Unsupported(f"the strategy {policy['strategy']!r}", f"{where}.triggerPolicy.strategy")
    if condition := policy.get("condition"):
        try:
            cel.parse(condition)
        except cel.ConditionError as error:
            raise InvalidSpec(
                f"the condition cannot be parsed: {condition}: {error.message}", f"{where}.triggerPolicy.condition"
            ) from error
    missing = [name for name in upstream(task) if name not in siblings]
    if missing:
        raise InvalidSpec(f"waits for {sorted(missing)[0]!r}, which is no task beside it", where)
    if is_loop(task):
        _check_loop(task, where)
    for kind in ("parameters", "artifacts"):
        for key, source in task.get("inputs", {}).get(kind, {}).items():
            _check_source(source, kind, f"{where}.inputs.{kind}.{key}", spec, siblings)


def _check_loop(task: Mapping[str, Any], where: str) -> None:
    if "parameterIterator" in task and "artifactIterator" in task:
        raise InvalidSpec("a loop over parameters and over artifacts at once", where)
    key = "parameterIterator" if "parameterIterator" in task else "artifactIterator"
    items = _mapping(_mapping(task[key], f"{where}.{key}").get("items", {}), f"{where}.{key}.items")
    if not task[key].get("itemInput"):
        raise InvalidSpec("the loop does not say which input its item is", f"{where}.{key}.itemInput")
    if "raw" in items:
        try:
            listed = json.loads(items["raw"])
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidSpec(f"the items are no JSON: {error}", f"{where}.{key}.items.raw") from error
        if not isinstance(listed, list):
            raise InvalidSpec("the items are no list", f"{where}.{key}.items.raw")
        return
    source = items.get("inputParameter" if key == "parameterIterator" else "inputArtifact")
    kind = "parameters" if key == "parameterIterator" else "artifacts"
    if source not in task.get("inputs", {}).get(kind, {}):
        raise InvalidSpec(f"the loop's items are to come from {source!r}, which is no input of it", f"{where}.{key}")


def _check_source(
    source: Mapping[str, Any], kind: str, where: str, spec: Mapping[str, Any], siblings: Mapping[str, Any]
) -> None:
    if not _SOURCES[kind] & set(source):
        raise Unsupported(f"an input of kind {', '.join(source) or 'none'}", where)
    if "runtimeValue" in source and "constant" not in source["runtimeValue"]:
        raise Unsupported("a runtime value that is no constant", where)
    if selector := source.get("parameterExpressionSelector"):
        try:
            cel.parse(selector)
        except cel.ConditionError as error:
            raise InvalidSpec(f"the expression cannot be parsed: {selector}: {error.message}", where) from error
    for wanted, key in (("taskOutputParameter", "outputParameterKey"), ("taskOutputArtifact", "outputArtifactKey")):
        if wanted in source:
            _check_output(siblings, source[wanted]["producerTask"], source[wanted][key], kind, where, spec)


def _check_output(
    tasks: Mapping[str, Any], producer: str, key: str, kind: str, where: str, spec: Mapping[str, Any]
) -> None:
    """The compiler loses the outputs of a dsl.OneOf that is a condition's operand and nothing else."""
    found = component(spec, tasks[producer], where)
    if key in (found.get("dag", {}).get("outputs", {}) if "dag" in found else found.get("outputDefinitions", {})).get(
        kind, {}
    ):
        return
    hint = "give the dsl.OneOf to a step, too: the KFP compiler drops one that only a condition reads"
    raise InvalidSpec(f"{producer!r} has no output {key!r}", where, hint if "oneof" in key else "")


def _check_outputs(dag: Mapping[str, Any], where: str, spec: Mapping[str, Any], tasks: Mapping[str, Any]) -> None:
    for kind, key in (("parameters", "outputParameterKey"), ("artifacts", "outputArtifactKey")):
        for name, source in dag.get("outputs", {}).get(kind, {}).items():
            for selector in selectors(source):
                place = f"{where}.{kind}.{name}"
                if selector.get("producerSubtask") not in tasks:
                    raise InvalidSpec(f"comes from {selector.get('producerSubtask')!r}, which is no task here", place)
                _check_output(tasks, selector["producerSubtask"], selector.get(key, ""), kind, place, spec)


def _check_acyclic(tasks: Mapping[str, Any], where: str) -> None:
    try:
        graphlib.TopologicalSorter({name: upstream(task) for name, task in tasks.items()}).prepare()
    except graphlib.CycleError as error:
        circle = ", ".join(sorted(set(error.args[1])))
        raise InvalidSpec(f"tasks wait for each other: {circle}", f"{where}.dag.tasks") from None


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidSpec(f"must be a mapping, not {type(value).__name__}", where)
    return value
