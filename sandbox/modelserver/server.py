"""The life of one model server: fetch its model, start it, probe it, start it again when it ends, stop it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from sandbox import logtimes
from sandbox.errors import SandboxError
from sandbox.modelserver import probe
from sandbox.modelserver import spec as states
from sandbox.modelserver.command import Command, command, gateway
from sandbox.modelserver.process import Process
from sandbox.modelserver.spec import Failure, Spec, Status

# Command, spec, working folder, log: the process, and whether it was forked.
Start = Callable[[Command, Spec, Path, Path], Awaitable[tuple[Process, bool]]]

# Seconds before the n-th start in a row that did not last: the first comes at once, as in Kubernetes.
_BACK_OFF_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
# A server that lived so long starts the row anew.
_LASTED_S = 10.0
_PROBE_FIRST_S, _PROBE_LAST_S = 0.01, 0.05
_UNREADY_AFTER = 3
_TAIL_LINES, _TAIL_BYTES = 80, 2048
_ROTATE_BYTES = 10 * 1024 * 1024

_logger = logging.getLogger(__name__)


class Server:
    """One server. `status` is what is known of it now; `changed` is called whenever that is something else."""

    def __init__(
        self,
        spec: Spec,
        home: Path,
        *,
        start: Start,
        fetch: Callable[[str], Awaitable[Path]],
        free_port: Callable[[int], int],
        changed: Callable[[], None],
        status: Status | None = None,
    ) -> None:
        self.spec = spec
        self._home = home
        self.log = home / "logs" / "servers" / f"{spec.slug}.log"
        self.work = home / "modelserver" / "work" / spec.slug
        fresh = Status(spec.id, spec.owner, states.STOPPED, log=str(self.log))
        self.status = replace(fresh, port=status.port, model=status.model) if status else fresh
        self._start_process = start
        self._fetch = fetch
        self._free_port = free_port
        self._changed = changed
        self._running: asyncio.Task[None] | None = None
        self._starting: asyncio.Future[tuple[Process, bool]] | None = None
        self._process: Process | None = None

    def start(self) -> None:
        """Bring it up and keep it up, until it is stopped."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._keep_up(), name=f"server {self.spec.id}")

    async def stop(self, grace_s: float) -> None:
        """End it: SIGTERM, and SIGKILL where it has not ended `grace_s` seconds later."""
        running, self._running = self._running, None
        if running is None:
            return
        self._tell(state=states.STOPPING, ready=False)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        process = await self._started()
        if process is not None:
            process.signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), grace_s)
            except TimeoutError:
                process.signal(signal.SIGKILL)
                await process.wait()
        self._tell(state=states.STOPPED, ready=False, pid=0, failure=None, restarts=0)

    async def _started(self) -> Process | None:
        """The process that runs, or that a start under way brings up."""
        starting, self._starting = self._starting, None
        if starting is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._process, _ = await starting
        process, self._process = self._process, None
        return process

    async def _keep_up(self) -> None:
        short_lived = 0
        while True:
            began = time.monotonic()
            try:
                failure = await self._live()
            except Exception as error:  # the outermost loop of this server
                _logger.exception("server %s", self.spec.id)
                failure = Failure(1, f"{type(error).__name__}: {error}")
            short_lived = 0 if time.monotonic() - began > _LASTED_S else short_lived + 1
            pause = _BACK_OFF_S[min(max(short_lived - 1, 0), len(_BACK_OFF_S) - 1)]
            _logger.warning("%s ended with %d; started again in %.1f s", self.spec.id, failure.exit_code, pause)
            restarts = self.status.restarts + 1
            self._tell(state=states.BACKING_OFF, ready=False, pid=0, failure=failure, restarts=restarts)
            await asyncio.sleep(pause)

    async def _live(self) -> Failure:
        """One life, from the model to the end of the process; the failure that it ended with."""
        try:
            model = await self._model()
        except SandboxError as error:
            return Failure(1, str(error), loading=True)
        self._prepare_folders()
        port = self._free_port(self.status.port)
        what = command(self.spec, port, model, gateway(self._home))
        offset = self.log.stat().st_size if self.log.exists() else 0
        logtimes.begin(self.log)
        self._tell(state=states.STARTING, port=port, started=time.time(), pid=0)
        # Shielded: a process that comes up while this is cancelled must still be found, to be ended.
        self._starting = asyncio.ensure_future(self._start_process(what, self.spec, self.work, self.log))
        try:
            process, warm = await asyncio.shield(self._starting)
        except OSError as error:
            self._starting = None
            return Failure(127, f"cannot start {what.argv[0]}: {error}")
        self._starting, self._process = None, process
        self._tell(pid=process.pid, warm=warm)
        ended = asyncio.create_task(process.wait())
        try:
            late = await self._watch(port, ended)
            if late:
                process.signal(signal.SIGKILL)
            code = await ended
        finally:
            ended.cancel()
        self._process = None
        return Failure(code, late or self._tail(offset))

    async def _model(self) -> Path | None:
        if not self.spec.storage_uri:
            return None
        if self.status.model and Path(self.status.model).is_dir():
            return Path(self.status.model)
        self._tell(state=states.INITIALIZING)
        model = await self._fetch(self.spec.storage_uri)
        self._tell(model=str(model))
        return model

    async def _watch(self, port: int, ended: asyncio.Task[int]) -> str:
        """Probe until the process has ended; why it must end, where it was never ready in time."""
        deadline = time.monotonic() + self.spec.start_deadline_s
        pause = _PROBE_FIRST_S
        while not ended.done() and not await probe.is_ready(port, self.spec.port, self.spec.probe):
            if time.monotonic() > deadline:
                return f"was not ready within {self.spec.start_deadline_s:g} s"
            await asyncio.wait([ended], timeout=pause)
            pause = min(pause * 1.5, _PROBE_LAST_S)
        missed = 0
        while not ended.done():
            if not missed:
                self._tell(state=states.READY, ready=True)
            elif missed == _UNREADY_AFTER:
                self._tell(state=states.STARTING, ready=False)
            await asyncio.wait([ended], timeout=probe.period(self.spec.probe))
            answers = ended.done() or await probe.is_ready(port, self.spec.port, self.spec.probe)
            missed = 0 if answers else missed + 1
        return ""

    def _prepare_folders(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _ROTATE_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))

    def _tail(self, offset: int) -> str:
        """The end of what this life wrote, as much as Kubernetes keeps for a termination message."""
        with self.log.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(offset, size - _TAIL_BYTES) if size >= offset else max(0, size - _TAIL_BYTES))
            text = log.read().decode("utf-8", errors="replace")
        return "".join(text.splitlines(keepends=True)[-_TAIL_LINES:])

    def _tell(self, **changes: object) -> None:
        told = replace(self.status, **changes)  # type: ignore[arg-type]
        if told != self.status:
            self.status = told
            self._changed()
