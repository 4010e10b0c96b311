"""Writes what a hub finds out into a recording, as it finds it out. Asks servers for what the monitor asks them for.

Changes nothing, shows nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any

from kanary import kfp_pods
from kanary import recording_items as items
from kanary import recording_secrets as secrets
from kanary.errors import InputError, KanaryError
from kanary.kfp_types import Run, TaskDetail
from kanary.recording import Full, Writer
from kanary.recording_items import Part
from kanary.snapshot_drift import AUTOMATIC, Drift, Finding
from kanary.snapshot_hub import ALERTS, DRIFT, EVENTS, METRICS, RIGHTS, RUNS, SERVICES, Hub

PLACE, BINS, PODS, LOGS = "place", "bins", "pods", "logs"
_SYNC = 1.0  # seconds that a kill may cost
_AGAIN = 5.0  # seconds between two looks at what opened screens show
_COLUMNS = 12  # of a model, the worst, whose distributions are kept
_RUNS, _SERVICES = 20, 40  # whose logs are kept
_LOG = 64 << 10  # characters of a log, its end
_WAIT = 3.0  # seconds that a log is read for at a time

log = logging.getLogger("kanary.recorder")
_PARTS: Mapping[str, Callable[[Any], Iterator[Part]]] = {
    RUNS: items.parts_of_runs,
    METRICS: items.parts_of_metrics,
    DRIFT: items.parts_of_drift,
    EVENTS: items.parts_of_events,
    ALERTS: items.parts_of_alerts,
    RIGHTS: items.parts_of_rights,
}


class Recorder:
    """One recording of one hub. `logs`: of runs' tasks and of model servers, too. `stopped` is why it ended."""

    def __init__(self, hub: Hub, writer: Writer, *, logs: bool = False) -> None:
        self._hub, self._writer, self._logs = hub, writer, logs
        self._known: dict[str, dict[str, tuple[Any, Any]]] = {}  # by source and key: what it was made of, what it is
        self._told: dict[str, Mapping[str, Any]] = {}
        self._windows: dict[str, int] = {}  # by model: the window whose distributions are known
        self._ended: set[str] = set()  # logs that will not grow any more
        self._over = asyncio.Event()
        self.stopped: KanaryError | None = None
        self.failed = False  # it ended because the file could not be written
        hub.on_change = self._changed

    async def run(self, seconds: float | None, tell: Callable[[], None]) -> None:
        """Records until it is cancelled, for so many seconds, or until it is full; calls `tell` about each second."""
        self._hub.look_at_drift(AUTOMATIC)
        ends = None if seconds is None else time.monotonic() + seconds
        working = [asyncio.create_task(self._hub.run()), asyncio.create_task(self._look_closer())]
        try:
            while not self._over.is_set() and (ends is None or time.monotonic() < ends):
                pause = _SYNC if ends is None else max(0.0, min(_SYNC, ends - time.monotonic()))
                done, _ = await asyncio.wait(
                    (*working, waiting := asyncio.ensure_future(self._over.wait())),
                    timeout=pause,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                waiting.cancel()
                for task in done.intersection(working):
                    task.result()
                self._where()
                self._guarded(self._writer.sync)
                tell()
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    # ---- what changes

    def _changed(self, name: str) -> None:
        snapshot = self._hub.snapshot(name)
        told = items.told(snapshot, time.time() - self._hub.seconds())
        if name == SERVICES:
            hub = self._hub
            beside = (hub.config_maps.value or {}, hub.routes.value or {}, hub.pods.value or {})
            documents = hub.documents.value
            parts = items.parts_of_cluster(documents, *beside) if documents is not None else None
        else:
            parts = _PARTS[name](snapshot.value) if snapshot.value is not None else None
        self._write(name, parts, told)

    def _where(self) -> None:
        """Where this is, as far as is known by now."""
        hub = self._hub
        here: dict[str, Any] = {
            "entered": hub.entered,
            "server": hub.server,
            "namespace": hub.namespace,
            "context": hub.context,
        }
        here |= {"everywhere": hub.scope.everywhere}
        self._write(PLACE, iter([(items.META, here, secrets.clean)]))

    def _write(self, name: str, parts: Iterator[Part] | None, told: Mapping[str, Any] | None = None) -> None:
        """One line of what is new; None for the parts leaves them as they are."""
        line: dict[str, Any] = {"at": round(time.time(), 3), "source": name}
        if told is not None and told != self._told.get(name):
            self._told[name] = line["told"] = told
        if parts is not None:
            known = self._known.setdefault(name, {})
            line |= _differences(known, parts)
        if len(line) > 2:
            self._guarded(lambda: self._writer.write(line))

    def _put(self, name: str, key: str, value: Any) -> None:
        """One value of a source that has no snapshot."""
        known = self._known.setdefault(name, {})
        others = ((other, made, _as_it_is) for other, (made, _) in known.items() if other != key)
        self._write(name, iter([*others, (key, value, _as_it_is)]))

    def _guarded(self, write: Callable[[], None]) -> None:
        # It is called where the hub's own tasks would take an error for one of their servers'.
        if self._over.is_set():
            return
        try:
            write()
        except Full as error:
            self.stopped = error
            self._over.set()
        except OSError as error:
            self.stopped = InputError(f"{self._writer.path} cannot be written any more: {error.strerror}.")
            self.failed = True
            self._over.set()

    # ---- what opened screens show

    async def _look_closer(self) -> None:
        looks = [self._distributions, *([self._task_logs, self._server_logs] if self._logs else [])]
        while True:
            for look in looks:
                try:
                    await look()
                except KanaryError as error:
                    log.info("not recorded: %s", error.message)  # the source itself tells of its server
            await asyncio.sleep(_AGAIN)

    async def _distributions(self) -> None:
        drift: Drift = self._hub.drift.value or Drift()
        for key, model in drift.models.items():
            if self._windows.get(key) == model.windows:
                continue
            own = [finding for finding in drift.findings.values() if finding.model is model and finding.name]
            own.sort(key=lambda finding: -(finding.severity or 0.0))
            for finding in own[:_COLUMNS]:
                await self._distribution(finding)
            self._windows[key] = model.windows

    async def _distribution(self, finding: Finding) -> None:
        spread = await self._hub.details.spread(finding)
        if spread:
            rows = [[one.values, one.reference, one.current] for one in spread]
            self._put(BINS, finding.key, secrets.clean(rows))

    async def _task_logs(self) -> None:
        """Of the newest runs, those that failed first."""
        runs = list(self._hub.runs.value.by_id.values()) if self._hub.runs.value else []
        runs.sort(key=lambda run: (run.state == "FAILED", str(run.created_at)), reverse=True)
        for run in runs[:_RUNS]:
            for task in run.tasks:
                if task.pod_name and task.started_at:
                    opened = partial(self._hub.details.task_log, run.run_id, task, follow=False)
                    await self._task_log(f"task/{run.run_id}/{task.task_id}", task, opened)
            await self._unnamed_logs(run)

    async def _unnamed_logs(self, run: Run) -> None:
        """Of tasks whose pods the server does not name."""
        tasks = [task for task in run.tasks if kfp_pods.ran_unnamed(task, run.tasks)]
        if not tasks or (run.final and f"run/{run.run_id}" in self._ended):
            return
        pods = await self._hub.details.run_pods(run.run_id)
        self._put(PODS, f"run/{run.run_id}", [items.pod(pod) for pod in pods])
        for task in tasks:
            namespace, name = kfp_pods.pod_of(task, run.tasks, pods)
            if name:
                opened = partial(self._hub.details.pod_log, namespace, name, follow=False)
                await self._task_log(f"pod/{namespace}/{name}", task, opened)
        if run.final:
            self._ended.add(f"run/{run.run_id}")

    async def _task_log(self, key: str, task: TaskDetail, opened: Callable[[], Awaitable[AsyncIterator[str]]]) -> None:
        if key in self._ended:
            return
        text = await _end_of(opened())
        if task.final:
            self._ended.add(key)
        if text is not None:
            self._put(LOGS, key, text)

    async def _server_logs(self) -> None:
        services = self._hub.services.value or {}
        for key in list(services)[:_SERVICES]:
            found = [items.pod(pod) for pod in await self._hub.details.pods(key)]
            self._put(PODS, key, found)
            for pod in found:
                namespace, name = key.partition("/")[0], str(pod["metadata"].get("name"))
                text = await _end_of(self._hub.details.server_log(namespace, name, follow=False))
                if text is not None:
                    self._put(LOGS, f"server/{namespace}/{name}", text)


async def _end_of(opened: Awaitable[AsyncIterator[str]]) -> str | None:
    """The end of a log, without what looks like a secret; None where it cannot be read."""
    pieces: list[str] = []
    try:
        async with asyncio.timeout(_WAIT):
            async for piece in await opened:
                pieces.append(piece)
                while len(pieces) > 1 and sum(map(len, pieces)) - len(pieces[0]) > _LOG:
                    del pieces[0]
    except TimeoutError:
        pass  # what has come is worth having
    except KanaryError:
        return None
    return secrets.clean_text("".join(pieces)[-_LOG:])


def _differences(known: dict[str, tuple[Any, Any]], parts: Iterator[Part]) -> dict[str, Any]:
    """What has changed since `known`, which is then up to date."""
    changed: dict[str, Any] = {}
    tails: dict[str, Any] = {}
    there = set()
    for key, origin, make in parts:
        there.add(key)
        before = known.get(key)
        if before is not None and (before[0] is origin or before[0] == origin):
            known[key] = (origin, before[1])
            continue
        value = make(origin)
        known[key] = (origin, value)
        if before is not None and before[1] == value:
            continue
        grown = items.tail(before[1], value) if before is not None else None
        (changed if grown is None else tails)[key] = value if grown is None else grown
    gone = [key for key in known if key not in there]
    for key in gone:
        del known[key]
    found = {"set": changed, "tail": tails, "gone": gone}
    return {name: value for name, value in found.items() if value}


def _as_it_is(value: Any) -> Any:
    return value
