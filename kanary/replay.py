"""A recording as a hub: what the monitor saw then, at the moment that is looked at. Asks no server, changes nothing."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from kanary import recording_items as items
from kanary.config import Config
from kanary.errors import KanaryError
from kanary.kfp_types import Run, TaskDetail
from kanary.recorder import BINS, LOGS, PLACE, PODS
from kanary.recording import Recording, State
from kanary.snapshot import Snapshot, sleep
from kanary.snapshot_connections import Connections
from kanary.snapshot_drift import Bin, Finding
from kanary.snapshot_hub import ALERTS, DRIFT, EVENTS, METRICS, RIGHTS, RUNS, SERVICES, Hub, Scope

SPEEDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_SMOOTH = 0.25  # seconds between two looks at the clock, so that a fast replay does not draw more than it must
_DAMAGED = "The recording does not hold what it should here"
_MADE: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    RUNS: items.runs,
    METRICS: items.metrics,
    DRIFT: items.drift,
    EVENTS: items.events,
    ALERTS: items.alerts,
    RIGHTS: items.rights,
}
_SOURCES = (PLACE, RUNS, SERVICES, METRICS, DRIFT, EVENTS, ALERTS, RIGHTS)


class NoServers(Connections):
    """Whoever asks for a server is told that there is none."""

    async def kfp(self) -> NoReturn:
        raise _nowhere()

    async def kubernetes(self) -> NoReturn:
        raise _nowhere()

    async def prometheus(self) -> NoReturn:
        raise _nowhere()


class ReplayHub(Hub):
    """The snapshots as they were. `position` is the moment that is looked at, in seconds since the epoch."""

    recorded = True

    def __init__(
        self,
        recording: Recording,
        config: Config,
        *,
        paused: bool = False,
        speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(NoServers(config), Scope(interval=0.5))
        self.recording = recording
        self.paused, self.speed = paused, speed
        self._clock = clock
        self._from, self._since = recording.start, clock()  # where the clock was set, and when
        self._count = 0  # lines that are shown
        self._state: State = {}
        self._moved = asyncio.Event()
        self._details = RecordedDetails(self)

    # ---- what the monitor asks a hub

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.position, UTC)

    def seconds(self) -> float:
        return self.position

    @property
    def context(self) -> str:
        return self._place("context")

    @property
    def entered(self) -> str:
        return self._place("entered")

    @property
    def server(self) -> str:
        return self._place("server")

    @property
    def namespace(self) -> str:
        return self._place("namespace")

    @property
    def readonly(self) -> bool:
        return True

    def wake(self, *names: str) -> None:
        """There is nobody to ask."""

    def page_on(self) -> None:
        """What was not read then is not there."""

    def show_archived(self, archived: bool) -> None:
        """The runs are those that were read."""

    def look_at_drift(self, span: float) -> None:
        """The past is the one that was read."""
        self.drift_span = span

    async def run(self) -> None:
        """Plays until it is cancelled."""
        self._since = self._clock()
        self._show()
        while True:
            self._moved.clear()
            await sleep(self._moved, self._until_the_next())
            self._show()
            if self.position >= self.recording.end and not self.paused:
                self.pause()
                self.on_change(PLACE)

    # ---- moving about

    @property
    def position(self) -> float:
        gone = 0.0 if self.paused else (self._clock() - self._since) * self.speed
        return min(self.recording.end, self._from + gone)

    @property
    def at_end(self) -> bool:
        return self.position >= self.recording.end

    def pause(self) -> None:
        self._set(self.position, paused=True)

    def go_on(self) -> None:
        """Plays from here; from the start where this is the end."""
        self._set(self.recording.start if self.at_end else self.position, paused=False)

    def faster(self, by: int) -> None:
        """The next speed but so many; negative: slower."""
        here = self.position
        at = SPEEDS.index(self.speed) + by
        self.speed = SPEEDS[max(0, min(len(SPEEDS) - 1, at))]
        self._set(here, paused=self.paused)

    def step(self, by: int) -> None:
        """To the next moment at which something changed that can be seen, or the one before; it stays there."""
        matters = self.recording.matters
        at = bisect_left(matters, self.recording.count(self.position))  # the first that is not shown
        at += 0 if by > 0 else -2
        moment = self.recording.start if at < 0 else self.recording.end
        self._set(self.recording.times[matters[at]] if 0 <= at < len(matters) else moment, paused=True)

    def seek(self, moment: float) -> None:
        """To this moment, or to the end that is nearer; it goes on from there if it went."""
        self._set(max(self.recording.start, min(self.recording.end, moment)), paused=self.paused)

    def _set(self, moment: float, *, paused: bool) -> None:
        self.rewound += moment < self.position
        self._from, self._since, self.paused = moment, self._clock(), paused
        self._show()
        self._moved.set()

    def _until_the_next(self) -> float:
        """Seconds until something is to be shown."""
        if self.paused:
            return 3600.0
        times = self.recording.times
        ahead = times[self._count] if self._count < len(times) else self.recording.end
        return max(_SMOOTH, (ahead - self.position) / self.speed)

    def _show(self) -> None:
        """Makes the snapshots those of the moment that is looked at."""
        before, count = self._state, self.recording.count(self.position)
        if count == self._count:
            return
        if 0 < count - self._count <= 256:
            for index in range(self._count, count):
                self._state = self.recording.after(self._state, index)
        else:
            self._state = self.recording.state(count)
        self._count = count
        for name in _SOURCES:
            if self._state.get(name) is not before.get(name):
                self._make(name)
        for name in _SOURCES:
            if self._state.get(name) is not before.get(name):
                self.on_change(name)

    def _make(self, name: str) -> None:
        if name == PLACE:
            return
        stands, values = self._state.get(name, ({}, {}))
        known: Snapshot[Any] = self.snapshot(name)
        try:
            if name not in self._state or (not values and stands.get("error")):
                value = None
            elif name == SERVICES:
                value = items.services(values, known.value or {})
            else:
                value = _MADE[name](values)
            found = items.snapshot(value, stands)
        except (KanaryError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            said = error.message if isinstance(error, KanaryError) else repr(error)
            found = Snapshot(known.value, self.position, f"{_DAMAGED}: {said}", "What stands here is from before it.")
        setattr(self, name, found)

    def _place(self, name: str) -> str:
        here = self._state.get(PLACE, ({}, {}))[1].get(items.META)
        found = here.get(name) if isinstance(here, dict) else ""
        return found if isinstance(found, str) else ""

    def recorded_value(self, source: str, key: str) -> Any:
        """What was recorded of a source that has no snapshot; None where nothing was."""
        return self._state.get(source, ({}, {}))[1].get(key)


class RecordedDetails:
    """What opened screens ask for, from the recording."""

    def __init__(self, hub: ReplayHub) -> None:
        self._hub = hub

    async def run(self, run_id: str) -> Run:
        found: Run | None = self._hub.runs.value.by_id.get(run_id) if self._hub.runs.value else None
        if found is None:
            raise KanaryError("The recording does not tell of this run at this moment.")
        return found

    async def task_log(self, run_id: str, task: TaskDetail, *, follow: bool) -> AsyncIterator[str]:
        return self._log(f"task/{run_id}/{task.task_id}")

    async def run_pods(self, run_id: str) -> list[Mapping[str, Any]]:
        return [*self._pods(f"run/{run_id}")]

    async def pod_log(self, namespace: str, pod: str, *, follow: bool) -> AsyncIterator[str]:
        return self._log(f"pod/{namespace}/{pod}")

    async def pods(self, service: str) -> list[dict[str, Any]]:
        return self._pods(service)

    async def server_log(self, namespace: str, pod: str, *, follow: bool) -> AsyncIterator[str]:
        return self._log(f"server/{namespace}/{pod}")

    async def spread(self, finding: Finding) -> tuple[Bin, ...]:
        found = self._hub.recorded_value(BINS, finding.key)
        return items.bins(found) if isinstance(found, list) else ()

    def _pods(self, key: str) -> list[dict[str, Any]]:
        found = self._hub.recorded_value(PODS, key)
        if not isinstance(found, list):
            raise KanaryError("No logs are in this recording: `kanary record --logs` takes them.")
        return [pod for pod in found if isinstance(pod, dict)]

    def _log(self, key: str) -> AsyncIterator[str]:
        text = self._hub.recorded_value(LOGS, key)
        if not isinstance(text, str):
            raise KanaryError("This log is not in the recording: `kanary record --logs` takes the newest.")

        async def pieces() -> AsyncIterator[str]:
            yield text

        return pieces()


def _nowhere() -> KanaryError:
    return KanaryError("This is a recording: no server is asked.")
