"""What flows between tasks: inputs resolved from a DAG's scope, items of loops, outputs read back and collected.

Pure functions over proto-JSON; nothing here touches a file but `read_outputs`. A parameter that has no value (an
optional input nobody set) is absent from a mapping, never None. Source: driver/resolve.go of kubeflow/pipelines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.engine import cel
from sandbox.engine.placeholders import RunFacts, TaskFailed, fill
from sandbox.engine.spec import as_text, component, is_loop, plain_numbers, selectors, typed
from sandbox.errors import SandboxError

Artifact = dict[str, Any]
MOST_ITEMS = 20_000


@dataclass(frozen=True)
class Values:
    """Parameters and artifacts by name; each artifact name holds a list of {name, uri, type, metadata}.

    `defaulted` names the parameters that nobody set: they have their component's default.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[Artifact]] = field(default_factory=dict)
    defaulted: frozenset[str] = frozenset()

    def as_dict(self) -> dict[str, Any]:
        """The form in which tasks are stored."""
        return {"parameters": self.parameters, "artifacts": self.artifacts}

    @staticmethod
    def of(stored: Mapping[str, Any]) -> Values:
        """Back from `as_dict`."""
        return Values(dict(stored.get("parameters", {})), dict(stored.get("artifacts", {})))


@dataclass(frozen=True)
class Scope:
    """What the tasks of a DAG see: the DAG's own inputs, the outputs of the tasks so far, how those ended that did."""

    inputs: Values
    finished: Mapping[str, Values]
    statuses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def resolve_inputs(task: Mapping[str, Any], found: Mapping[str, Any], scope: Scope, facts: RunFacts) -> Values:
    """The inputs of `task` (component `found`) in its DAG's scope.

    Raises TaskFailed for a value that is not there or is of another type than the component declares.
    """
    definitions = found.get("inputDefinitions", {})
    sources = task.get("inputs", {}).get("parameters", {})
    parameters: dict[str, Any] = {}
    for name, source in sources.items():
        if "runtimeValue" not in source and (value := _parameter(source, scope)) is not None:
            parameters[name] = _selected(value, source)
    # A constant may speak of the task's other inputs: "loss {{$.inputs.parameters['pipelinechannel--train-loss']}}".
    constants = {
        name: fill(source["runtimeValue"]["constant"], parameters, facts)
        for name, source in sources.items()
        if "runtimeValue" in source
    }
    parameters |= {name: value for name, value in constants.items() if value is not None}
    defaulted = set()
    for name, definition in definitions.get("parameters", {}).items():
        if name not in parameters and definition.get("defaultValue") is not None:
            parameters[name] = definition["defaultValue"]
            defaulted.add(name)
        if name in parameters:
            parameters[name] = _input(parameters[name], definition, name)
        elif not definition.get("isOptional") and name in sources:
            raise TaskFailed(f"input {name!r} has no value")
    artifacts: dict[str, list[Artifact]] = {}
    for name, source in task.get("inputs", {}).get("artifacts", {}).items():
        listed = _artifact(source, scope)
        if listed is not None:
            artifacts[name] = listed
        elif not definitions.get("artifacts", {}).get(name, {}).get("isOptional"):
            raise TaskFailed(f"input artifact {name!r} was not produced")
    return Values(parameters, artifacts, frozenset(defaulted))


def final_status(task: str, job: str, state: str, error: str) -> dict[str, Any]:
    """What a parameter of type PipelineTaskFinalStatus holds, in the words of its documentation."""
    shown = {"CANCELED": "CANCELLED"}.get(state, state)
    return {
        "state": shown,
        "pipelineTaskName": task,
        "pipelineJobResourceName": job,
        "error": {"code": 0 if state == "SUCCEEDED" else 1 if state == "CANCELED" else 13, "message": error},
    }


def iterations(task: Mapping[str, Any], found: Mapping[str, Any], inputs: Values) -> list[Values]:
    """The inputs of each iteration of a loop: the loop's own, with the item in the place of the items."""
    if "artifactIterator" in task:
        iterator = task["artifactIterator"]
        source, item = iterator["items"]["inputArtifact"], iterator["itemInput"]
        rest = {name: listed for name, listed in inputs.artifacts.items() if name != source}
        return [Values(inputs.parameters, {**rest, item: [one]}) for one in inputs.artifacts.get(source, [])]
    iterator = task["parameterIterator"]
    source, item = iterator["items"].get("inputParameter"), iterator["itemInput"]
    items = inputs.parameters.get(source) if source else iterator["items"].get("raw")
    if isinstance(items, str):
        try:
            items = json.loads(items)
        except ValueError as error:
            raise TaskFailed(f"the loop's items are no JSON: {error}: {items[:200]!r}") from error
    if not isinstance(items, list):
        raise TaskFailed(f"the loop's items are no list: {as_text(items)[:200]}")
    if len(items) > MOST_ITEMS:
        raise TaskFailed(f"the loop has {len(items):,} items; at most {MOST_ITEMS:,} are run")
    kept = {name: value for name, value in inputs.parameters.items() if name != source}
    definition = found.get("inputDefinitions", {}).get("parameters", {}).get(item, {})
    return [Values({**kept, item: _input(one, definition, item)}, inputs.artifacts) for one in items]


