"""Runs one pipeline run: walks its DAG, starts what is ready, keeps every state in the store as it changes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.engine import builtin, cel, spec, values
from sandbox.engine.attempts import Attempts, Means, Work
from sandbox.engine.placeholders import TaskFailed
from sandbox.engine.records import INTERRUPTED, MOST_INTERRUPTIONS, Place, Records, interruptions
from sandbox.engine.values import Scope, Values
from sandbox.runstore.store import Run, Store, Task

_LONGEST_ERROR = 2000


@dataclass(frozen=True)
class _End:
    """How a task, or all tasks of a DAG together, ended."""

    state: str
    outputs: Values = field(default_factory=Values)
    error: str = ""


@dataclass
class _Dag:
    """One DAG while it runs: its inputs, its tasks under way, what they have given and how they ended so far.

    `exiting` marks what belongs to an exit task; `within` says in words which iteration this is, for errors.
    """

    tasks: Mapping[str, Any]
    inputs: Values
    path: str
    parent_id: str
    exiting: bool
    within: str
    finished: dict[str, Values] = field(default_factory=dict)
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    running: dict[str, asyncio.Task[_End]] = field(default_factory=dict)


class RunExecution:
    """One run while it is being executed.

    `prior` maps the path of a task to its record from before a restart or retry: a task that succeeded then, with the
    same inputs, is not run again; in a retry exit tasks are, as they tell how the rest ended.
    """

    def __init__(
        self,
        run: Run,
        store: Store,
        folder: Path,
        means: Means,
        prior: Mapping[str, Task] | None = None,
        retrying: bool = False,
    ) -> None:
        self.records = Records(run, store, folder, prior or {})
        self.attempts = Attempts(self.records, means)
        self.failures: list[str] = []
        self._retrying = retrying

    async def execute(self) -> Run:
        """Run everything; gives the run in its final state, saved."""
        run = self.records.run
        if run.state == "CANCELING":
            self.attempts.cancelled = True
        else:
            self.records.save_run("RUNNING")
        try:
            await self._run_dag(run.spec["root"], _Dag({}, Values(run.parameters), "", "", False, ""))
        except TaskFailed as error:
            self.failures.append(error.message)
        state = "CANCELED" if self.attempts.cancelled else "FAILED" if self.failures else "SUCCEEDED"
        self.records.close_unreached("CANCELED" if state == "CANCELED" else "SKIPPED")
        return self.records.save_run(state, "" if state == "CANCELED" else _joined(self.failures))

    def cancel(self) -> None:
        """End what runs, start nothing more but exit tasks; `execute` then ends in CANCELED. Twice: exit tasks, too."""
        first = not self.attempts.cancelled
        self.attempts.stop()
        if first:
            self.records.save_run("CANCELING")

    async def _run_dag(self, found: Mapping[str, Any], dag: _Dag) -> _End:
        """Run the tasks of a DAG (component `found`) as their inputs become ready."""
        dag.tasks = found["dag"].get("tasks", {})
        records = {
            name: self.records.make(Place(name, _join(dag.path, name), dag.parent_id), task)
            for name, task in dag.tasks.items()
        }
        self.records.save_waiting(records.values())
        async with asyncio.TaskGroup() as group:
            for name, record in records.items():
                dag.running[name] = group.create_task(self._run_when_ready(record, dag))
        return _together(
            [task.result() for task in dag.running.values()], values.dag_outputs(found["dag"], dag.finished)
        )

    async def _run_when_ready(self, record: Task, dag: _Dag) -> _End:
        """Wait for the tasks before this one, then run it."""
        name = record.name
        ended = await self._run_task(record, dag.tasks[name], dag)
        if ended.state == "SUCCEEDED":
            dag.finished[name] = ended.outputs
        job = self.records.run.display_name
        dag.statuses[name] = values.final_status(name, job, ended.state, ended.error)
        return ended

    async def _run_task(self, record: Task, task: Mapping[str, Any], dag: _Dag) -> _End:
        path = _join(dag.path, record.name)
        exiting = dag.exiting or spec.is_exit_task(task)
        if self._retrying and exiting and record.state == "SUCCEEDED":
            record = self._afresh(record)
        before = [(await dag.running[upstream]).state for upstream in sorted(spec.upstream(task))]
        if self.attempts.stopped(exiting):
            return self._end(record, "CANCELED")
        if not spec.runs_after_failure(task) and any(state != "SUCCEEDED" for state in before):
            self.records.save_skipped(record, task, path)
            return _End("SKIPPED")
        try:
            found = spec.component(self.records.run.spec, task, path)
            scope = Scope(dag.inputs, dag.finished, dag.statuses)
            inputs = values.resolve_inputs(task, found, scope, self.records.facts(record))
            condition = task.get("triggerPolicy", {}).get("condition")
            if condition and not cel.evaluate(condition, inputs.parameters):
                self.records.save_skipped(record, task, path)
                return _End("SKIPPED")
            inner = _Dag({}, inputs, path, record.task_id, exiting, dag.within)
            if spec.is_loop(task):
                return await self._run_loop(record, task, found, inner)
            return await self._run_found(record, task, found, inner)
        except (TaskFailed, cel.ConditionError) as error:
            told = f"step {record.display_name!r}{dag.within}: {error.message}"
            self.failures.append(told)
            return self._end(record, "FAILED", error.message, told)

    async def _run_found(self, record: Task, task: Mapping[str, Any], found: Mapping[str, Any], inner: _Dag) -> _End:
        if "dag" not in found:
            return await self._run_executor(record, task, found, inner)
        record = self.records.save(dataclasses.replace(record, inputs=inner.inputs.as_dict()), "RUNNING")
        return self._end_group(record, await self._run_dag(found, inner))

    async def _run_loop(self, record: Task, task: Mapping[str, Any], found: Mapping[str, Any], inner: _Dag) -> _End:
        """Run a loop's iterations, at most `parallelismLimit` at a time; each has a record of its own."""
        items = values.iterations(task, found, inner.inputs)
        record = dataclasses.replace(record, inputs=inner.inputs.as_dict(), iteration_count=len(items))
        record = self.records.save(record, "RUNNING")
        inside = [
            self.records.make(Place(record.name, _join(inner.path, str(index)), record.task_id, index), task)
            for index in range(len(items))
        ]
        self.records.save_waiting(inside)
        limit = int(task.get("iteratorPolicy", {}).get("parallelismLimit") or 0)
        gate: Any = asyncio.Semaphore(limit) if limit else contextlib.nullcontext()
        async with asyncio.TaskGroup() as group:
            running = [
                group.create_task(self._run_iteration(one, task, found, item, inner, gate))
                for one, item in zip(inside, items, strict=True)
            ]
        ended = [iteration.result() for iteration in running]
        gathered = values.collected(self.records.run.spec, found, [one.outputs for one in ended])
        return self._end_group(record, _together(ended, gathered))

    async def _run_iteration(
        self, record: Task, task: Mapping[str, Any], found: Mapping[str, Any], item: Values, loop: _Dag, gate: Any
    ) -> _End:
        async with gate:
            if self.attempts.stopped(loop.exiting):
                return self._end(record, "CANCELED")
            within = f" in iteration {record.iteration_index} of {record.name!r}{loop.within}"
            path = _join(loop.path, str(record.iteration_index))
            inner = _Dag({}, item, path, record.task_id, loop.exiting, within)
            try:
                return await self._run_found(record, task, found, inner)
            except TaskFailed as error:
                told = f"step {record.display_name!r}: {error.message}"
                self.failures.append(told)
                return self._end(record, "FAILED", error.message, told)

    async def _run_executor(self, record: Task, task: Mapping[str, Any], found: Mapping[str, Any], inner: _Dag) -> _End:
        inputs = inner.inputs
        if record.state == "SUCCEEDED":
            if record.inputs == inputs.as_dict():
                return _End("SUCCEEDED", Values.of(record.outputs))
            record = self._afresh(record)  # what is before it has run again, and gave something else
        if interruptions(record) >= MOST_INTERRUPTIONS:
            raise TaskFailed(f"{INTERRUPTED}, {interruptions(record)} times: it is not tried again")
        record = dataclasses.replace(record, inputs=inputs.as_dict())
        executor = spec.executor_of(self.records.run.spec, found)
        if "importer" in executor or builtin.is_volume_step(executor["container"]):
            return self._run_builtin(record, executor, found, inputs)
        record = dataclasses.replace(record, fingerprint=self._fingerprint(task, found, executor, inputs))
        if record.fingerprint and (hit := self._cache_hit(record)):
            record = dataclasses.replace(record, outputs=hit.outputs, cached=True)
            self.records.note(record, f"outputs taken from the cache: task {hit.task_id} of run {hit.run_id}")
            self.records.save(record, "SUCCEEDED")
            return _End("SUCCEEDED", Values.of(hit.outputs))
        outputs = await self.attempts.run(record, Work(task, found, executor, inputs, inner.exiting))
        return _End("CANCELED") if outputs is None else _End("SUCCEEDED", outputs)

    def _run_builtin(self, record: Task, executor: Mapping[str, Any], found: Mapping[str, Any], inputs: Values) -> _End:
        record = self.records.save(record, "RUNNING")
        facts = self.records.facts(record)
        if "importer" in executor:
            outputs = builtin.run_importer(executor["importer"], found, inputs, facts)
        else:
            outputs = builtin.run_volume_step(found, inputs, facts)
        self.records.save(dataclasses.replace(record, outputs=outputs.as_dict()), "SUCCEEDED")
        return _End("SUCCEEDED", outputs)

    def _end(self, record: Task, state: str, error: str = "", told: str = "") -> _End:
        """Save how a task ended; `told` is the error in the words of the run."""
        self.records.save(self.records.latest(record), state, error)
        return _End(state, error=told or error)

    def _end_group(self, record: Task, ended: _End) -> _End:
        shown = dataclasses.replace(record, outputs=ended.outputs.as_dict()) if ended.state == "SUCCEEDED" else record
        self.records.save(shown, ended.state, ended.error)
        return ended

    def _afresh(self, record: Task) -> Task:
        """A record that had succeeded, for a task that is to run again."""
        waiting = dataclasses.replace(record, outputs={}, cached=False, fingerprint="", error="", started_at=None)
        return self.records.save(waiting, "PENDING")

    def _cache_hit(self, record: Task) -> Task | None:
        hit = self.records.store.cached_task(record.fingerprint)
        if hit is None:
            return None
        uris = [artifact["uri"] for listed in hit.outputs.get("artifacts", {}).values() for artifact in listed]
        # Metrics live in metadata and have no file; the folder of an artifact is made in any case.
        return hit if all("://" in uri or Path(uri).parent.exists() for uri in uris) else None

    def _fingerprint(
        self, task: Mapping[str, Any], found: Mapping[str, Any], executor: Mapping[str, Any], inputs: Values
    ) -> str:
        run = self.records.run
        wanted = task.get("cachingOptions", {}).get("enableCache", False) and run.enable_caching is not False
        name = f"{run.namespace}/{run.spec['pipelineInfo']['name']}"
        return values.fingerprint(name, task, found, executor, inputs) if wanted else ""


def _together(ended: list[_End], outputs: Values) -> _End:
    """How a group ended whose tasks ended like that; a skipped task is no failure."""
    states = {one.state for one in ended}
    if "CANCELED" in states:
        return _End("CANCELED")
    if "FAILED" in states:
        return _End("FAILED", error=_joined([one.error for one in ended if one.state == "FAILED"]))
    return _End("SUCCEEDED", outputs)


def _joined(errors: list[str]) -> str:
    text = "; ".join(dict.fromkeys(errors))
    return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]} ..."


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
