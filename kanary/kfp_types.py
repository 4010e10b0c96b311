"""What a Kubeflow Pipelines API (v2beta1) says about runs, as frozen dataclasses, and how its JSON becomes them.

Reads both shapes: `run_details.task_details` (up to 2.x) and `tasks` with CACHED states (3.0). Missing cosmetic
fields become empty; an answer that is no answer of this API raises ApiError. Never talks to a server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from kanary.errors import ApiError

FINAL_STATES = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})
_NOT_API = "Does the endpoint point at the API of Kubeflow Pipelines 2.0 or later?"


@dataclass(frozen=True)
class Artifact:
    """An artifact as a task used or wrote it; servers up to 2.x give nothing but its id."""

    name: str
    uri: str = ""
    type: str = ""
    artifact_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Values:
    """The inputs or the outputs of a task."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskDetail:
    """One task of a run; DAGs, conditions and loops are tasks that are others' parents."""

    task_id: str
    name: str
    state: str
    parent_id: str = ""
    kind: str = ""  # as the server calls it (RUNTIME, DAG, CONDITION, LOOP ...); empty up to 2.x
    cached: bool = False
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str = ""
    pod_name: str = ""
    inputs: Values = field(default_factory=Values)
    outputs: Values = field(default_factory=Values)

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES

    def seconds(self, now: datetime) -> float | None:
        """How long it ran or has been running; None before it started."""
        return _seconds(self.started_at, self.finished_at, now)


@dataclass(frozen=True)
class Run:
    """One run. `tasks` is empty where the answer it was read from named none."""

    run_id: str
    name: str
    state: str
    experiment_id: str = ""
    pipeline_name: str = ""
    description: str = ""
    archived: bool = False
    created_at: datetime | None = None
    finished_at: datetime | None = None
    error: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[TaskDetail, ...] = ()
    task_count: int = 0  # what the server says; it may name the tasks only elsewhere

    @property
    def final(self) -> bool:
        return self.state in FINAL_STATES

    def seconds(self, now: datetime) -> float | None:
        """How long it ran or has been running, the wait for its start included."""
        return _seconds(self.created_at, self.finished_at, now)


@dataclass(frozen=True)
class RunPage:
    """Some runs, the token that asks for the next ones ("" at the end), and how many there are in all."""

    runs: tuple[Run, ...]
    next_page_token: str = ""
    total: int = 0


@dataclass(frozen=True)
class Experiment:
    experiment_id: str
    name: str
    namespace: str = ""


def read_run(answer: Any) -> Run:
    """A Run from the API's JSON."""
    doc = _document(answer, "a run")
    config = _mapping(doc, "runtime_config")
    tasks = _merged(
        read_tasks(_mapping(doc, "run_details").get("task_details") or []), read_tasks(doc.get("tasks") or [])
    )
    return Run(
        run_id=_identity(doc, "run_id", "a run"),
        name=_text(doc, "display_name"),
        state=_state(doc.get("state")),
        experiment_id=_text(doc, "experiment_id"),
        pipeline_name=_pipeline_name(doc),
        description=_text(doc, "description"),
        archived=doc.get("storage_state") == "ARCHIVED",
        created_at=moment(doc.get("created_at")),
        finished_at=moment(doc.get("finished_at")),
        error=_error(doc),
        parameters=_mapping(config, "parameters"),
        tasks=tasks,
        task_count=_whole(doc.get("task_count")) or len(tasks),
    )


def read_tasks(answer: Any) -> tuple[TaskDetail, ...]:
    """The tasks of a run, the driver pods that real servers list among them left out."""
    if not isinstance(answer, list):
        raise ApiError("The answer's list of tasks is none.", _NOT_API)
    tasks = tuple(_read_task(item) for item in answer)
    # Argo's nodes always include the driver of the root; a user's own task may well be called `test-driver`.
    if any(task.name == "root-driver" for task in tasks):
        return tuple(task for task in tasks if not task.name.endswith("-driver"))
    return tasks


