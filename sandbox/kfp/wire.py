"""Records as KFP's REST API v2beta1 shows them: proto field names, empty fields left out, times in RFC 3339.

Tasks come in both shapes: `run_details.task_details`, which servers up to 2.x give, and `tasks`, which replaces it.
Source: backend/api/v2beta1/run.proto of kubeflow/pipelines, its master and its mlmd-removal branch.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from types import MappingProxyType
from typing import Any

from sandbox.kfp.encoding import Encoded
from sandbox.runstore.artifacts import Artifact, artifact_id, artifacts_of
from sandbox.runstore.catalog import Experiment, Pipeline, PipelineVersion
from sandbox.runstore.database import Document
from sandbox.runstore.recurring import RecurringRun, Trigger
from sandbox.runstore.store import Run, Task

Json = dict[str, Any]

# What the real server answers for "not yet": a run's time is stored as 0, a task's as Go's zero time.
_NO_RUN_TIME = "1970-01-01T00:00:00Z"
_NO_TASK_TIME = "0001-01-01T00:00:00Z"

_NUMBERS = frozenset({bool, int, float})
_CANCELLED = 1  # google.rpc.Code
_INTERNAL = 13

_TASK_TYPES = (
    ("condition-branches-", "CONDITION_BRANCH"),
    ("condition-", "CONDITION"),
    ("for-loop-", "LOOP"),
    ("exit-handler-", "EXIT_HANDLER"),
)
_TASK_STATES = {"PENDING": "", "CANCELING": "RUNNING", "PAUSED": "RUNNING", "CANCELED": "FAILED"}


class Release(Enum):
    """Whose shape of a run is shown: that of KFP 2.17, that of its next release, or one that has both."""

    BOTH = "both"
    CURRENT = "2.17"
    NEXT = "next"


@functools.lru_cache(maxsize=8192)
def timestamp(seconds: float | None, missing: str = _NO_RUN_TIME) -> str:
    """Seconds since the epoch as RFC 3339 in UTC with microseconds; `missing` for None and 0."""
    if not seconds:
        return missing
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _filled(fields: Json) -> Json:
    """Without empty texts, lists and objects, and what is None; numbers and false are no emptiness."""
    return {name: value for name, value in fields.items() if value or value.__class__ in _NUMBERS}


def _status(message: str, state: str = "FAILED") -> Json | None:
    return {"code": _CANCELLED if state == "CANCELED" else _INTERNAL, "message": message} if message else None


def experiment_json(experiment: Experiment) -> Json:
    return _filled(
        {
            "experiment_id": experiment.experiment_id,
            "display_name": experiment.display_name,
            "description": experiment.description,
            "created_at": timestamp(experiment.created_at),
            "namespace": experiment.namespace,
            "storage_state": experiment.storage_state,
            "last_run_created_at": timestamp(experiment.last_run_created_at),
        }
    )


def pipeline_json(pipeline: Pipeline) -> Json:
    return _filled(
        {
            "pipeline_id": pipeline.pipeline_id,
            "name": pipeline.name,
            "display_name": pipeline.display_name,
            "description": pipeline.description,
            "created_at": timestamp(pipeline.created_at),
            "namespace": pipeline.namespace,
            "tags": pipeline.tags,
        }
    )


def version_json(version: PipelineVersion) -> Json:
    return _filled(
        {
            "pipeline_id": version.pipeline_id,
            "pipeline_version_id": version.pipeline_version_id,
            "name": version.name,
            "display_name": version.display_name,
            "description": version.description,
            "code_source_url": version.code_source_url,
            "created_at": timestamp(version.created_at),
            "tags": version.tags,
            "pipeline_spec": spec_json(version.spec, version.platform_spec),
        }
    )


def spec_json(spec: Json, platform_spec: Json) -> Any:
    if platform_spec:
        return {"pipeline_spec": _encoded(spec), "platform_spec": _encoded(platform_spec)}
    return _encoded(spec)


def _encoded(document: Json) -> Any:
    """A document from the store as the text that it was kept as: a page of runs holds many, and big ones."""
    return Encoded(document.text) if isinstance(document, Document) and document.text else document


def recurring_run_json(record: RecurringRun) -> Json:
    fields: Json = {
        "recurring_run_id": record.recurring_run_id,
        "display_name": record.display_name,
        "description": record.description,
        "runtime_config": _filled({"parameters": record.parameters, "pipeline_root": record.pipeline_root}),
        "service_account": record.service_account,
        "max_concurrency": str(record.max_concurrency),
        "trigger": _trigger(record.trigger),
        "mode": "ENABLE" if record.enabled else "DISABLE",
        "created_at": timestamp(record.created_at),
        "updated_at": timestamp(record.updated_at),
        "status": "ENABLED" if record.enabled else "DISABLED",
        "error": _status(record.error),
        "no_catchup": record.no_catchup or None,
        "namespace": record.namespace,
        "experiment_id": record.experiment_id,
    }
    return _filled(fields | _source(record))


def _trigger(trigger: Trigger) -> Json:
    window = {"start_time": timestamp(trigger.start_time, ""), "end_time": timestamp(trigger.end_time, "")}
    if trigger.cron:
        return {"cron_schedule": _filled({**window, "cron": trigger.cron})}
    return {"periodic_schedule": _filled({**window, "interval_second": str(trigger.interval_second)})}


def _source(record: Run | RecurringRun) -> Json:
    """The pipeline by reference where it was a kept one, else its spec."""
    if not record.pipeline_id:
        return {"pipeline_spec": spec_json(record.spec, record.platform_spec)}
    reference = {"pipeline_id": record.pipeline_id, "pipeline_version_id": record.pipeline_version_id}
    return {"pipeline_version_reference": _filled(reference)}


def run_json(run: Run, tasks: Sequence[Task], release: Release, full: bool = False) -> Json:
    """The run with its task details; with `full` also with `tasks`, their newer shape; each if `release` has it."""
    children = children_of(tasks)
    shown = run_summary(run, len(tasks), release)
    if tasks and release is not Release.NEXT:
        shown["run_details"] = {"task_details": [_task_detail(task, children[task.task_id]) for task in tasks]}
    if full and release is not Release.CURRENT:
        shown["tasks"] = [task_json(task, children[task.task_id]) for task in tasks]
    return shown


def run_summary(run: Run, task_count: int, release: Release) -> Json:
    """The run without its tasks."""
    fields: Json = {
        "experiment_id": run.experiment_id,
        "run_id": run.run_id,
        "display_name": run.display_name,
        "storage_state": run.storage_state,
        "description": run.description,
        "runtime_config": _filled({"parameters": run.parameters, "pipeline_root": run.pipeline_root}),
        "service_account": run.service_account,
        "created_at": timestamp(run.created_at),
        "scheduled_at": timestamp(run.scheduled_at),
        "finished_at": timestamp(run.finished_at),
        "state": run.state,
        "error": _status(run.error, run.state),
        "recurring_run_id": run.recurring_run_id,
        "state_history": _history(run.state_history),
        "task_count": None if release is Release.CURRENT else task_count or None,
    }
    return _filled(fields | _source(run))


def _history(entries: Iterable[Json], names: Mapping[str, str] = MappingProxyType({})) -> list[Json]:
    """What something went through; `names` are those of states that are shown under another one."""
    return [
        _filled(
            {
                "update_time": timestamp(entry["update_time"]),
                "state": names.get(entry["state"], entry["state"]),
                "error": _status(entry.get("error", ""), entry["state"]),
            }
        )
        for entry in entries
    ]


def children_of(tasks: Iterable[Task]) -> defaultdict[str, list[Task]]:
    """The tasks inside each task, by its id; [] for one that holds none."""
    children: defaultdict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        if task.parent_task_id:
            children[task.parent_task_id].append(task)
    return children


def _task_detail(task: Task, children: Sequence[Task]) -> Json:
    return _filled(
        {
            "run_id": task.run_id,
            "task_id": task.task_id,
            "display_name": task.display_name or task.name,
            "create_time": timestamp(task.created_at),
            "start_time": timestamp(task.started_at, _NO_TASK_TIME),
            "end_time": timestamp(task.finished_at, _NO_TASK_TIME),
            "executor_detail": _filled({"main_job": task.pod_name}),
            "state": task.state,
            "error": _status(task.error, task.state),
            "inputs": _artifact_ids(task.inputs),
            "outputs": _artifact_ids(task.outputs),
            "parent_task_id": task.parent_task_id,
            "state_history": _history(task.state_history),
            "pod_name": task.pod_name,
            "child_tasks": [{"task_id": child.task_id} for child in children],
        }
    )


def _artifact_ids(values: Json) -> Json:
    artifacts: dict[str, list[Json]] = values.get("artifacts", {})
    return {key: {"artifact_ids": [artifact_id(item) for item in items]} for key, items in artifacts.items()}


def task_json(task: Task, children: Sequence[Task]) -> Json:
    """The task in the newer shape, with the values of its parameters and its artifacts."""
    return _filled(
        {
            "name": task.name,
            "display_name": task.display_name,
            "task_id": task.task_id,
            "run_id": task.run_id,
            "pods": [{"name": task.pod_name, "uid": task.task_id, "type": "EXECUTOR"}] if task.pod_name else [],
            "cache_fingerprint": task.fingerprint,
            "create_time": timestamp(task.created_at),
            "end_time": timestamp(task.finished_at, ""),
            "state": "CACHED" if task.cached else _TASK_STATES.get(task.state, task.state),
            "status_metadata": _filled({"message": task.error}),
            "state_history": _history(task.state_history, _TASK_STATES),
            "type": _task_type(task),
            "type_attributes": _filled(
                {
                    "iteration_index": None if task.iteration_index is None else str(task.iteration_index),
                    "iteration_count": None if task.iteration_count is None else str(task.iteration_count),
                }
            ),
            "parent_task_id": task.parent_task_id,
            "child_tasks": [{"task_id": child.task_id, "name": child.name} for child in children],
            "inputs": _values(task.inputs, "RUNTIME_VALUE_INPUT", io_type(False), task),
            "outputs": _values(task.outputs, "OUTPUT", io_type(True), task),
        }
    )


def io_type(is_output: bool) -> str:
    """How a task and an artifact belong together."""
    return "OUTPUT" if is_output else "TASK_OUTPUT_INPUT"


def _task_type(task: Task) -> str:
    if task.kind != "DAG":
        return "RUNTIME" if task.kind == "POD" else task.kind
    return next((kind for prefix, kind in _TASK_TYPES if task.name.startswith(prefix)), "DAG")


def _values(values: Json, parameter_type: str, artifact_type: str, task: Task) -> Json:
    parameters: Json = values.get("parameters", {})
    artifacts: dict[str, list[Json]] = values.get("artifacts", {})
    return _filled(
        {
            "parameters": [
                {"parameter_key": key, "value": value, "type": parameter_type} for key, value in parameters.items()
            ],
            "artifacts": [
                {
                    "artifact_key": key,
                    "type": artifact_type,
                    "artifacts": [
                        artifact_json(artifact)
                        for item in items
                        for artifact in artifacts_of(item, task.finished_at or task.created_at)
                    ],
                }
                for key, items in artifacts.items()
            ],
        }
    )


def artifact_json(artifact: Artifact) -> Json:
    fields = {
        "artifact_id": artifact.artifact_id,
        "name": artifact.name,
        "type": artifact.type,
        "created_at": timestamp(artifact.created_at),
        "uri": artifact.uri,
        "metadata": artifact.metadata,
        "number_value": artifact.number,
    }
    return _filled(fields)