def collected(spec: Mapping[str, Any], found: Mapping[str, Any], outputs: Sequence[Values]) -> Values:
    """The outputs of a loop from those of its iterations, in their order; one that gave nothing is left out.

    What comes out of a loop inside becomes one flat list, as Kubeflow's driver collects it (CollectInputs).
    """
    declared = found["dag"].get("outputs", {}) if "dag" in found else found.get("outputDefinitions", {})
    parameters: dict[str, Any] = {}
    for name in declared.get("parameters", {}):
        given = [one.parameters[name] for one in outputs if name in one.parameters]
        if _comes_from_loop(spec, found, "parameters", name):
            given = [value for listed in given for value in listed]
        parameters[name] = given
    artifacts = {
        name: [artifact for one in outputs for artifact in one.artifacts.get(name, [])]
        for name in declared.get("artifacts", {})
    }
    return Values(parameters, artifacts)


def _comes_from_loop(spec: Mapping[str, Any], found: Mapping[str, Any], kind: str, name: str) -> bool:
    for selector in selectors(found.get("dag", {}).get("outputs", {}).get(kind, {}).get(name, {})):
        task = found["dag"]["tasks"][selector["producerSubtask"]]
        if is_loop(task):
            return True
        inner = component(spec, task, selector["producerSubtask"])
        if "dag" in inner and _comes_from_loop(spec, inner, kind, selector["outputParameterKey"]):
            return True
    return False


def dag_outputs(dag: Mapping[str, Any], finished: Mapping[str, Values]) -> Values:
    """The outputs of a DAG from those of its tasks; of several selectors (dsl.OneOf) the first that was produced."""
    outputs = dag.get("outputs", {})
    parameters: dict[str, Any] = {}
    for name, source in outputs.get("parameters", {}).items():
        for selector in selectors(source):
            produced = finished.get(selector.get("producerSubtask", ""), Values()).parameters
            if selector.get("outputParameterKey") in produced:
                parameters[name] = produced[selector["outputParameterKey"]]
                break
    artifacts: dict[str, list[Artifact]] = {}
    for name, source in outputs.get("artifacts", {}).items():
        for selector in selectors(source):
            produced_artifacts = finished.get(selector.get("producerSubtask", ""), Values()).artifacts
            if selector.get("outputArtifactKey") in produced_artifacts:
                artifacts[name] = produced_artifacts[selector["outputArtifactKey"]]
                break
    return Values(parameters, artifacts)


def planned_outputs(found: Mapping[str, Any], folder: str) -> dict[str, list[Artifact]]:
    """The output artifacts of a component, to be written below `folder`."""
    return {
        name: [
            {
                "name": name,
                "type": definition.get("artifactType", {}),
                "uri": f"{folder}/{name}",
                "metadata": definition.get("metadata", {}),
            }
        ]
        for name, definition in found.get("outputDefinitions", {}).get("artifacts", {}).items()
    }