def _merged(details: tuple[TaskDetail, ...], tasks: tuple[TaskDetail, ...]) -> tuple[TaskDetail, ...]:
    """A server may give both shapes: the older one tells states and times apart better, the newer one has values."""
    if not details or not tasks:
        return details or tasks
    newer = {task.task_id: task for task in tasks}
    return tuple(_enriched(task, newer.get(task.task_id, task)) for task in details)


def _enriched(task: TaskDetail, newer: TaskDetail) -> TaskDetail:
    return replace(
        task, kind=newer.kind, cached=task.cached or newer.cached, inputs=newer.inputs, outputs=newer.outputs
    )


def read_run_page(answer: Any) -> RunPage:
    doc = _document(answer, "a list of runs")
    runs = doc.get("runs") or []
    if not isinstance(runs, list):
        raise ApiError("The answer's list of runs is none.", _NOT_API)
    total = _whole(doc.get("total_size"))
    return RunPage(tuple(read_run(run) for run in runs), _text(doc, "next_page_token"), total or len(runs))


def read_experiment(answer: Any) -> Experiment:
    doc = _document(answer, "an experiment")
    return Experiment(
        _identity(doc, "experiment_id", "an experiment"), _text(doc, "display_name"), _text(doc, "namespace")
    )


def read_experiments(answer: Any) -> tuple[Experiment, ...]:
    items = _document(answer, "a list of experiments").get("experiments") or []
    if not isinstance(items, list):
        raise ApiError("The answer's list of experiments is none.", _NOT_API)
    return tuple(read_experiment(item) for item in items)


def task_tree(tasks: Iterable[TaskDetail]) -> list[tuple[int, TaskDetail]]:
    """The tasks as (depth, task), parents before their children, siblings by when they started, then as given.

    Every task comes once, also one whose parent is missing or that is, by mistake, its own ancestor.
    """
    pending = {task.task_id: task for task in sorted(tasks, key=_age)}
    children: dict[str, list[str]] = {}
    for task in pending.values():
        parent = task.parent_id if task.parent_id in pending and task.parent_id != task.task_id else ""
        children.setdefault(parent, []).append(task.task_id)
    ordered: list[tuple[int, TaskDetail]] = []
    stack = [(0, task_id) for task_id in reversed(children.get("", []))]
    while pending:
        # What is left once the stack is empty stands in a circle: begin with any of it.
        depth, task_id = stack.pop() if stack else (0, next(iter(pending)))
        task_found = pending.pop(task_id, None)
        if task_found is not None:
            ordered.append((depth, task_found))
            stack.extend((depth + 1, child) for child in reversed(children.get(task_id, [])))
    return ordered


def progress(run: Run) -> tuple[int, int]:
    """How many of the run's steps (tasks without children) are done, and how many there are so far."""
    parents = {task.parent_id for task in run.tasks}
    steps = [task for task in run.tasks if task.task_id not in parents and task.kind not in ("DAG", "ROOT")]
    return sum(task.final for task in steps), len(steps)


def moment(value: Any) -> datetime | None:
    """A point in time from RFC 3339; None where it is missing, unreadable, or the year 1 or 1970 of "never"."""
    if not isinstance(value, str):
        return None
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return when if when.year > 1970 else None


def _read_task(answer: Any) -> TaskDetail:
    doc = _document(answer, "a task")
    state = _state(doc.get("state"))
    pods = [pod for pod in doc.get("pods") or [] if isinstance(pod, dict) and pod.get("type") != "DRIVER"]
    return TaskDetail(
        task_id=_identity(doc, "task_id", "a task"),
        name=_text(doc, "display_name") or _text(doc, "name"),
        state="SUCCEEDED" if state == "CACHED" else state,
        parent_id=_text(doc, "parent_task_id"),
        kind=_text(doc, "type"),
        cached=state == "CACHED" or _was_cached(doc),
        created_at=moment(doc.get("create_time")),
        # 3.0 has no start_time: there a task is created when it starts.
        started_at=moment(doc.get("start_time" if "start_time" in doc or state == "PENDING" else "create_time")),
        finished_at=moment(doc.get("end_time")),
        error=_error(doc) or _text(_mapping(doc, "status_metadata"), "message"),
        pod_name=_text(doc, "pod_name") or (_text(pods[-1], "name") if pods else ""),
        inputs=_values(doc.get("inputs")),
        outputs=_values(doc.get("outputs")),
    )


