"""Runs and their tasks, as the API shows them and the engine writes them. Never decides a state, only keeps it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.errors import NotFound, SandboxError
from sandbox.runstore.artifacts import Artifact, artifacts_of
from sandbox.runstore.database import Database, canonical, text_bytes
from sandbox.runstore.listing import Page, Query, page_of, shown_time

_LISTS_ARTIFACTS = 3  # the schema version from which on artifacts are listed
FINAL_STATES = frozenset({"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"})


@dataclass(frozen=True)
class Run:
    """One run. Times are seconds since the epoch; `spec` is the PipelineSpec in proto-JSON, never changed once saved.

    A spec of {} is one that the store has lost.

    `state_history` holds {"state": str, "update_time": float, "error": str}, oldest first.
    """

    run_id: str
    experiment_id: str
    display_name: str
    spec: dict[str, Any]
    created_at: float
    scheduled_at: float
    description: str = ""
    namespace: str = ""
    pipeline_id: str = ""
    pipeline_version_id: str = ""
    platform_spec: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    pipeline_root: str = ""
    state: str = "PENDING"
    storage_state: str = "AVAILABLE"
    error: str = ""
    finished_at: float | None = None
    state_history: list[dict[str, Any]] = field(default_factory=list)
    service_account: str = ""
    enable_caching: bool | None = None
    recurring_run_id: str = ""


@dataclass(frozen=True)
class Task:
    """One task of a run: "POD" runs an executor, "IMPORTER" an import, "DAG" holds others (pipelines, loops ...).

    A loop has an `iteration_count` once its items are known, and one child of the loop's own kind for each item, told
    apart by its `iteration_index` from 0; that one holds (or, where the loop is over a single step, is) the work.

    `outputs` is {"parameters": {name: value}, "artifacts": {name: [{"name", "uri", "type", "metadata"}]}}, `inputs`
    the same; a type is {"schemaTitle": "system.Model", ...}. `fingerprint` is what the cache looks up, "" for never.
    """

    task_id: str
    run_id: str
    name: str
    created_at: float
    parent_task_id: str = ""
    display_name: str = ""
    kind: str = "POD"
    state: str = "PENDING"
    started_at: float | None = None
    finished_at: float | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    pod_name: str = ""
    attempt: int = 0
    cached: bool = False
    fingerprint: str = ""
    state_history: list[dict[str, Any]] = field(default_factory=list)
    iteration_index: int | None = None
    iteration_count: int | None = None


class Store:
    """The runs and tasks in one SQLite file. Every method is synchronous and takes well under a millisecond or two."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        if 0 < self.database.opened_version < _LISTS_ARTIFACTS:
            self._list_artifacts()

    def _list_artifacts(self) -> None:
        """Of a store that was made before artifacts were listed."""
        with self.database.transaction():
            for row in self.database.rows("SELECT * FROM tasks WHERE outputs LIKE '%\"artifacts\"%'"):
                self._save_artifacts(_task(row))

    def close(self) -> None:
        self.database.close()

    def get_run(self, run_id: str) -> Run:
        """Raises NotFound."""
        row = self.database.row("SELECT * FROM runs WHERE run_id = ?", (run_id,))
        if row is None:
            raise NotFound(f"Run {run_id} not found")
        return self._run(row)

    def save_run(self, run: Run) -> None:
        """Adds the run, or updates what may change; the spec of a known run is left as it was."""
        changing = {
            "display_name": run.display_name,
            "description": run.description,
            "state": run.state,
            "storage_state": run.storage_state,
            "error": run.error,
            "finished_at": None if run.finished_at is None else shown_time(run.finished_at),
            "pipeline_root": run.pipeline_root,
            "parameters": canonical(run.parameters),
            "state_history": canonical(run.state_history),
        }
        with self.database.transaction() as connection:
            assignments = ", ".join(f"{name} = ?" for name in changing)
            values = (*changing.values(), run.run_id)
            if connection.execute(f"UPDATE runs SET {assignments} WHERE run_id = ?", values).rowcount:
                return
            self._insert_run(connection, run, changing)

    def _insert_run(self, connection: sqlite3.Connection, run: Run, changing: dict[str, Any]) -> None:
        columns = changing | {
            "run_id": run.run_id,
            "experiment_id": run.experiment_id,
            "namespace": run.namespace,
            "pipeline_id": run.pipeline_id,
            "pipeline_version_id": run.pipeline_version_id,
            "created_at": shown_time(run.created_at),
            "scheduled_at": shown_time(run.scheduled_at),
            "service_account": run.service_account,
            "enable_caching": run.enable_caching,
            "recurring_run_id": run.recurring_run_id,
            "spec_hash": self.database.put_blob(run.spec),
            "platform_hash": self.database.put_blob(run.platform_spec),
        }
        marks = ", ".join("?" * len(columns))
        connection.execute(f"INSERT INTO runs ({', '.join(columns)}) VALUES ({marks})", tuple(columns.values()))
        connection.execute(
            "UPDATE experiments SET last_run_created_at = max(last_run_created_at, ?) WHERE experiment_id = ?",
            (run.created_at, run.experiment_id),
        )

    def delete_run(self, run_id: str) -> None:
        """Forgets the run, its tasks and, when no other uses it, its spec. Raises NotFound."""
        with self.database.transaction() as connection:
            row = self.database.row("SELECT spec_hash, platform_hash FROM runs WHERE run_id = ?", (run_id,))
            if row is None:
                raise NotFound(f"Run {run_id} not found")
            connection.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))
            self.database.drop_blobs(row["spec_hash"], row["platform_hash"])

    def list_runs(self, query: Query) -> Page[Run]:
        return page_of(self.database, query, self._run, lambda run: text_bytes(run.spec))

    def unfinished_runs(self) -> list[Run]:
        """Runs in no final state, oldest first: what the engine takes up again after a restart."""
        marks = ", ".join("?" * len(FINAL_STATES))
        rows = self.database.rows(
            f"SELECT * FROM runs WHERE state NOT IN ({marks}) ORDER BY created_at, run_id", tuple(FINAL_STATES)
        )
        return [self._run(row) for row in rows]

    def active_runs_of(self, recurring_run_id: str) -> int:
        """How many runs of that recurring run are in no final state."""
        marks = ", ".join("?" * len(FINAL_STATES))
        row = self.database.row(
            "SELECT count(*) AS number FROM runs WHERE recurring_run_id = ? AND recurring_run_id <> ''"
            f" AND state NOT IN ({marks})",
            (recurring_run_id, *FINAL_STATES),
        )
        return int(row["number"]) if row else 0

    def save_task(self, task: Task) -> None:
        """Adds or updates the task. A task of a deleted run is dropped in silence: it has nowhere to be shown."""
        columns = vars(task) | {
            "cached": int(task.cached),
            "inputs": canonical(task.inputs),
            "outputs": canonical(task.outputs),
            "state_history": canonical(task.state_history),
        }
        names = list(columns)
        updates = ", ".join(f"{name} = excluded.{name}" for name in names if name != "task_id")
        marks = ", ".join(f":{name}" for name in names)
        with self.database.transaction() as connection:
            connection.execute(
                f"INSERT INTO tasks ({', '.join(names)}) SELECT {marks}"
                " WHERE EXISTS (SELECT 1 FROM runs WHERE run_id = :run_id)"
                f" ON CONFLICT (task_id) DO UPDATE SET {updates}",
                columns,
            )
            if task.outputs.get("artifacts"):
                self._save_artifacts(task)

    def _save_artifacts(self, task: Task) -> None:
        """Lists what the task has made; cached tasks make nothing, and DAGs hand on what is listed already."""
        if task.kind == "DAG" or task.cached:
            return
        moment = shown_time(task.finished_at or task.created_at)
        made = [
            artifact
            for items in task.outputs.get("artifacts", {}).values()
            for item in items
            for artifact in artifacts_of(item, moment)
        ]
        with self.database.transaction() as connection:
            for artifact in made:
                connection.execute(
                    "INSERT OR REPLACE INTO artifacts SELECT :artifact_id, run_id, :task_id, namespace, :name, :type,"
                    " :uri, :created_at, :number, :metadata FROM runs WHERE run_id = :run_id",
                    vars(artifact)
                    | {"metadata": canonical(artifact.metadata), "run_id": task.run_id, "task_id": task.task_id},
                )

    def artifact(self, artifact_id: str) -> Artifact:
        """Raises NotFound."""
        row = self.database.row("SELECT * FROM artifacts WHERE artifact_id = ?", (artifact_id,))
        if row is None:
            raise NotFound(f"Artifact {artifact_id} not found")
        return _artifact(row)

    def list_artifacts(self, query: Query) -> Page[Artifact]:
        return page_of(self.database, query, _artifact)

    def list_tasks(self, query: Query) -> Page[Task]:
        return page_of(self.database, query, _task)

    def get_task(self, run_id: str, task_id: str) -> Task:
        """Raises NotFound."""
        row = self.database.row("SELECT * FROM tasks WHERE task_id = ? AND run_id = ?", (task_id, run_id))
        if row is None:
            raise NotFound(f"Run {run_id} has no task {task_id}")
        return _task(row)

    def runs_with(self, column: str, values: Sequence[str]) -> list[str]:
        """The runs of those tasks (`task_id`) or of those artifacts (`artifact_id`)."""
        table = {"task_id": "tasks", "artifact_id": "artifacts"}[column]
        marks = ", ".join("?" * len(values))
        rows = self.database.rows(f"SELECT DISTINCT run_id FROM {table} WHERE {column} IN ({marks})", tuple(values))
        return [row["run_id"] for row in rows]

    def save_tasks(self, tasks: Iterable[Task]) -> None:
        """Adds or updates all of them, or none."""
        with self.database.transaction():
            for task in tasks:
                self.save_task(task)

    def tasks(self, run_id: str) -> list[Task]:
        """The run's tasks in the order they were made; [] for a run that has none or is unknown."""
        rows = self.database.rows("SELECT * FROM tasks WHERE run_id = ? ORDER BY created_at, rowid", (run_id,))
        return [_task(row) for row in rows]

    def tasks_of(self, run_ids: Sequence[str]) -> dict[str, list[Task]]:
        """The tasks of several runs, by run, each in the order they were made."""
        marks = ", ".join("?" * len(run_ids))
        found: dict[str, list[Task]] = {}
        statement = f"SELECT * FROM tasks WHERE run_id IN ({marks}) ORDER BY created_at, rowid"
        for row in self.database.rows(statement, tuple(run_ids)):
            found.setdefault(row["run_id"], []).append(_task(row))
        return found

    def task_counts(self, run_ids: Sequence[str]) -> dict[str, int]:
        """How many tasks each of the runs has; runs without any are left out."""
        marks = ", ".join("?" * len(run_ids))
        statement = f"SELECT run_id, count(*) AS number FROM tasks WHERE run_id IN ({marks}) GROUP BY run_id"
        return {row["run_id"]: row["number"] for row in self.database.rows(statement, tuple(run_ids))}

    def cached_task(self, fingerprint: str) -> Task | None:
        """The newest POD task that succeeded with that fingerprint; whether its artifacts still exist is not asked."""
        row = self.database.row(
            "SELECT * FROM tasks WHERE fingerprint = ? AND fingerprint <> '' AND state = 'SUCCEEDED' AND kind = 'POD'"
            " ORDER BY finished_at DESC LIMIT 1",
            (fingerprint,),
        )
        return None if row is None else _task(row)

    def _document(self, digest: str) -> dict[str, Any]:
        """{} for one that is lost or damaged: its runs are still shown, and so are all others."""
        try:
            return self.database.get_blob(digest)
        except (SandboxError, ValueError):
            return {}

    def _run(self, row: sqlite3.Row) -> Run:
        columns = dict(row)
        return Run(
            spec=self._document(columns.pop("spec_hash")),
            platform_spec=self._document(columns.pop("platform_hash")),
            parameters=json.loads(columns.pop("parameters")),
            state_history=json.loads(columns.pop("state_history")),
            enable_caching=_flag(columns.pop("enable_caching")),
            **columns,
        )


def _task(row: sqlite3.Row) -> Task:
    columns = dict(row)
    decoded = {name: json.loads(columns.pop(name)) for name in ("inputs", "outputs", "state_history")}
    return Task(cached=bool(columns.pop("cached")), **decoded, **columns)


def _artifact(row: sqlite3.Row) -> Artifact:
    columns = dict(row)
    for name in ("run_id", "task_id", "namespace"):
        del columns[name]
    return Artifact(metadata=json.loads(columns.pop("metadata")), **columns)


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)
