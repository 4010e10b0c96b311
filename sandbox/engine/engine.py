"""Keeps every unfinished run going: starts, ends, retries them, and takes them up again after a restart."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sqlite3
from pathlib import Path

from sandbox import steady
from sandbox.engine import step
from sandbox.engine.attempts import Means
from sandbox.engine.packages import Environments
from sandbox.engine.records import paths
from sandbox.engine.run import RunExecution
from sandbox.errors import Conflict, NotFound
from sandbox.forkserver import ahead
from sandbox.runstore.store import FINAL_STATES, Run, Store

_log = logging.getLogger(__name__)
_STORE_AGAIN_S = 1.0


class Engine:
    """Executes the runs of one store; its tasks run in workers forked from warm parents."""

    def __init__(self, store: Store, home: Path) -> None:
        self.store = store
        self.folder = home / "kfp" / "runs"
        self.parents = step.parents(home / "logs", threads=step.cores())
        env = step.worker_env(step.cores())
        self.environments = Environments(home / "kfp" / "packages", home / "logs" / "workers.log", env)
        self._means = Means(
            parents=self.parents,
            environments=self.environments,
            slots=asyncio.Semaphore(step.cores()),
            fetched=home / "kfp" / "fetched",
            # A step that speaks to Kubernetes means this sandbox, wherever the user's own kubeconfig points.
            env={"KANARY_HOME": str(home), "KUBECONFIG": str(home / "kubeconfig")},
        )
        self.executions: dict[str, RunExecution] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._warming: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Warm the parents in the background, where that is wanted, and take up every run that was not finished."""
        self._warming = [asyncio.create_task(server.start()) for server in self.parents.all() if ahead()]
        for run in self.store.unfinished_runs():
            self._begin(run)

    async def stop(self) -> None:
        """End all workers; unfinished runs stay unfinished in the store and go on at the next start."""
        for task in [*self._tasks.values(), *self._warming]:
            task.cancel()
        await asyncio.gather(*self._tasks.values(), *self._warming, return_exceptions=True)
        await asyncio.gather(*(parent.stop() for parent in self.parents.all()), self.environments.stop())

    def submit(self, run_id: str) -> None:
        """Start a run that has just been saved as PENDING."""
        self._begin(self.store.get_run(run_id))

    async def terminate(self, run_id: str) -> None:
        """Ask a run to end, exit tasks excepted; asked again, those too. Conflict where it has ended already."""
        execution = self.executions.get(run_id)
        if execution is None:
            raise Conflict(f"run {run_id} has ended: {self.store.get_run(run_id).state}")
        execution.cancel()

    async def retry(self, run_id: str) -> None:
        """Run again what failed or was never reached; what succeeded stays. Conflict unless the run failed or ended."""
        run = self.store.get_run(run_id)
        if run.state not in ("FAILED", "CANCELED"):
            raise Conflict(f"run {run_id} is {run.state}: only failed or canceled runs can be retried")
        run = dataclasses.replace(run, state="PENDING", error="", finished_at=None)
        self.store.save_run(run)
        self._begin(run, retrying=True)

    def log_path(self, run_id: str, task_id: str) -> Path:
        """Where a task's output goes, all its attempts one after the other, whether or not it has begun."""
        return self.folder / run_id / task_id / "log"

    def _begin(self, run: Run, retrying: bool = False) -> None:
        if run.run_id in self._tasks:
            raise Conflict(f"run {run.run_id} is being executed already")
        prior = paths(self.store.tasks(run.run_id))
        if not run.spec:
            self._tasks[run.run_id] = asyncio.create_task(self._lost(run.run_id))
            return
        execution = RunExecution(run, self.store, self.folder / run.run_id, self._means, prior, retrying)
        self.executions[run.run_id] = execution
        self._tasks[run.run_id] = asyncio.create_task(self._execute(execution))

    async def _execute(self, execution: RunExecution) -> None:
        """The outermost loop of a run: whatever goes wrong inside ends this run, and no other."""
        run_id = execution.records.run.run_id
        try:
            await execution.execute()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # the outermost loop of a run; logged whole
            _log.exception("run %s ended by an error of the sandbox itself", run_id)
            cause = _first(error)
            await self._fail(run_id, f"the sandbox itself failed: {type(cause).__name__}: {cause}")
        finally:
            self.executions.pop(run_id, None)
            self._tasks.pop(run_id, None)

    async def _lost(self, run_id: str) -> None:
        await self._fail(run_id, "its pipeline cannot be read from the store any more")
        self._tasks.pop(run_id, None)

    async def _fail(self, run_id: str, reason: str) -> None:
        """Fail a run, as soon as the store takes it: on a full disk that is when there is room again."""
        while True:
            try:
                return self._end(run_id, "FAILED", reason)
            except NotFound:
                return None
            except (sqlite3.Error, OSError) as error:
                _log.warning("run %s has failed and cannot be stored yet: %s", run_id, error)
                await asyncio.sleep(_STORE_AGAIN_S)

    def _end(self, run_id: str, state: str, reason: str = "") -> None:
        """Give a run that nobody executes any more, and whatever of it was under way, its final state."""
        now = steady.now()
        for task in self.store.tasks(run_id):
            if task.state not in FINAL_STATES:
                self.store.save_task(dataclasses.replace(task, state=state, error=reason, finished_at=now))
        run = dataclasses.replace(self.store.get_run(run_id), state=state, error=reason, finished_at=now)
        self.store.save_run(run)


def _first(error: BaseException) -> BaseException:
    """The error that a group of them began with."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
