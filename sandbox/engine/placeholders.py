"""Fills in the placeholders that the KFP compiler leaves in strings: `{{$.inputs.parameters['x']}}` and its kin.

Source: kfp/dsl/placeholders.py, and backend/src/v2/component/launcher_v2.go, driver/util.go of kubeflow/pipelines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.engine.spec import as_text
from sandbox.errors import SandboxError

_PLACEHOLDER = re.compile(r"\{\{\$(?:\.([^}]*))?\}\}")
_KEY = r"\[['\"](?P<name>.+?)['\"]\]"
_INPUT = re.compile(rf"inputs\.parameters{_KEY}")
_ARTIFACT = re.compile(
    rf"(?P<side>inputs|outputs)\.artifacts{_KEY}(?:\.(?P<what>uri|path|metadata|name))?(?P<of>\[.*\])?"
)
_OUTPUT_FILE = re.compile(rf"outputs\.parameters{_KEY}\.output_file")
_METADATA_KEY = re.compile(r"\[['\"](.+)['\"]\]")


class TaskFailed(SandboxError):
    """A task cannot go on; the message is what the run shows as its error."""


@dataclass(frozen=True)
class RunFacts:
    """What placeholders may ask of the run and the task that is being prepared."""

    run_id: str
    run_name: str
    pipeline_name: str
    pipeline_root: str
    created_at: str
    scheduled_at: str
    workspace: str
    task_id: str = ""
    task_name: str = ""

    def values(self) -> dict[str, str]:
        """The placeholders that stand for them."""
        return {
            "pipeline_job_uuid": self.run_id,
            "pipeline_job_name": self.run_name,
            "pipeline_job_resource_name": self.run_name,
            "pipeline_root": self.pipeline_root,
            "pipeline_job_create_time_utc": self.created_at,
            "pipeline_job_schedule_time_utc": self.scheduled_at,
            "pipeline_task_uuid": self.task_id,
            "pipeline_task_name": self.task_name,
            "workspace_path": self.workspace,
        }


def fill(value: Any, parameters: Mapping[str, Any], facts: RunFacts) -> Any:
    """`value` with the placeholders of its strings filled in, at any depth.

    One that this engine does not know raises TaskFailed: it is never left standing.
    """
    if isinstance(value, str):
        return _replaced(value, lambda key: _of_run(key, parameters, facts))
    if isinstance(value, list):
        return [fill(item, parameters, facts) for item in value]
    if isinstance(value, dict):
        return {key: fill(item, parameters, facts) for key, item in value.items()}
    return value


def words(command: Sequence[str], entered: Mapping[str, Any], defaulted: frozenset[str], facts: RunFacts) -> list[str]:
    """A container's command or arguments for the ExecutorInput `entered`, IfPresent and Concat worked out.

    A parameter that nobody set, and so is in `defaulted`, counts as not present; written out, it is its default.
    """
    parameters = entered["inputs"]["parameterValues"]
    given = (set(parameters) | set(entered["inputs"]["artifacts"])) - defaulted

    def text(word: str) -> str:
        return _replaced(word, lambda key: _of_step(key, entered, parameters, facts))

    found: list[str] = []
    for word in command:
        found += _structured(word, given, text)
    return found


def _structured(word: Any, given: Set[str], text: Callable[[str], str]) -> list[str]:
    """The words that one word stands for: JSON with IfPresent or Concat, else a string."""
    if isinstance(word, list):
        return [part for item in word for part in _structured(item, given, text)]
    if isinstance(word, str):
        stripped = word.strip()
        if not stripped.startswith(('{"IfPresent"', '{"Concat"')):
            return [text(word)]
        try:
            word = json.loads(stripped)
        except ValueError:
            return [text(word)]
    if "Concat" in word:
        return ["".join(part for item in word["Concat"] for part in _structured(item, given, text))]
    if "IfPresent" in word:
        present = word["IfPresent"]
        chosen = present.get("Then") if present.get("InputName") in given else present.get("Else")
        return _structured(chosen, given, text) if chosen is not None else []
    return [text(json.dumps(word))]


def _replaced(text: str, value: Callable[[str], str | None]) -> str:
    def replace(match: re.Match[str]) -> str:
        found = value(match.group(1) or "")
        if found is None:
            raise TaskFailed(f"unknown placeholder {match.group(0)}")
        return str(found)

    return _PLACEHOLDER.sub(replace, text)


def _of_run(key: str, parameters: Mapping[str, Any], facts: RunFacts) -> str | None:
    if (wanted := _INPUT.fullmatch(key)) and wanted["name"] in parameters:
        return as_text(parameters[wanted["name"]])
    return facts.values().get(key)


def _of_step(key: str, entered: Mapping[str, Any], parameters: Mapping[str, Any], facts: RunFacts) -> str | None:
    if key == "":
        return json.dumps(entered)
    if key in ("outputs.output_file", "outputs.output_metadata_uri"):
        return str(entered["outputs"]["outputFile"])
    if wanted := _OUTPUT_FILE.fullmatch(key):
        given = entered["outputs"]["parameters"].get(wanted["name"])
        return None if given is None else str(given["outputFile"])
    if wanted := _ARTIFACT.fullmatch(key):
        listed = entered[wanted["side"]]["artifacts"].get(wanted["name"], {}).get("artifacts", [])
        return _of_artifact(listed, wanted["what"], wanted["of"] or "")
    return _of_run(key, parameters, facts)


def _of_artifact(listed: Sequence[Mapping[str, Any]], what: str | None, of: str) -> str | None:
    if not listed:
        return None
    artifact = listed[0]
    if what in ("uri", "name"):
        return str(artifact[what])
    if what == "path":
        return str(Path(artifact["uri"].removeprefix("file://")))
    if what == "metadata":
        metadata = artifact.get("metadata", {})
        if key := _METADATA_KEY.fullmatch(of):
            return as_text(metadata.get(key.group(1)))
        return json.dumps(metadata)
    return json.dumps(artifact)
