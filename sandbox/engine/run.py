"""Runs one pipeline run: walks its DAG, starts what is ready, keeps every state in the store as it changes."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.engine import cel, lightweight, spec, step, values
from sandbox.engine.values import RunFacts, TaskFailed, Values
from sandbox.forkserver import Worker
from sandbox.runstore.store import Run, Store, Task

_KILL_AFTER_S = 5.0


@dataclass
class _Dag:
    """One DAG while it runs: its inputs, the outputs its tasks have given so far, and the tasks under way."""

    tasks: Mapping[str, Any]
    inputs: Values
    path: str
    parent_id: str
    finished: dict[str, Values] = field(default_factory=dict)
    running: dict[str, asyncio.Task[str]] = field(default_factory=dict)


@dataclass
class RunExecution:
    """The state of one run while it is being executed.

    `prior` maps the path of a task ("gate/package") to its record from before a restart or retry: a task that
    succeeded then is not run again. `env` is what every step finds in its environment, as a pod its service account.
    """

    run: Run
    store: Store
    folder: Path
    parents: step.Parents
    slots: asyncio.Semaphore
    prior: Mapping[str, Task] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    cancelled: bool = False
    workers: set[Worker] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    _stopping: set[asyncio.Task[None]] = field(default_factory=set)

    async def execute(self) -> Run:
        """Run everything; gives the run in its final state, saved."""
        self._save_run("RUNNING")
        root = self.run.spec["root"]
        try:
            await self._run_dag(root, Values(self.run.parameters), "", "")
        except TaskFailed as error:
            self.failures.append(error.message)
        state = "CANCELED" if self.cancelled else "FAILED" if self.failures else "SUCCEEDED"
        self._save_run(state, "; ".join(self.failures))
        return self.run

    def cancel(self) -> None:
        """End what runs, start nothing more; `execute` then ends in CANCELED."""
        self.cancelled = True
        self._save_run("CANCELING")
        for worker in self.workers:
            task = asyncio.create_task(_stop(worker))
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    async def _run_dag(self, found: Mapping[str, Any], inputs: Values, path: str, parent_id: str) -> Values | None:
        """Run the tasks of a DAG as their inputs become ready; its outputs, or None where one of them failed."""
        dag = _Dag(found["dag"].get("tasks", {}), inputs, path, parent_id)
        async with asyncio.TaskGroup() as group:
            dag.running = {name: group.create_task(self._run_when_ready(name, dag)) for name in dag.tasks}
        states = [task.result() for task in dag.running.values()]
        if "FAILED" in states or "CANCELED" in states:
            return None
        return values.dag_outputs(found["dag"], dag.finished)

    async def _run_when_ready(self, name: str, dag: _Dag) -> str:
        """Wait for the tasks before this one, then run it; gives its final state."""
        task = dag.tasks[name]
        path = f"{dag.path}/{name}" if dag.path else name
        record = self._record(name, task, path, dag.parent_id)
        before = [await dag.running[upstream] for upstream in sorted(spec.upstream(task))]
        if self.cancelled:
            return self._save_task(record, "CANCELED").state
        found = spec.component(self.run.spec, task, path)
        if any(state != "SUCCEEDED" for state in before):
            return self._save_skipped(record, found, path).state
        try:
            inputs = values.resolve_inputs(task, found, dag.inputs, dag.finished, self._facts(record))
            record = dataclasses.replace(record, inputs=inputs.as_dict())
            condition = task.get("triggerPolicy", {}).get("condition")
            if condition and not cel.evaluate(condition, inputs.parameters):
                return self._save_skipped(record, found, path).state
            if "dag" in found:
                return await self._run_group(record, found, inputs, path, dag)
            return await self._run_executor(record, task, found, inputs, dag)
        except (TaskFailed, cel.ConditionError) as error:
            self.failures.append(f"step {record.display_name!r}: {error.message}")
            return self._save_task(record, "FAILED", error.message).state

    async def _run_group(self, record: Task, found: Mapping[str, Any], inputs: Values, path: str, dag: _Dag) -> str:
        record = self._save_task(record, "RUNNING")
        outputs = await self._run_dag(found, inputs, path, record.task_id)
        if outputs is None:
            if self.cancelled:
                return self._save_task(record, "CANCELED").state
            return self._save_task(record, "FAILED", "a task inside failed").state
        dag.finished[record.name] = outputs
        return self._save_task(dataclasses.replace(record, outputs=outputs.as_dict()), "SUCCEEDED").state

    async def _run_executor(
        self,
        record: Task,
        task: Mapping[str, Any],
        found: Mapping[str, Any],
        inputs: Values,
        dag: _Dag,
    ) -> str:
        if record.state == "SUCCEEDED":
            dag.finished[record.name] = Values.of(record.outputs)
            return record.state
        label = found["executorLabel"]
        executor = self.run.spec["deploymentSpec"]["executors"][label]
        record = dataclasses.replace(record, fingerprint=self._fingerprint(task, found, executor, inputs))
        if record.fingerprint and (hit := self._cache_hit(record)):
            dag.finished[record.name] = Values.of(hit.outputs)
            record = dataclasses.replace(record, outputs=hit.outputs, cached=True)
            self._note(record, f"outputs taken from the cache: task {hit.task_id} of run {hit.run_id}")
            return self._save_task(record, "SUCCEEDED").state
        light = lightweight.read(executor["container"], label)
        outputs = await self._attempts(record, task, found, light, inputs)
        if outputs is None:
            return "CANCELED"
        dag.finished[record.name] = outputs
        return "SUCCEEDED"

    async def _attempts(
        self,
        record: Task,
        task: Mapping[str, Any],
        found: Mapping[str, Any],
        light: lightweight.Lightweight,
        inputs: Values,
    ) -> Values | None:
        """Try as often as the retry policy allows; the outputs, or None where the run was cancelled meanwhile."""
        policy = task.get("retryPolicy", {})
        allowed = int(policy.get("maxRetryCount", 0))
        for retry in range(allowed + 1):
            async with self.slots:
                if self.cancelled:
                    self._save_task(record, "CANCELED")
                    return None
                record = self._save_task(dataclasses.replace(record, attempt=record.attempt + 1), "RUNNING")
                try:
                    outputs = await self._attempt(record, found, light, inputs)
                except TaskFailed as error:
                    if self.cancelled:
                        self._save_task(record, "CANCELED")
                        return None
                    if retry == allowed:
                        raise
                    self._note(record, f"attempt {record.attempt} failed: {error.message}; trying again")
                else:
                    self._save_task(dataclasses.replace(record, outputs=outputs.as_dict()), "SUCCEEDED")
                    return outputs
            await asyncio.sleep(_backoff_s(policy, retry))
        raise AssertionError("unreachable")

    async def _attempt(
        self, record: Task, found: Mapping[str, Any], light: lightweight.Lightweight, inputs: Values
    ) -> Values:
        folder = self._task_folder(record)
        for leftover in ("executor_output.json", "reason", "parameters", "work"):
            _remove(folder / leftover)
        place = f"{self.run.pipeline_root}/{self._pipeline_name()}/{self.run.run_id}/{record.name}/{uuid.uuid4()}"
        planned = values.planned_outputs(found, place)
        if light.accelerators and not os.path.exists("/dev/nvidiactl"):
            self._note(record, f"asks for {light.accelerators} accelerator(s); there is none here, it runs on the CPU")
        if light.extras is None:
            self._note(record, f"image {light.image!r} is unknown here: the step may import all that is installed")
        env = {"KFP_RUN_ID": self.run.run_id, "KFP_POD_NAME": record.pod_name, "KFP_TASK_NAME": record.name, **self.env}
        entered = values.executor_input(found, inputs, planned, folder)
        worker = await step.begin(self.parents.of(light), light, entered, folder, env)
        self.workers.add(worker)
        try:
            if self.cancelled:
                worker.kill(signal.SIGKILL)
            await step.end(worker, folder)
        except asyncio.CancelledError:
            worker.kill(signal.SIGKILL)
            raise
        finally:
            self.workers.discard(worker)
        return values.read_outputs(found, planned, folder)

    def _record(self, name: str, task: Mapping[str, Any], path: str, parent_id: str) -> Task:
        """The task's record: the one from before a restart where there is one, else a new one, saved as PENDING."""
        known = self.prior.get(path)
        if known is not None and known.state == "SUCCEEDED" and known.kind == "POD":
            return known
        task_id = known.task_id if known else str(uuid.uuid4())
        found = spec.component(self.run.spec, task, path)
        record = Task(
            task_id=task_id,
            run_id=self.run.run_id,
            name=name,
            created_at=known.created_at if known else time.time(),
            parent_task_id=parent_id,
            display_name=task.get("taskInfo", {}).get("name") or name,
            kind="DAG" if "dag" in found else "POD",
            pod_name=f"{self._pipeline_name()}-{task_id[:8]}" if "dag" not in found else "",
            attempt=known.attempt if known else 0,
            state_history=list(known.state_history) if known else [],
        )
        return self._save_task(record, "PENDING")

    def _save_skipped(self, record: Task, found: Mapping[str, Any], path: str) -> Task:
        """Mark a task that will not run as skipped, and everything inside it."""
        for name, inner in found.get("dag", {}).get("tasks", {}).items():
            inside = self._record(name, inner, f"{path}/{name}", record.task_id)
            self._save_skipped(inside, spec.component(self.run.spec, inner, path), f"{path}/{name}")
        return self._save_task(record, "SKIPPED")

    def _save_task(self, record: Task, state: str, error: str = "") -> Task:
        now = time.time()
        entry = {"state": state, "update_time": now, "error": error}
        saved = dataclasses.replace(
            record,
            state=state,
            error=error,
            started_at=now if state == "RUNNING" and not record.started_at else record.started_at,
            finished_at=now if state in ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED") else None,
            state_history=[*record.state_history, entry],
        )
        self.store.save_task(saved)
        return saved

    def _save_run(self, state: str, error: str = "") -> None:
        now = time.time()
        final = state in ("SUCCEEDED", "FAILED", "CANCELED")
        entry = {"state": state, "update_time": now, "error": error}
        self.run = dataclasses.replace(
            self.store.get_run(self.run.run_id),
            state=state,
            error=error,
            finished_at=now if final else None,
            state_history=[*self.run.state_history, entry],
        )
        self.store.save_run(self.run)

    def _cache_hit(self, record: Task) -> Task | None:
        hit = self.store.cached_task(record.fingerprint)
        if hit is None:
            return None
        uris = [artifact["uri"] for listed in hit.outputs.get("artifacts", {}).values() for artifact in listed]
        # Metrics live in metadata and have no file; the folder of an artifact is made in any case.
        return hit if all("://" in uri or Path(uri).parent.exists() for uri in uris) else None

    def _fingerprint(
        self, task: Mapping[str, Any], found: Mapping[str, Any], executor: Mapping[str, Any], inputs: Values
    ) -> str:
        wanted = task.get("cachingOptions", {}).get("enableCache", False) and self.run.enable_caching is not False
        return values.fingerprint(found, executor, inputs) if wanted else ""

    def _facts(self, record: Task) -> RunFacts:
        return RunFacts(
            run_id=self.run.run_id,
            run_name=self.run.display_name,
            pipeline_name=self._pipeline_name(),
            pipeline_root=self.run.pipeline_root,
            scheduled_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.run.scheduled_at)),
            task_id=record.task_id,
            task_name=record.name,
        )

    def _note(self, record: Task, text: str) -> None:
        """A line of the sandbox's own in the step's log."""
        with (self._task_folder(record) / "log").open("a", encoding="utf-8") as log:
            log.write(f"[sandbox] {text}\n")

    def _task_folder(self, record: Task) -> Path:
        folder = self.folder / record.task_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _pipeline_name(self) -> str:
        name: str = self.run.spec["pipelineInfo"]["name"]
        return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)


async def _stop(worker: Worker) -> None:
    """Ask a worker to end; make it where it does not within a few seconds."""
    worker.kill(signal.SIGTERM)
    try:
        await asyncio.wait_for(worker.wait(), _KILL_AFTER_S)
    except TimeoutError:
        worker.kill(signal.SIGKILL)


def _backoff_s(policy: Mapping[str, Any], retry: int) -> float:
    """Seconds before the next attempt: backoffDuration * backoffFactor ** retry, at most backoffMaxDuration."""
    first = float(str(policy.get("backoffDuration", "0s")).rstrip("s") or 0)
    most = float(str(policy.get("backoffMaxDuration", "3600s")).rstrip("s") or 3600)
    return min(first * float(policy.get("backoffFactor", 2.0)) ** retry, most)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def paths(tasks: list[Task]) -> dict[str, Task]:
    """Tasks of one run by their path in the DAG ("gate/package")."""
    by_id = {task.task_id: task for task in tasks}

    def path(task: Task) -> str:
        parent = by_id.get(task.parent_task_id)
        return f"{path(parent)}/{task.name}" if parent else task.name

    return {path(task): task for task in tasks}
