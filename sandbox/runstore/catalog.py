"""Experiments, pipelines and their versions. Runs keep their own spec: nothing deleted here changes a run."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.errors import Conflict, NotFound
from sandbox.runstore.database import Database, canonical, text_bytes
from sandbox.runstore.listing import Page, Query, page_of, shown_time

DEFAULT_EXPERIMENT = "Default"


class AlreadyExists(Conflict):
    """Another one has that name."""


@dataclass(frozen=True)
class Experiment:
    experiment_id: str
    display_name: str
    description: str
    namespace: str
    storage_state: str
    created_at: float
    last_run_created_at: float


@dataclass(frozen=True)
class Pipeline:
    pipeline_id: str
    name: str
    display_name: str
    description: str
    namespace: str
    created_at: float
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PipelineVersion:
    pipeline_version_id: str
    pipeline_id: str
    name: str
    display_name: str
    description: str
    code_source_url: str
    created_at: float
    spec: dict[str, Any]
    platform_spec: dict[str, Any]
    tags: dict[str, str] = field(default_factory=dict)


class Catalog:
    """What runs are made from and filed under, in the same file as the runs."""

    def __init__(self, database: Database) -> None:
        """Makes the experiment "Default" where there is none."""
        self.database = database
        self.default_experiment()

    def default_experiment(self) -> Experiment:
        row = self.database.row(
            "SELECT * FROM experiments WHERE display_name = ? AND namespace = ''", (DEFAULT_EXPERIMENT,)
        )
        return Experiment(**dict(row)) if row else self.create_experiment(DEFAULT_EXPERIMENT)

    def create_experiment(self, name: str, description: str = "", namespace: str = "") -> Experiment:
        """Raises AlreadyExists."""
        new = Experiment(str(uuid.uuid4()), name, description, namespace, "AVAILABLE", shown_time(time.time()), 0.0)
        self._insert("experiments", vars(new), f"Experiment {name!r} already exists")
        return new

    def experiment(self, experiment_id: str) -> Experiment:
        """Raises NotFound."""
        return Experiment(**self._one("experiments", "experiment_id", experiment_id, "Experiment"))

    def storage_state(self, experiment_id: str) -> str:
        """The experiment's storage state, "" when it has been deleted."""
        row = self.database.row("SELECT storage_state FROM experiments WHERE experiment_id = ?", (experiment_id,))
        return str(row["storage_state"]) if row else ""

    def list_experiments(self, query: Query) -> Page[Experiment]:
        return page_of(self.database, query, lambda row: Experiment(**dict(row)))

    def set_experiment_storage(self, experiment_id: str, storage_state: str) -> None:
        """Archives or restores.

        Archiving takes the runs along and disables the recurring runs; restoring leaves both so, as in KFP.
        """
        self.experiment(experiment_id)
        with self.database.transaction() as connection:
            values = (storage_state, experiment_id)
            connection.execute("UPDATE experiments SET storage_state = ? WHERE experiment_id = ?", values)
            if storage_state == "ARCHIVED":
                connection.execute("UPDATE runs SET storage_state = ? WHERE experiment_id = ?", values)
                disable = "UPDATE recurring_runs SET enabled = 0, updated_at = ? WHERE experiment_id = ? AND enabled"
                connection.execute(disable, (shown_time(time.time()), experiment_id))

    def delete_experiment(self, experiment_id: str) -> None:
        """Deletes the experiment, not its runs. Raises NotFound, and Conflict for the default experiment."""
        if experiment_id == self.default_experiment().experiment_id:
            raise Conflict("The default experiment cannot be deleted")
        self.experiment(experiment_id)
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM experiments WHERE experiment_id = ?", (experiment_id,))

    def create_pipeline(
        self,
        name: str,
        display_name: str,
        description: str,
        namespace: str,
        tags: Mapping[str, str] | None = None,
    ) -> Pipeline:
        """Raises AlreadyExists."""
        now = shown_time(time.time())
        new = Pipeline(str(uuid.uuid4()), name, display_name, description, namespace, now, dict(tags or {}))
        columns = vars(new) | {"tags": canonical(new.tags)}
        self._insert("pipelines", columns, f"Pipeline {name!r} already exists")
        return new

    def update_pipeline(self, pipeline: Pipeline) -> None:
        """Keeps the pipeline's display name and tags, the only things of it that change."""
        with self.database.transaction() as connection:
            connection.execute(
                "UPDATE pipelines SET display_name = ?, tags = ? WHERE pipeline_id = ?",
                (pipeline.display_name, canonical(pipeline.tags), pipeline.pipeline_id),
            )

    def pipeline(self, pipeline_id: str) -> Pipeline:
        """Raises NotFound."""
        return _pipeline(self._one("pipelines", "pipeline_id", pipeline_id, "Pipeline"))

    def pipeline_by_name(self, name: str, namespace: str) -> Pipeline:
        """Raises NotFound."""
        row = self.database.row("SELECT * FROM pipelines WHERE name = ? AND namespace = ?", (name, namespace))
        if row is None:
            raise NotFound(f"Pipeline {name!r} not found")
        return _pipeline(dict(row))

    def list_pipelines(self, query: Query) -> Page[Pipeline]:
        return page_of(self.database, query, lambda row: _pipeline(dict(row)))

    def delete_pipeline(self, pipeline_id: str, cascade: bool) -> None:
        """Raises NotFound, and Conflict while the pipeline has versions and `cascade` is not asked for."""
        self.pipeline(pipeline_id)
        with self.database.transaction() as connection:
            rows = self.database.rows("SELECT pipeline_version_id FROM versions WHERE pipeline_id = ?", (pipeline_id,))
            if rows and not cascade:
                raise Conflict(
                    f"Pipeline {pipeline_id} has existing pipeline versions (e.g. {rows[0][0]})",
                    "Delete the versions first, or set cascade=true.",
                )
            for row in rows:
                self.delete_version(pipeline_id, row[0])
            connection.execute("DELETE FROM pipelines WHERE pipeline_id = ?", (pipeline_id,))

    def create_version(self, version: PipelineVersion) -> None:
        """Keeps the version. Raises NotFound for its pipeline, and AlreadyExists."""
        self.pipeline(version.pipeline_id)
        columns = vars(version) | {"tags": canonical(version.tags)}
        with self.database.transaction():
            columns["spec_hash"] = self.database.put_blob(columns.pop("spec"))
            columns["platform_hash"] = self.database.put_blob(columns.pop("platform_spec"))
            self._insert("versions", columns, f"Pipeline version {version.name!r} already exists")

    def update_version(self, version: PipelineVersion) -> None:
        """Keeps the version's display name and tags, the only things of it that change."""
        with self.database.transaction() as connection:
            connection.execute(
                "UPDATE versions SET display_name = ?, tags = ? WHERE pipeline_version_id = ?",
                (version.display_name, canonical(version.tags), version.pipeline_version_id),
            )

    def version(self, pipeline_id: str, version_id: str) -> PipelineVersion:
        """The version of that id, or the newest for "". Raises NotFound, also when it is another pipeline's."""
        row = self.database.row(
            "SELECT * FROM versions WHERE (pipeline_id = ?1 OR ?1 = '')"
            " AND (pipeline_version_id = ?2 OR ?2 = '') ORDER BY created_at DESC, pipeline_version_id LIMIT 1",
            (pipeline_id, version_id),
        )
        if row is None or not (pipeline_id or version_id):
            wanted = f"Pipeline version {version_id}" if version_id else f"A version of pipeline {pipeline_id}"
            raise NotFound(f"{wanted} not found")
        return self._version(row)

    def list_versions(self, query: Query) -> Page[PipelineVersion]:
        return page_of(self.database, query, self._version, lambda version: text_bytes(version.spec))

    def delete_version(self, pipeline_id: str, version_id: str) -> None:
        """Raises NotFound."""
        with self.database.transaction():
            row = self.database.row(
                "DELETE FROM versions WHERE pipeline_id = ? AND pipeline_version_id = ?"
                " RETURNING spec_hash, platform_hash",
                (pipeline_id, version_id),
            )
            if row is None:
                raise NotFound(f"Pipeline version {version_id} not found")
            self.database.drop_blobs(row["spec_hash"], row["platform_hash"])

    def _version(self, row: sqlite3.Row) -> PipelineVersion:
        columns = dict(row)
        return PipelineVersion(
            spec=self.database.get_blob(columns.pop("spec_hash")),
            platform_spec=self.database.get_blob(columns.pop("platform_hash")),
            tags=json.loads(columns.pop("tags")),
            **columns,
        )

    def _one(self, table: str, key: str, value: str, kind: str) -> dict[str, Any]:
        row = self.database.row(f"SELECT * FROM {table} WHERE {key} = ?", (value,))
        if row is None:
            raise NotFound(f"{kind} {value} not found")
        return dict(row)

    def _insert(self, table: str, columns: dict[str, Any], taken: str) -> None:
        marks = ", ".join("?" * len(columns))
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
        try:
            with self.database.transaction() as connection:
                connection.execute(statement, tuple(columns.values()))
        except sqlite3.IntegrityError:
            raise AlreadyExists(taken) from None


def _pipeline(columns: dict[str, Any]) -> Pipeline:
    return Pipeline(tags=json.loads(columns.pop("tags")), **columns)
