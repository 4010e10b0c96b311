"""What flows between tasks: inputs resolved from a DAG's scope, placeholders filled in, outputs read back.

Pure functions over proto-JSON; nothing here touches a file but `read_outputs`. A parameter that has no value (an
optional input nobody set) is absent from a mapping, never None.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.engine.spec import plain_numbers, typed
from sandbox.errors import SandboxError

Artifact = dict[str, Any]
_PLACEHOLDER = re.compile(r"\{\{\$\.([^}]*)\}\}")
_PARAMETER = re.compile(r"inputs\.parameters\[['\"](?P<name>.+?)['\"]\]")


class TaskFailed(SandboxError):
    """A task cannot go on; the message is what the run shows as its error."""


@dataclass(frozen=True)
class Values:
    """Parameters and artifacts by name; each artifact name holds a list of {name, uri, type, metadata}."""

    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[Artifact]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The form in which tasks are stored."""
        return {"parameters": self.parameters, "artifacts": self.artifacts}

    @staticmethod
    def of(stored: Mapping[str, Any]) -> Values:
        """Back from `as_dict`."""
        return Values(dict(stored.get("parameters", {})), dict(stored.get("artifacts", {})))


@dataclass(frozen=True)
class RunFacts:
    """What placeholders may ask of the run and the task that is being prepared."""

    run_id: str
    run_name: str
    pipeline_name: str
    pipeline_root: str
    scheduled_at: str
    task_id: str = ""
    task_name: str = ""


def resolve_inputs(
    task: Mapping[str, Any],
    found: Mapping[str, Any],
    scope: Values,
    finished: Mapping[str, Values],
    facts: RunFacts,
) -> Values:
    """The inputs of `task` (component `found`) inside a DAG whose own inputs are `scope`.

    `finished` holds the outputs of the DAG's tasks so far. Raises TaskFailed for a value that is not there or is of
    another type than the component declares.
    """
    definitions = found.get("inputDefinitions", {})
    parameters: dict[str, Any] = {}
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        value = _parameter(source, scope, finished, facts)
        if value is not None:
            parameters[name] = value
    for name, definition in definitions.get("parameters", {}).items():
        if name not in parameters and "defaultValue" in definition:
            parameters[name] = definition["defaultValue"]
        if name in parameters:
            parameters[name] = _typed(parameters[name], definition.get("parameterType"), name)
        elif not definition.get("isOptional") and name in task.get("inputs", {}).get("parameters", {}):
            raise TaskFailed(f"input {name!r} has no value")
    artifacts: dict[str, list[Artifact]] = {}
    for name, source in task.get("inputs", {}).get("artifacts", {}).items():
        if listed := _artifact(source, scope, finished):
            artifacts[name] = listed
        elif not definitions.get("artifacts", {}).get(name, {}).get("isOptional"):
            raise TaskFailed(f"input artifact {name!r} was not produced")
    return Values(parameters, artifacts)


def dag_outputs(dag: Mapping[str, Any], finished: Mapping[str, Values]) -> Values:
    """The outputs of a DAG from those of its tasks; of several selectors (dsl.OneOf) the first that was produced."""
    outputs = dag.get("outputs", {})
    parameters: dict[str, Any] = {}
    for name, source in outputs.get("parameters", {}).items():
        selectors = source.get("valueFromOneof", {}).get("parameterSelectors") or [source.get("valueFromParameter", {})]
        for selector in selectors:
            produced = finished.get(selector.get("producerSubtask", ""), Values()).parameters
            if selector.get("outputParameterKey") in produced:
                parameters[name] = produced[selector["outputParameterKey"]]
                break
    artifacts: dict[str, list[Artifact]] = {}
    for name, source in outputs.get("artifacts", {}).items():
        for selector in source.get("artifactSelectors", []):
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
    written: dict[str, Any] = {}
    if (path := folder / "executor_output.json").exists():
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise TaskFailed(f"the step's output file is no JSON: {error}") from error
    parameters: dict[str, Any] = {}
    for name, definition in found.get("outputDefinitions", {}).get("parameters", {}).items():
        kind = definition.get("parameterType")
        if name in written.get("parameterValues", {}):
            parameters[name] = _typed(written["parameterValues"][name], kind, name)
        elif (path := folder / "parameters" / name).exists():
            parameters[name] = _typed(from_text(path.read_text(encoding="utf-8"), kind, name), kind, name)
        elif not definition.get("isOptional"):
            raise TaskFailed(f"the step wrote no value for its output {name!r}")
    artifacts: dict[str, list[Artifact]] = {}
    for name, listed in planned.items():
        changed = written.get("artifacts", {}).get(name, {}).get("artifacts", [{}])[0]
        metadata = changed.get("metadata") or listed[0]["metadata"]
        artifacts[name] = [listed[0] | {"uri": changed.get("uri") or listed[0]["uri"], "metadata": metadata}]
    return Values(parameters, artifacts)