def executor_input(
    found: Mapping[str, Any], inputs: Values, planned: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """KFP's ExecutorInput (proto-JSON), with the task's scratch files in `folder`."""
    names = found.get("outputDefinitions", {}).get("parameters", {})
    return {
        "inputs": {
            "parameterValues": plain_numbers(inputs.parameters),
            "artifacts": {name: {"artifacts": listed} for name, listed in inputs.artifacts.items()},
        },
        "outputs": {
            "parameters": {name: {"outputFile": str(folder / "parameters" / name)} for name in names},
            "artifacts": {name: {"artifacts": listed} for name, listed in planned.items()},
            "outputFile": str(folder / "executor_output.json"),
        },
    }


def read_outputs(found: Mapping[str, Any], planned: Mapping[str, list[Artifact]], folder: Path) -> Values:
    """What a finished executor left behind; TaskFailed where it is not what the component declares."""
    written = _written(folder / "executor_output.json")
    parameters: dict[str, Any] = {}
    for name, definition in found.get("outputDefinitions", {}).get("parameters", {}).items():
        kind = definition.get("parameterType")
        if name in written.get("parameterValues", {}):
            parameters[name] = _typed(written["parameterValues"][name], kind, name)
        elif (path := folder / "parameters" / name).exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            parameters[name] = _typed(from_text(text, kind, name), kind, name)
        elif not definition.get("isOptional"):
            raise TaskFailed(f"the step wrote no value for its output {name!r}")
    artifacts: dict[str, list[Artifact]] = {}
    for name, listed in planned.items():
        changed = (written.get("artifacts", {}).get(name, {}).get("artifacts") or [{}])[0]
        metadata = changed.get("metadata") or listed[0]["metadata"]
        artifacts[name] = [listed[0] | {"uri": changed.get("uri") or listed[0]["uri"], "metadata": metadata}]
    return Values(parameters, artifacts)


def custom_paths(folder: Path) -> dict[str, str]:
    """The output artifacts that a step wrote somewhere else than at their URI (Artifact.custom_path), and where."""
    listed = {
        name: (entry.get("artifacts") or [{}])[0]
        for name, entry in _written(folder / "executor_output.json").get("artifacts", {}).items()
    }
    return {name: entry["custom_path"] for name, entry in listed.items() if entry.get("custom_path")}


def _written(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TaskFailed(f"the step's output file is no JSON: {error}") from error
    if not isinstance(written, dict):
        raise TaskFailed("the step's output file holds no JSON object")
    return written


def from_text(text: str, kind: str | None, name: str) -> Any:
    """A parameter value that a step wrote to a file, as type `kind`."""
    if kind == "STRING":
        return text
    try:
        return json.loads(text.strip().lower() if kind == "BOOLEAN" else text)
    except ValueError as error:
        raise TaskFailed(f"output {name!r} is not of type {kind}: {text[:200]!r}") from error


def fingerprint(
    pipeline: str,
    task: Mapping[str, Any],
    found: Mapping[str, Any],
    executor: Mapping[str, Any],
    inputs: Values,
) -> str:
    """What makes two executions the same, in pipelines of one name: image, command, inputs by value and by URI.

    A cache key of the task's own stands for all of that. Environment variables do not count, as in Kubeflow's driver.
    """
    if key := task.get("cachingOptions", {}).get("cacheKey"):
        return _hash([pipeline, task.get("componentRef", {}).get("name", ""), key])
    container = {key: executor.get("container", {}).get(key) for key in ("image", "command", "args")}
    artifacts = {name: [artifact["uri"] for artifact in listed] for name, listed in inputs.artifacts.items()}
    return _hash([pipeline, container, inputs.parameters, artifacts, found.get("outputDefinitions", {})])


def _hash(material: Any) -> str:
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()


def _parameter(source: Mapping[str, Any], scope: Scope) -> Any:
    if "componentInputParameter" in source:
        return scope.inputs.parameters.get(source["componentInputParameter"])
    if "taskFinalStatus" in source:
        return scope.statuses.get(source["taskFinalStatus"]["producerTask"])
    wanted = source["taskOutputParameter"]
    return scope.finished.get(wanted["producerTask"], Values()).parameters.get(wanted["outputParameterKey"])


def _selected(value: Any, source: Mapping[str, Any]) -> Any:
    """The part of a value that is asked for: an entry of a loop item that is a dict."""
    selector = source.get("parameterExpressionSelector")
    if not selector:
        return value
    try:
        return plain_numbers(cel.select(selector, value, as_text(value)))
    except cel.ConditionError as error:
        raise TaskFailed(error.message) from error


def _artifact(source: Mapping[str, Any], scope: Scope) -> list[Artifact] | None:
    """None for what nobody gave; an empty list comes from a loop without items."""
    if "componentInputArtifact" in source:
        return scope.inputs.artifacts.get(source["componentInputArtifact"])
    wanted = source["taskOutputArtifact"]
    return scope.finished.get(wanted["producerTask"], Values()).artifacts.get(wanted["outputArtifactKey"])


def _input(value: Any, definition: Mapping[str, Any], name: str) -> Any:
    """An input as its component wants it; whatever is to be a string becomes its text, as in Kubeflow's driver."""
    kind = definition.get("parameterType")
    value = _typed(as_text(value) if kind == "STRING" else value, kind, name)
    literals = definition.get("literals")
    if literals and value not in literals:
        raise TaskFailed(f"input {name!r} is {value!r}, not one of {', '.join(map(repr, literals))}")
    return value


def _typed(value: Any, kind: str | None, name: str) -> Any:
    try:
        return typed(value, kind, name)
    except SandboxError as error:
        raise TaskFailed(f"type mismatch: {error.message}") from error
