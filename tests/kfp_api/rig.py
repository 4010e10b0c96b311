"""A service over a real store, with a clock that the test sets, and an engine that only notes what it is given."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.kfp.service import Service
from sandbox.runstore.catalog import Catalog, PipelineVersion
from sandbox.runstore.recurring import RecurringRun, RecurringRuns, Trigger
from sandbox.runstore.store import Run, Store

NOON = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC

SPEC: dict[str, Any] = {
    "pipelineInfo": {"name": "p"},
    "schemaVersion": "2.1.0",
    "root": {
        "dag": {"tasks": {}},
        "inputDefinitions": {"parameters": {"text": {"parameterType": "STRING", "isOptional": True}}},
    },
}


@dataclass
class Clock:
    """Seconds since the epoch, as the test says."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now


@dataclass
class NotingEngine:
    """Stands in for the engine, which needs processes; the runs it is given stay PENDING until a test ends them."""

    folder: Path
    submitted: list[str] = field(default_factory=list)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def submit(self, run_id: str) -> None:
        self.submitted.append(run_id)

    async def terminate(self, run_id: str) -> None: ...

    async def retry(self, run_id: str) -> None: ...

    def log_path(self, run_id: str, task_id: str) -> Path:
        return self.folder / run_id / task_id / "log"


@dataclass
class Stage:
    service: Service
    clock: Clock
    engine: NotingEngine

    def recurring(self, trigger: Trigger, **fields: Any) -> RecurringRun:
        known: dict[str, Any] = {
            "recurring_run_id": f"r{len(self.service.recurring.enabled())}",
            "experiment_id": self.service.catalog.default_experiment().experiment_id,
            "display_name": "nightly",
            "created_at": self.clock.now,
            "updated_at": self.clock.now,
            "spec": SPEC,
        }
        new = RecurringRun(trigger=trigger, **known | fields)
        self.service.recurring.create(new)
        return new

    def runs(self) -> list[Run]:
        """Those that were started, in order."""
        return [self.service.store.get_run(run_id) for run_id in self.engine.submitted]

    def scheduled(self) -> list[float]:
        """For which times after NOON they were scheduled."""
        return [run.scheduled_at - NOON for run in self.runs()]

    def end_all(self) -> None:
        for run in self.runs():
            self.service.store.save_run(dataclasses.replace(run, state="SUCCEEDED", finished_at=self.clock.now))

    def version(self, pipeline_id: str, name: str, spec: dict[str, Any]) -> None:
        self.service.catalog.create_version(
            PipelineVersion(name, pipeline_id, name, name, "", "", self.clock.now, spec, {})
        )


def open_stage(folder: Path, clock: Clock | None = None) -> Stage:
    store = Store(folder / "kfp" / "kfp.sqlite")
    clock = clock or Clock()
    engine = NotingEngine(folder / "kfp" / "runs")
    service = Service(
        store=store,
        catalog=Catalog(store.database),
        recurring=RecurringRuns(store.database),
        engine=engine,
        artifacts=folder / "artifacts",
        clock=clock,
    )
    return Stage(service, clock, engine)
