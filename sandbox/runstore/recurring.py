"""Recurring runs: what is to run, when, and how far its schedule has come. When a run is due is decided elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox.errors import NotFound
from sandbox.runstore.database import Database, canonical, text_bytes
from sandbox.runstore.listing import Page, Query, page_of, shown_time


@dataclass(frozen=True)
class Trigger:
    """A schedule: `cron` or, where that is "", every `interval_second`; between `start_time` and `end_time`, if given.

    Times are seconds since the epoch.
    """

    cron: str = ""
    interval_second: int = 0
    start_time: float | None = None
    end_time: float | None = None


@dataclass(frozen=True)
class RecurringRun:
    """One recurring run. `spec` is {} where each run takes the newest version of the pipeline.

    `last_triggered` is the time for which the newest of its runs was scheduled, None before the first; `last_index`
    counts them. `error` says why the newest run that was due could not be made.
    """

    recurring_run_id: str
    experiment_id: str
    display_name: str
    trigger: Trigger
    created_at: float
    updated_at: float
    description: str = ""
    namespace: str = ""
    pipeline_id: str = ""
    pipeline_version_id: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    platform_spec: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    pipeline_root: str = ""
    service_account: str = ""
    enabled: bool = True
    max_concurrency: int = 1
    no_catchup: bool = False
    last_triggered: float | None = None
    last_index: int = 0
    error: str = ""


class RecurringRuns:
    """The recurring runs in the store's file."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(self, new: RecurringRun) -> None:
        trigger = new.trigger
        columns = {
            "recurring_run_id": new.recurring_run_id,
            "experiment_id": new.experiment_id,
            "display_name": new.display_name,
            "description": new.description,
            "namespace": new.namespace,
            "pipeline_id": new.pipeline_id,
            "pipeline_version_id": new.pipeline_version_id,
            "enabled": int(new.enabled),
            "created_at": shown_time(new.created_at),
            "updated_at": shown_time(new.updated_at),
            "max_concurrency": new.max_concurrency,
            "no_catchup": int(new.no_catchup),
            "cron": trigger.cron,
            "interval_second": trigger.interval_second,
            "start_time": trigger.start_time,
            "end_time": trigger.end_time,
            "service_account": new.service_account,
            "pipeline_root": new.pipeline_root,
            "parameters": canonical(new.parameters),
            "last_triggered": new.last_triggered,
            "last_index": new.last_index,
            "error": new.error,
        }
        with self.database.transaction() as connection:
            columns["spec_hash"] = self.database.put_blob(new.spec)
            columns["platform_hash"] = self.database.put_blob(new.platform_spec)
            marks = ", ".join("?" * len(columns))
            statement = f"INSERT INTO recurring_runs ({', '.join(columns)}) VALUES ({marks})"
            connection.execute(statement, tuple(columns.values()))

    def get(self, recurring_run_id: str) -> RecurringRun:
        """Raises NotFound."""
        row = self.database.row("SELECT * FROM recurring_runs WHERE recurring_run_id = ?", (recurring_run_id,))
        if row is None:
            raise NotFound(f"Recurring run {recurring_run_id} not found")
        return self._record(dict(row))

    def list(self, query: Query) -> Page[RecurringRun]:
        return page_of(self.database, query, lambda row: self._record(dict(row)), lambda one: text_bytes(one.spec))

    def enabled(self) -> Sequence[RecurringRun]:
        """All that are to run, oldest first, without their specs: they are asked for every second."""
        rows = self.database.rows("SELECT * FROM recurring_runs WHERE enabled ORDER BY created_at, recurring_run_id")
        return [self._record({**row, "spec_hash": "", "platform_hash": ""}) for row in map(dict, rows)]

    def set_enabled(self, recurring_run_id: str, enabled: bool, now: float) -> None:
        """Raises NotFound."""
        self._update(recurring_run_id, {"enabled": int(enabled), "updated_at": shown_time(now)})

    def triggered(self, recurring_run_id: str, scheduled_at: float, index: int) -> None:
        """Remember the run that was made for `scheduled_at`. Raises NotFound."""
        self._update(recurring_run_id, {"last_triggered": scheduled_at, "last_index": index, "error": ""})

    def begin_anew(self, recurring_run_id: str, now: float) -> None:
        """Count from `now` on, as if a run had been made then. Raises NotFound."""
        self._update(recurring_run_id, {"last_triggered": now})

    def failed(self, recurring_run_id: str, error: str) -> None:
        """Remember why no run could be made. Raises NotFound."""
        self._update(recurring_run_id, {"error": error})

    def delete(self, recurring_run_id: str) -> None:
        """Forgets the recurring run; its runs stay. Raises NotFound."""
        with self.database.transaction():
            row = self.database.row(
                "DELETE FROM recurring_runs WHERE recurring_run_id = ? RETURNING spec_hash, platform_hash",
                (recurring_run_id,),
            )
            if row is None:
                raise NotFound(f"Recurring run {recurring_run_id} not found")
            self.database.drop_blobs(row["spec_hash"], row["platform_hash"])

    def _update(self, recurring_run_id: str, columns: dict[str, Any]) -> None:
        assignments = ", ".join(f"{name} = ?" for name in columns)
        with self.database.transaction() as connection:
            statement = f"UPDATE recurring_runs SET {assignments} WHERE recurring_run_id = ?"
            if not connection.execute(statement, (*columns.values(), recurring_run_id)).rowcount:
                raise NotFound(f"Recurring run {recurring_run_id} not found")

    def _record(self, columns: dict[str, Any]) -> RecurringRun:
        names = ("cron", "interval_second", "start_time", "end_time")
        trigger = Trigger(**{name: columns.pop(name) for name in names})
        return RecurringRun(
            trigger=trigger,
            spec=self.database.get_blob(columns.pop("spec_hash")),
            platform_spec=self.database.get_blob(columns.pop("platform_hash")),
            parameters=json.loads(columns.pop("parameters")),
            enabled=bool(columns.pop("enabled")),
            no_catchup=bool(columns.pop("no_catchup")),
            **columns,
        )