def from_text(text: str, kind: str | None, name: str) -> Any:
    """A parameter value that a step wrote to a file, as type `kind`."""
    if kind == "STRING":
        return text
    try:
        return json.loads(text.strip().lower() if kind == "BOOLEAN" else text)
    except ValueError as error:
        raise TaskFailed(f"output {name!r} is not of type {kind}: {text[:200]!r}") from error


def fingerprint(found: Mapping[str, Any], executor: Mapping[str, Any], inputs: Values) -> str:
    """What makes two executions the same: the component, its container, and its inputs by value and by URI."""
    container = {key: executor.get("container", {}).get(key) for key in ("image", "command", "args", "env")}
    artifacts = {name: [artifact["uri"] for artifact in listed] for name, listed in inputs.artifacts.items()}
    material = [container, inputs.parameters, artifacts, found.get("outputDefinitions", {})]
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()


def fill(text: str, parameters: Mapping[str, Any], facts: RunFacts) -> str:
    """`text` with its placeholders replaced; one that this engine does not know is TaskFailed, never left standing."""
    known = {
        "pipeline_job_uuid": facts.run_id,
        "pipeline_job_name": facts.run_name,
        "pipeline_job_resource_name": facts.run_name,
        "pipeline_root": facts.pipeline_root,
        "pipeline_job_create_time_utc": facts.scheduled_at,
        "pipeline_job_schedule_time_utc": facts.scheduled_at,
        "pipeline_task_uuid": facts.task_id,
        "pipeline_task_name": facts.task_name,
    }

    def replace(match: re.Match[str]) -> str:
        key = match.group(1)
        if key in known:
            return known[key]
        if (wanted := _PARAMETER.fullmatch(key)) and wanted["name"] in parameters:
            value = parameters[wanted["name"]]
            return value if isinstance(value, str) else json.dumps(value)
        raise TaskFailed(f"unknown placeholder {match.group(0)}")

    return _PLACEHOLDER.sub(replace, text)


def _parameter(source: Mapping[str, Any], scope: Values, finished: Mapping[str, Values], facts: RunFacts) -> Any:
    if "componentInputParameter" in source:
        return scope.parameters.get(source["componentInputParameter"])
    if "taskOutputParameter" in source:
        wanted = source["taskOutputParameter"]
        return finished.get(wanted["producerTask"], Values()).parameters.get(wanted["outputParameterKey"])
    return _filled(source["runtimeValue"]["constant"], scope, facts)


def _filled(value: Any, scope: Values, facts: RunFacts) -> Any:
    """A constant with the placeholders in its strings filled in, at any depth."""
    if isinstance(value, str):
        return fill(value, scope.parameters, facts)
    if isinstance(value, list):
        return [_filled(item, scope, facts) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, scope, facts) for key, item in value.items()}
    return value


def _artifact(source: Mapping[str, Any], scope: Values, finished: Mapping[str, Values]) -> list[Artifact]:
    if "componentInputArtifact" in source:
        return scope.artifacts.get(source["componentInputArtifact"], [])
    wanted = source["taskOutputArtifact"]
    return finished.get(wanted["producerTask"], Values()).artifacts.get(wanted["outputArtifactKey"], [])


def _typed(value: Any, kind: str | None, name: str) -> Any:
    try:
        return typed(value, kind, name)
    except SandboxError as error:
        raise TaskFailed(f"type mismatch: {error.message}") from error
