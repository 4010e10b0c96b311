"""The task records of one run: made, taken up again after a restart or for a retry, saved with each change of state."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox import steady
from sandbox.engine import spec
from sandbox.engine.placeholders import RunFacts
from sandbox.runstore.store import FINAL_STATES, Run, Store, Task

INTERRUPTED = "the sandbox ended while this ran"
MOST_INTERRUPTIONS = 10


@dataclass(frozen=True)
class Place:
    """Where a task stands: its name and path in the DAG, the record of the DAG it is in, and which iteration it is."""

    name: str
    path: str
    parent_id: str
    index: int | None = None


@dataclass
class Records:
    """Of one run; `prior` maps the path of a task ("gate/package", "for-loop-1/0/give") to its earlier record."""

    run: Run
    store: Store
    folder: Path
    prior: Mapping[str, Task] = field(default_factory=dict)
    _latest: dict[str, Task] = field(default_factory=dict)

    def make(self, place: Place, task: Mapping[str, Any]) -> Task:
        """The record of a task that waits; one that has succeeded before comes back as it was. Not saved yet."""
        known = self.prior.get(place.path)
        if known is not None and known.state == "SUCCEEDED" and known.kind != "DAG":
            return known
        found = spec.component(self.run.spec, task, place.path)
        is_group = "dag" in found or (spec.is_loop(task) and place.index is None)
        is_import = "importer" in spec.executor_of(self.run.spec, found)
        task_id = known.task_id if known else str(uuid.uuid4())
        suffix = "" if place.index is None else f"-{place.index}"
        record = Task(
            task_id=task_id,
            run_id=self.run.run_id,
            name=place.name,
            created_at=known.created_at if known else steady.now(),
            parent_task_id=place.parent_id,
            display_name=(task.get("taskInfo", {}).get("name") or place.name) + suffix,
            kind="DAG" if is_group else "IMPORTER" if is_import else "POD",
            pod_name="" if is_group or is_import else f"{self.pipeline_name}-{task_id[:8]}",
            attempt=known.attempt if known else 0,
            state_history=list(known.state_history) if known else [],
            iteration_index=place.index,
        )
        interrupted = known is not None and known.state == "RUNNING" and not is_group
        return _in_state(record, "PENDING", INTERRUPTED if interrupted else "")

    def save_waiting(self, records: Iterable[Task]) -> None:
        """Keep those that wait, in one go."""
        self.store.save_tasks(record for record in records if record.state == "PENDING")

    def save(self, record: Task, state: str, error: str = "") -> Task:
        """The record in its new state, kept."""
        saved = _in_state(record, state, error)
        self.store.save_task(saved)
        self._latest[saved.task_id] = saved
        return saved

    def latest(self, record: Task) -> Task:
        """The record as it was saved last: how often it was tried, and what it went through."""
        return self._latest.get(record.task_id, record)

    def save_skipped(self, record: Task, task: Mapping[str, Any], path: str) -> Task:
        """Mark a task that will not run as skipped, and everything inside it; a loop has nothing inside yet."""
        found = {} if spec.is_loop(task) else spec.component(self.run.spec, task, path)
        for name, inner in found.get("dag", {}).get("tasks", {}).items():
            inside = self.make(Place(name, f"{path}/{name}", record.task_id), inner)
            self.save_skipped(inside, inner, f"{path}/{name}")
        return self.save(record, "SKIPPED")

    def close_unreached(self, state: str) -> None:
        """End what an earlier sandbox had begun and this one did not come to again: its group ended before."""
        for task in self.store.tasks(self.run.run_id):
            if task.state not in FINAL_STATES:
                self.save(task, state)

    def save_run(self, state: str, error: str = "") -> Run:
        """The run in its new state, kept; what others changed of it meanwhile stays."""
        now = steady.now()
        entry = {"state": state, "update_time": now, "error": error}
        kept = self.store.get_run(self.run.run_id)
        self.run = dataclasses.replace(
            kept,
            state=state,
            error=error,
            finished_at=now if state in FINAL_STATES else None,
            state_history=[*kept.state_history, entry],
        )
        self.store.save_run(self.run)
        return self.run

    def note(self, record: Task, text: str) -> None:
        """A line of the sandbox's own in the step's log."""
        with (self.task_folder(record) / "log").open("a", encoding="utf-8") as log:
            log.write(f"[sandbox] {text}\n")

    def task_folder(self, record: Task) -> Path:
        """Where a task's log and scratch files lie."""
        folder = self.folder / record.task_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def facts(self, record: Task) -> RunFacts:
        """What placeholders may ask."""
        return RunFacts(
            run_id=self.run.run_id,
            run_name=self.run.display_name,
            pipeline_name=self.pipeline_name,
            pipeline_root=self.run.pipeline_root,
            created_at=_rfc3339(self.run.created_at),
            scheduled_at=_rfc3339(self.run.scheduled_at),
            workspace=str(self.folder / "workspace"),
            task_id=record.task_id,
            task_name=record.name,
        )

    @property
    def pipeline_name(self) -> str:
        """The pipeline's name with what may stand in a path."""
        name: str = self.run.spec["pipelineInfo"]["name"]
        return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)


def interruptions(record: Task) -> int:
    """How often a task was running when the sandbox ended."""
    return sum(entry.get("error") == INTERRUPTED for entry in record.state_history)


def paths(tasks: list[Task]) -> dict[str, Task]:
    """Tasks of one run by their path in the DAG ("gate/package", "for-loop-1/0/give")."""
    by_id = {task.task_id: task for task in tasks}

    def path(task: Task) -> str:
        parent = by_id.get(task.parent_task_id)
        own = task.name if task.iteration_index is None else str(task.iteration_index)
        return f"{path(parent)}/{own}" if parent else own

    return {path(task): task for task in tasks}


def _in_state(record: Task, state: str, error: str = "") -> Task:
    now = steady.now()
    entry = {"state": state, "update_time": now, "error": error}
    return dataclasses.replace(
        record,
        state=state,
        error="" if error == INTERRUPTED else error,
        started_at=now if state == "RUNNING" and not record.started_at else record.started_at,
        finished_at=now if state in FINAL_STATES else None,
        state_history=[*record.state_history, entry],
    )


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
