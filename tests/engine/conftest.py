"""A live engine in a thread: tests hand it compiled pipelines and look at the runs and tasks that come out."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from sandbox.engine import step
from sandbox.engine.check import check
from sandbox.engine.engine import Engine
from sandbox.engine.records import paths
from sandbox.engine.spec import bind_parameters
from sandbox.runstore.store import Run, Store, Task
from tests.engine import kfp_local

T = TypeVar("T")
Run_ = Callable[..., "Outcome"]


@dataclass
class Outcome:
    """A run and its tasks: by display name, and by path ("for-loop-1/0/give"), which is unambiguous."""

    run: Run
    tasks: dict[str, Task]
    at: dict[str, Task]
    engine: Engine

    def states(self) -> dict[str, str]:
        return {name: task.state for name, task in self.tasks.items()}

    def steps(self) -> dict[str, str]:
        """The states of what is no group, by path."""
        return {path: task.state for path, task in self.at.items() if task.kind != "DAG"}

    def outputs(self) -> dict[str, Any]:
        """What the steps that succeeded gave, by path: one parameter by itself, several by name."""
        return {
            path: given["Output"] if set(given) == {"Output"} else given
            for path, task in self.at.items()
            if task.kind != "DAG" and (given := task.outputs.get("parameters"))
        }

    def output(self, task: str, name: str = "Output") -> Any:
        return self.tasks[task].outputs["parameters"][name]

    def log(self, task: str) -> str:
        return self.engine.log_path(self.run.run_id, self.tasks[task].task_id).read_text(encoding="utf-8")


class LiveEngine:
    """An engine on its own event loop; every call from a test is carried over to that loop."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "kfp").mkdir(parents=True, exist_ok=True)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.store, self.engine = self.call(self._make())

    async def _make(self) -> tuple[Store, Engine]:
        store = Store(self.home / "kfp" / "kfp.sqlite")
        engine = Engine(store, self.home)
        await engine.start()
        return store, engine

    def call(self, work: Coroutine[Any, Any, T], timeout: float = 120) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def submit(self, spec: dict[str, Any], platform_spec: dict[str, Any] | None = None, **parameters: Any) -> str:
        """Check, save and start a run the way the API does; gives its id."""

        async def go() -> str:
            check(spec, platform_spec)
            now = time.time()
            run = Run(
                run_id=str(uuid.uuid4()),
                experiment_id="test",
                display_name="test",
                spec=spec,
                platform_spec=platform_spec or {},
                created_at=now,
                scheduled_at=now,
                parameters=bind_parameters(spec, parameters),
                pipeline_root=str(self.home / "artifacts"),
            )
            self.store.save_run(run)
            self.engine.submit(run.run_id)
            return run.run_id

        return self.call(go())

    def outcome(self, run_id: str) -> Outcome:
        async def read() -> tuple[Run, list[Task]]:
            return self.store.get_run(run_id), self.store.tasks(run_id)

        run, tasks = self.call(read())
        return Outcome(run, {task.display_name: task for task in tasks}, paths(tasks), self.engine)

    def until(self, run_id: str, holds: Callable[[Outcome], bool], timeout: float = 180) -> Outcome:
        """Wait until `holds` of the run; fails with the last states seen."""
        deadline = time.monotonic() + timeout
        while True:
            outcome = self.outcome(run_id)
            if holds(outcome):
                return outcome
            assert time.monotonic() < deadline, f"still {outcome.run.state}: {outcome.states()}"
            time.sleep(0.01)

    def finish(self, run_id: str, timeout: float = 180) -> Outcome:
        return self.until(run_id, lambda outcome: outcome.run.finished_at is not None, timeout)

    def run(self, spec: dict[str, Any], platform_spec: dict[str, Any] | None = None, **parameters: Any) -> Outcome:
        return self.finish(self.submit(spec, platform_spec, **parameters))

    def close(self) -> None:
        self.call(self.engine.stop())
        self.store.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(60)
        self.loop.close()


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    live = LiveEngine(tmp_path_factory.mktemp("engine"))
    yield live
    live.close()


@pytest.fixture
def run(engine: LiveEngine, compiled: Callable[[Any], dict[str, Any]], request: pytest.FixtureRequest) -> Run_:
    """Compiles a pipeline and runs it; with KANARY_KFP_LOCAL set also by kfp.local, and compares."""

    def go(pipeline: Any, **parameters: Any) -> Outcome:
        spec = compiled(pipeline)
        outcome = engine.run(spec, **parameters)
        differs = request.node.get_closest_marker("kfp_local_differs")
        if os.environ.get("KANARY_KFP_LOCAL") and differs is None:
            kfp_local.assert_agrees(spec, parameters, outcome.run.state, outcome.outputs())
        return outcome

    return go


@pytest.fixture
def fresh_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], LiveEngine]]:
    """Starts engines on the same home, one after the other, as a restarted sandbox would.

    Their steps are of plain Python images: the other parents need not import torch each time.
    """
    for name in ("LIGHT_PRELOAD", "TORCH_PRELOAD"):
        monkeypatch.setattr(step, name, step.BARE_PRELOAD)
    made: list[LiveEngine] = []

    def start() -> LiveEngine:
        made.append(LiveEngine(tmp_path))
        return made[-1]

    yield start
    for live in made:
        if not live.loop.is_closed():
            live.close()


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[[Any], dict[str, Any]]:
    """Compiles a `@dsl.pipeline` function with kfp's own compiler and gives its PipelineSpec."""

    def build(pipeline: Any) -> dict[str, Any]:
        from kfp import compiler

        path = tmp_path / f"{uuid.uuid4()}.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        spec: dict[str, Any] = next(iter(yaml.safe_load_all(path.read_text(encoding="utf-8"))))
        return spec

    return build
