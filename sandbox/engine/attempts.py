"""Runs the executor of one task, as often as its retry policy allows: in a forked worker or in a container."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.engine import containers, fetch, lightweight, packages, platform, step, values
from sandbox.engine.placeholders import RunFacts, TaskFailed, fill, words
from sandbox.engine.records import Records
from sandbox.engine.values import Values
from sandbox.forkserver import Worker
from sandbox.runstore.store import Task

_KILL_AFTER_S = 5.0
_LEFTOVERS = ("executor_output.json", "reason", "parameters", "work")


@dataclass(frozen=True)
class Means:
    """What all runs share: warm parents, environments of packages, as many slots as cores, the steps' surroundings."""

    parents: step.Parents
    environments: packages.Environments
    slots: asyncio.Semaphore
    fetched: Path
    env: Mapping[str, str]


class Slot:
    """One of the slots for running steps, held while in the context; lent to others while the step only waits."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._held = False

    async def __aenter__(self) -> Slot:
        await self._slots.acquire()
        self._held = True
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._held:
            self._slots.release()

    @contextlib.asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """Others may have it meanwhile. After an error it is not taken back: who ends needs none."""
        self._held = False
        self._slots.release()
        yield
        await self.__aenter__()


@dataclass(frozen=True)
class Work:
    """A step that is to be run: its task and component, its executor, and what goes in."""

    task: Mapping[str, Any]
    found: Mapping[str, Any]
    executor: Mapping[str, Any]
    inputs: Values
    exiting: bool


@dataclass
class Attempts:
    """Those of one run. Once stopped, nothing more is started; exit tasks go on until stopped for good."""

    records: Records
    means: Means
    cancelled: bool = False
    killed: bool = False
    _running: dict[asyncio.Task[Values], tuple[Worker | None, bool]] = field(default_factory=dict)
    _stopping: set[asyncio.Task[None]] = field(default_factory=set)
    _cancelling: asyncio.Event = field(default_factory=asyncio.Event)
    _killing: asyncio.Event = field(default_factory=asyncio.Event)
    _told: bool = False

    def stop(self) -> None:
        """End what runs; called again, exit tasks, too."""
        self.killed = self.cancelled
        self.cancelled = True
        self._cancelling.set()
        if self.killed:
            self._killing.set()
        for attempt, (worker, exiting) in list(self._running.items()):
            if not self.stopped(exiting):
                continue
            if worker is None:
                attempt.cancel()
                continue
            stopping = asyncio.create_task(_stop(worker))
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)

    def stopped(self, exiting: bool) -> bool:
        """Whether nothing of that kind may be started any more."""
        return self.killed or (self.cancelled and not exiting)

    async def run(self, record: Task, work: Work) -> Values | None:
        """The outputs, or None where the run was cancelled meanwhile. Raises the last attempt's TaskFailed."""
        policy = work.task.get("retryPolicy", {})
        allowed = int(policy.get("maxRetryCount", 0))
        for retry in range(allowed + 1):
            async with Slot(self.means.slots) as slot:
                if self.stopped(work.exiting):
                    break
                record = self.records.save(dataclasses.replace(record, attempt=record.attempt + 1), "RUNNING")
                try:
                    outputs = await self._supervised(record, work, slot)
                except TaskFailed as error:
                    if self.stopped(work.exiting):
                        break
                    if retry == allowed:
                        raise
                    pause = backoff_s(policy, retry)
                    told = f"attempt {record.attempt} failed: {error.message}; trying again in {pause:g} s"
                    self._note(record, told)
                else:
                    self.records.save(dataclasses.replace(record, outputs=outputs.as_dict()), "SUCCEEDED")
                    return outputs
            await self._pause(pause, work.exiting)
        self.records.save(record, "CANCELED")
        return None

    async def _pause(self, seconds: float, exiting: bool) -> None:
        """Wait, but no longer than until the run is stopped."""
        stopped = self._killing if exiting else self._cancelling
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for loses a cancellation that comes with the end (Python 3.11)
                await stopped.wait()

    async def _supervised(self, record: Task, work: Work, slot: Slot) -> Values:
        """One attempt, in a task of its own so that it can be ended in whatever it is at."""
        limit = platform.time_limit_s(self.records.run.platform_spec, work.found.get("executorLabel", ""))
        attempt = asyncio.create_task(self._attempt(record, work, slot))
        self._running[attempt] = (None, work.exiting)
        try:
            done, _ = await asyncio.wait([attempt], timeout=limit)
            if not done:
                await _abandon(attempt)
                raise TaskFailed(f"ran for longer than its {limit:g} s (activeDeadlineSeconds)")
            if attempt.cancelled():
                raise TaskFailed("terminated")
            return attempt.result()
        except asyncio.CancelledError:
            await _abandon(attempt)
            raise
        except (OSError, RuntimeError) as error:
            raise TaskFailed(f"the step could not be run: {type(error).__name__}: {error}") from error
        finally:
            self._running.pop(attempt, None)

    async def _attempt(self, record: Task, work: Work, slot: Slot) -> Values:
        folder = self.records.task_folder(record)
        for leftover in _LEFTOVERS:
            _remove(folder / leftover)
        facts = self.records.facts(record)
        place = f"{facts.pipeline_root}/{facts.pipeline_name}/{facts.run_id}/{record.name}/{uuid.uuid4()}"
        planned = values.planned_outputs(work.found, place)

        async def download(uri: str, target: Path) -> None:
            self._note(record, f"fetching {uri}")
            before = step.oom_kills()
            worker = await step.begin_download(self.means.parents.light, uri, target, folder)
            await self._until_end(worker, folder, before, work.exiting)

        inputs = await fetch.localised(work.inputs, self.means.fetched, download)
        if facts.workspace in str(inputs.parameters):
            Path(facts.workspace).mkdir(parents=True, exist_ok=True)
        entered = values.executor_input(work.found, inputs, planned, folder)
        container = fill_surroundings(work.executor["container"], inputs, facts)
        self._tell_once(record)
        if lightweight.is_lightweight(container, record.name):
            light = lightweight.read(container, record.name)
            if light.packages and not self.means.environments.ready(light):
                async with slot.lent():
                    await self.means.environments.make(light, folder / "log")
            await self._in_worker(record, light, entered, folder, work.exiting)
        else:
            await self._in_container(record, container, entered, inputs.defaulted, planned)
        for name, written in values.custom_paths(folder).items():
            if name in planned:
                await asyncio.to_thread(_copy, Path(written), Path(planned[name][0]["uri"]))
        return values.read_outputs(work.found, planned, folder)

    async def _in_worker(
        self, record: Task, light: lightweight.Lightweight, entered: Mapping[str, Any], folder: Path, exiting: bool
    ) -> None:
        if light.accelerators and not os.path.exists("/dev/nvidiactl"):
            told = f"asks for {light.accelerators} accelerator(s); there is none here, it runs on the CPU"
            self._note(record, told)
        if light.extras is None:
            told = f"image {light.image!r} is unknown here: the step may import all that is installed"
            self._note(record, told)
        env = {**self._env(record), **dict(light.env)}
        async with contextlib.AsyncExitStack() as stack:
            if light.packages:
                environments = self.means.environments
                parent = await stack.enter_async_context(environments.parent(light, folder / "log"))
                extras = packages.allowed(
                    light, environments.folder / packages.key_of(light.packages, light.pip_options)
                )
            else:
                parent, extras = self.means.parents.of(light), light.extras
            before = step.oom_kills()
            worker = await step.begin(parent, light, extras, entered, folder, env)
            await self._until_end(worker, folder, before, exiting)

    async def _until_end(self, worker: Worker, folder: Path, before: int, exiting: bool) -> None:
        attempt = asyncio.current_task()
        assert attempt is not None
        self._running[attempt] = (worker, exiting)
        try:
            if self.stopped(exiting):
                worker.kill(signal.SIGKILL)
            await step.end(worker, folder, before)
        except asyncio.CancelledError:
            worker.kill(signal.SIGKILL)
            raise
        finally:
            self._running[attempt] = (None, exiting)

    async def _in_container(
        self,
        record: Task,
        container: Mapping[str, Any],
        entered: Mapping[str, Any],
        defaulted: frozenset[str],
        planned: Mapping[str, Any],
    ) -> None:
        folder, facts = self.records.task_folder(record), self.records.facts(record)
        (folder / "parameters").mkdir(exist_ok=True)
        places = [Path(listed[0]["uri"]).parent for listed in planned.values()]
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
        env = {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
        artifacts = {name: listed["artifacts"] for name, listed in entered["inputs"]["artifacts"].items()}
        shared = [path for path in (Path(facts.workspace), Path(self.means.env["KUBECONFIG"])) if path.exists()]
        order = containers.Order(
            name=f"kanary-{record.task_id}",
            image=container["image"],
            command=words(container.get("command", []), entered, defaulted, facts),
            args=words(container.get("args", []), entered, defaulted, facts),
            env={**self._env(record), **env},
            mounts=containers.mounts([folder, *places, *shared], artifacts),
            log=folder / "log",
        )
        await containers.run(order)

    def _env(self, record: Task) -> dict[str, str]:
        run_id = self.records.run.run_id
        own = {"KFP_RUN_ID": run_id, "KFP_POD_NAME": record.pod_name, "KFP_TASK_NAME": record.name}
        return {**own, **self.means.env}

    def _tell_once(self, record: Task) -> None:
        """In the log of the run's first step: what the platform was asked for in vain."""
        if self._told:
            return
        self._told = True
        if told := platform.without_meaning(self.records.run.spec, self.records.run.platform_spec):
            self._note(record, told)

    def _note(self, record: Task, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk costs lines of the log, not the step
            self.records.note(record, text)


def fill_surroundings(container: Mapping[str, Any], inputs: Values, facts: RunFacts) -> dict[str, Any]:
    """A container spec with the placeholders of its image and its environment filled in."""
    env = [
        {**entry, "value": fill(entry.get("value", ""), inputs.parameters, facts)} for entry in container.get("env", [])
    ]
    return {**container, "image": fill(container.get("image", ""), inputs.parameters, facts), "env": env}


def backoff_s(policy: Mapping[str, Any], retry: int) -> float:
    """Seconds before the next attempt: backoffDuration * backoffFactor ** retry, at most backoffMaxDuration."""
    first = float(str(policy.get("backoffDuration", "0s")).rstrip("s") or 0)
    most = float(str(policy.get("backoffMaxDuration", "3600s")).rstrip("s") or 3600)
    return min(first * float(policy.get("backoffFactor") or 2.0) ** retry, most)


async def _abandon(attempt: asyncio.Task[Values]) -> None:
    """Cancel an attempt and wait until it has let go of what it holds."""
    attempt.cancel()
    await asyncio.wait([attempt])
    if not attempt.cancelled():
        attempt.exception()  # taken note of: it ended by itself at the same moment


async def _stop(worker: Worker) -> None:
    """Ask a worker to end; make it where it does not within a few seconds."""
    worker.kill(signal.SIGTERM)
    try:
        async with asyncio.timeout(_KILL_AFTER_S):
            await worker.wait()
    except TimeoutError:
        worker.kill(signal.SIGKILL)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.exists():
        shutil.copy2(source, target)
    else:
        raise TaskFailed(f"the step names {source} as the place of an output, and there is nothing")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
