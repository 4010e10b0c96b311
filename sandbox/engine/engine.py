"""Keeps every unfinished run going: starts, ends, retries them, and takes them up again after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from pathlib import Path

from sandbox.engine import step
from sandbox.engine.run import RunExecution, paths
from sandbox.errors import Conflict
from sandbox.runstore.store import FINAL_STATES, Run, Store

_log = logging.getLogger(__name__)


class Engine:
    """Executes the runs of one store; its tasks run in workers forked from warm parents."""

    def __init__(self, store: Store, home: Path) -> None:
        self.store = store
        self.folder = home / "kfp" / "runs"
        # A step that speaks to Kubernetes means this sandbox, wherever the user's own kubeconfig points.
        self.env = {"KANARY_HOME": str(home), "KUBECONFIG": str(home / "kubeconfig")}
        self.slots = asyncio.Semaphore(step.cores())
        self.parents = step.parents(home / "logs", threads=step.cores())
        self.executions: dict[str, RunExecution] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._warming: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Warm the parents in the background and take up every run that was not finished."""
        self._warming = [asyncio.create_task(server.start()) for server in (self.parents.light, self.parents.torch)]
        for run in self.store.unfinished_runs():
            if run.state == "CANCELING":
                self._end(run.run_id, "CANCELED")
            else:
                self._begin(run)

    async def stop(self) -> None:
        """End all workers; unfinished runs stay unfinished in the store and go on at the next start."""
        for task in [*self._tasks.values(), *self._warming]:
            task.cancel()
        await asyncio.gather(*self._tasks.values(), *self._warming, return_exceptions=True)
        await asyncio.gather(self.parents.light.stop(), self.parents.torch.stop())

    def submit(self, run_id: str) -> None:
        """Start a run that has just been saved as PENDING."""
        self._begin(self.store.get_run(run_id))

    async def terminate(self, run_id: str) -> None:
        """Ask a run to end; Conflict where it has ended already."""
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
        self._begin(run)

    def log_path(self, run_id: str, task_id: str) -> Path:
        """Where a task's output goes, whether or not it has begun."""
        return self.folder / run_id / task_id / "log"

    def _begin(self, run: Run) -> None:
        if run.run_id in self._tasks:
            raise Conflict(f"run {run.run_id} is being executed already")
        execution = RunExecution(
            run=run,
            store=self.store,
            folder=self.folder / run.run_id,
            parents=self.parents,
            slots=self.slots,
            env=self.env,
            prior=paths(self.store.tasks(run.run_id)),
        )
        self.executions[run.run_id] = execution
        self._tasks[run.run_id] = asyncio.create_task(self._execute(execution))

    async def _execute(self, execution: RunExecution) -> None:
        """The outermost loop of a run: whatever goes wrong inside ends this run, and no other."""
        run_id = execution.run.run_id
        try:
            await execution.execute()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # the outermost loop of a run; logged whole
            _log.exception("run %s ended by an error of the sandbox itself", run_id)
            with contextlib.suppress(Exception):
                self._end(run_id, "FAILED", f"the sandbox itself failed: {type(error).__name__}: {error}")
        finally:
            self.executions.pop(run_id, None)
            self._tasks.pop(run_id, None)

    def _end(self, run_id: str, state: str, reason: str = "") -> None:
        """Give a run that nobody executes any more, and whatever of it was under way, its final state."""
        now = time.time()
        for task in self.store.tasks(run_id):
            if task.state not in FINAL_STATES:
                self.store.save_task(dataclasses.replace(task, state=state, error=reason, finished_at=now))
        run = dataclasses.replace(self.store.get_run(run_id), state=state, error=reason, finished_at=now)
        self.store.save_run(run)
