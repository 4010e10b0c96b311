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
from sandbox.modelserver import spec as states
from sandbox.modelserver.command import Command, command, gateway
from sandbox.modelserver.process import Process
from sandbox.modelserver.spec import Failure, Spec, Status
from sandbox.modelserver.watch import watch

# Command, spec, working folder, log: the process, and whether it was forked.
Start = Callable[[Command, Spec, Path, Path], Awaitable[tuple[Process, bool]]]

_UNKNOWN = 137  # what a kubelet tells of a container whose end it has not seen
_UNKNOWN_TEXT = "how it ended is not known: its host was restarted while it ran\n"
# Seconds before the n-th start in a row that did not last: the first comes at once, as in Kubernetes.
_BACK_OFF_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
# A server that lived so long starts the row anew.
_LASTED_S = 10.0
_TAIL_LINES, _TAIL_BYTES = 80, 2048

_logger = logging.getLogger(__name__)


class Server:
    """One server. `status` is what is known of it now; `changed` is called whenever that is something else.

    `left` is its process as an earlier host left it, and `status` then what that host knew.
    """

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
        left: Process | None = None,
    ) -> None:
        self.spec = spec
        self._home = home
        self.log = home / "logs" / "servers" / f"{spec.slug}.log"
        self.work = home / "modelserver" / "work" / spec.slug
        fresh = Status(spec.id, spec.owner, states.STOPPED, log=str(self.log))
        self.status = replace(status or fresh, log=str(self.log))
        self._adopted = left is not None
        self._start_process = start
        self._fetch = fetch
        self._free_port = free_port
        self._changed = changed
        self._running: asyncio.Task[None] | None = None
        self._starting: asyncio.Future[tuple[Process, bool]] | None = None
        self._process = left

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
            with contextlib.suppress(OSError, RuntimeError, ValueError):
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
        adopted, self._adopted = self._adopted, False
        if adopted and self._process is not None:
            return await self._until_ended(self._process, 0)
        try:
            model = await self._model()
        except SandboxError as error:
            return Failure(1, str(error), loading=True)
        self.work.mkdir(parents=True, exist_ok=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        port = self._free_port(self.status.port)
        metrics_port = self._metrics_port(port)
        what = command(self.spec, port, model, metrics_port, gateway(self._home))
        offset = self.log.stat().st_size if self.log.exists() else 0
        logtimes.begin(self.log)
        self._tell(state=states.STARTING, port=port, metrics_port=metrics_port, started=time.time(), pid=0)
        # Shielded: a process that comes up while this is cancelled must still be found, to be ended.
        self._starting = asyncio.ensure_future(self._start_process(what, self.spec, self.work, self.log))
        try:
            process, warm = await asyncio.shield(self._starting)
        except (OSError, ValueError) as error:  # ValueError: a word or a name that no process can be given
            self._starting = None
            return Failure(127, f"cannot start {what.argv[0]}: {error}")
        self._starting, self._process = None, process
        self._tell(pid=process.pid, warm=warm)
        return await self._until_ended(process, offset)

    async def _until_ended(self, process: Process, offset: int) -> Failure:
        """Probe the process until it has ended, by itself or because it must; the failure that it ended with."""
        ended = asyncio.create_task(process.wait())
        try:
            cause = await watch(self.spec, self.status, ended, lambda **told: self._tell(**told))
            if cause:
                await self._end(process, ended)
            code = await ended
        finally:
            ended.cancel()
        self._process = None
        unknown = _UNKNOWN_TEXT if code is None else ""
        return Failure(_UNKNOWN if code is None else code, cause or unknown + self._tail(offset))

    async def _end(self, process: Process, ended: asyncio.Task[int | None]) -> None:
        """SIGTERM, and SIGKILL where it has not ended in its time of grace."""
        self._tell(state=states.STOPPING, ready=False)
        process.signal(signal.SIGTERM)
        if not (await asyncio.wait([ended], timeout=self.spec.grace_s))[0]:
            process.signal(signal.SIGKILL)

    def _metrics_port(self, port: int) -> int:
        """A port for the server's numbers, where they are not on `port`."""
        found = self._free_port(self.status.metrics_port) if self.spec.metrics_port else 0
        while found == port:
            found = self._free_port(0)
        return found

    async def _model(self) -> Path | None:
        if not self.spec.storage_uri:
            return None
        if self.status.model and Path(self.status.model).is_dir():
            return Path(self.status.model)
        self._tell(state=states.INITIALIZING)
        model = await self._fetch(self.spec.storage_uri)
        self._tell(model=str(model))
        return model

    def _tail(self, offset: int) -> str:
        """The end of what this life wrote, as much as Kubernetes keeps for a termination message."""
        if not self.log.exists():
            return ""
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