def _was_cached(doc: Mapping[str, Any]) -> bool:
    history = doc.get("state_history")
    return isinstance(history, list) and any(isinstance(h, dict) and h.get("state") == "CACHED" for h in history)


def _values(answer: Any) -> Values:
    """Inputs or outputs in any of their shapes: lists of 3.0, named lists of ids up to 2.x."""
    if not isinstance(answer, dict):
        return Values()
    parameters, artifacts = answer.get("parameters"), answer.get("artifacts")
    if isinstance(parameters, list) or isinstance(artifacts, list):
        return Values(
            {_text(p, "parameter_key"): p.get("value") for p in parameters or [] if isinstance(p, dict)},
            {
                _text(a, "artifact_key"): _artifacts(_text(a, "artifact_key"), a.get("artifacts"))
                for a in artifacts or []
                if isinstance(a, dict)
            },
        )
    named = {name: value for name, value in answer.items() if isinstance(value, dict) and "artifact_ids" in value}
    return Values(
        {},
        {
            name: tuple(Artifact(name, artifact_id=str(i)) for i in value["artifact_ids"] or [])
            for name, value in named.items()
        },
    )


def _artifacts(key: str, items: Any) -> tuple[Artifact, ...]:
    return tuple(
        Artifact(
            name=_text(item, "name") or key,
            uri=_text(item, "uri"),
            type=_text(item, "type"),
            artifact_id=_text(item, "artifact_id"),
            metadata=_mapping(item, "metadata") or _metric(item),
        )
        for item in items or []
        if isinstance(item, dict)
    )


def _metric(item: Mapping[str, Any]) -> Mapping[str, Any]:
    return {_text(item, "name"): item["number_value"]} if "number_value" in item else {}


def _pipeline_name(doc: Mapping[str, Any]) -> str:
    spec = _mapping(doc, "pipeline_spec")
    # Two documents (with a platform spec) arrive one level deeper.
    spec = _mapping(spec, "pipeline_spec") or spec
    return _text(_mapping(spec, "pipelineInfo") or _mapping(spec, "pipeline_info"), "name")


def _error(doc: Mapping[str, Any]) -> str:
    """The message of a google.rpc.Status, its own or that of the last state that had one."""
    message = _text(_mapping(doc, "error"), "message")
    if not message and doc.get("state") in ("FAILED", "CANCELED") and isinstance(doc.get("state_history"), list):
        for state in reversed(doc["state_history"]):
            if isinstance(state, dict) and (message := _text(_mapping(state, "error"), "message")):
                return message
    return message


def _state(value: Any) -> str:
    return value if isinstance(value, str) and not value.endswith("_UNSPECIFIED") else "PENDING"


def _seconds(start: datetime | None, end: datetime | None, now: datetime) -> float | None:
    return ((end or now) - start).total_seconds() if start else None


def _age(task: TaskDetail) -> tuple[datetime, datetime]:
    never = datetime.max.replace(tzinfo=UTC)
    # What came from the cache ended without having started.
    return (task.started_at or task.finished_at or never, task.created_at or never)


def _document(answer: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(answer, dict):
        raise ApiError(f"The server answered with something else than {what}.", _NOT_API)
    return answer


def _identity(doc: Mapping[str, Any], key: str, what: str) -> str:
    value = doc.get(key)
    if not isinstance(value, str) or not value:
        raise ApiError(f"The server described {what} without {key}.", _NOT_API)
    return value


def _text(doc: Mapping[str, Any], key: str) -> str:
    value = doc.get(key)
    return value if isinstance(value, str) else ""


def _mapping(doc: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = doc.get(key)
    return value if isinstance(value, dict) else {}


def _whole(value: Any) -> int:
    # int64 comes as text in proto-JSON.
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0
