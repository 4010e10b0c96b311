"""Asks a `sandbox.zygote` for workers and tells how each one ended. Runs inside an asyncio process.

One ForkServer holds one zygote with one set of preloaded modules; when the zygote dies, its workers count as lost
and the next request starts a new one. With an address it is a lasting one: zygote and workers outlive this process,
and the ForkServer of the next one that has the same address takes them over.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox import processes, unixsocket

WARM = "KANARY_WARM"


def ahead() -> bool:
    """Whether parents are to be started before anybody needs them: yes, unless KANARY_WARM is 0."""
    return os.environ.get(WARM, "") != "0"


_STOP_S = 5.0


@dataclass(frozen=True)
class Job:
    """What a worker is to do: `call` is "module:function" (or "module", run as by `python -m`), with `argv` in `cwd`.

    Its output goes to `log`.

    `extras` names the extras of ours that the step's image holds (see `sandbox.importguard`); None leaves imports free.
    `report` is where the worker leaves the reason of a failure, in one text.
    """

    call: str
    argv: Sequence[str]
    cwd: Path
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    extras: tuple[str, ...] | None = None
    image: str = ""
    report: Path | None = None


@dataclass(frozen=True)
class Exit:
    """How a worker ended: `code` is its exit status, negative for a signal, None where the zygote was lost."""

    code: int | None
    max_rss_kib: int = 0
    cpu_s: float = 0.0

    def reason(self) -> str:
        """The ending in words a person understands; empty for success."""
        if self.code is None:
            return "the sandbox's worker process was lost"
        if self.code == 0:
            return ""
        if self.code < 0:
            name = signal.Signals(-self.code).name if -self.code in signal.Signals.__members__.values() else ""
            cause = " (often the kernel's answer to a lack of memory)" if -self.code == signal.SIGKILL else ""
            return f"killed by signal {-self.code} {name}{cause}".strip()
        return f"exit status {self.code}"


@dataclass
class _Pending:
    started: asyncio.Future[int]
    ended: asyncio.Future[Exit]


class Worker:
    """One running worker."""

    def __init__(self, server: ForkServer, request_id: str, pid: int, ended: asyncio.Future[Exit]) -> None:
        self.pid = pid
        self._server = server
        self._id = request_id
        self._ended = ended

    async def wait(self) -> Exit:
        """How it ended; may be awaited more than once."""
        return await asyncio.shield(self._ended)

    def kill(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """Signal the worker and everything it started; nothing happens where it has ended."""
        self._server._kill(self._id, sig)


class ForkServer:
    """Starts a zygote on first use and forks workers from it.

    With an `address`, the path of a unix socket, it takes over the zygote that listens there, if there is one; `found`
    are the workers that came with it, by pid, those included that ended while nobody listened. `python` is the
    interpreter, where it is not this process's own. Up to `spares` workers are forked ahead, once one was asked for;
    each has called `rehearsal` ("module:function").
    """

    def __init__(
        self,
        preload: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        address: Path | None = None,
        python: Path | None = None,
        spares: int = 0,
        rehearsal: str = "",
    ) -> None:
        self.preload = tuple(preload)
        self.log = log
        self.env = dict(env or {})
        self.pid: int | None = None
        self.found: dict[int, Worker] = {}
        self._address = address
        self._python = python or Path(sys.executable)
        self._ahead = ("--spares", str(spares), "--rehearsal", rehearsal)
        self._prefix = uuid.uuid4().hex[:8]  # ids are told from those that an earlier process gave
        self._ids = itertools.count(1)
        self._pending: dict[str, _Pending] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._starting = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._opening: asyncio.StreamWriter | None = None

    async def start(self) -> None:
        """Start the zygote, or take over the one that is there, and wait until it has imported everything."""
        async with self._starting:
            if self._writer is not None and not self._writer.is_closing():
                return
            self.log.parent.mkdir(parents=True, exist_ok=True)
            connection = await self._pair() if self._address is None else await self._reach(self._address)
            reader, writer = await asyncio.open_unix_connection(sock=connection, limit=1 << 20)
            self._opening, hello = writer, b""
            try:
                hello = await reader.readline()
            except ConnectionError:
                pass
            finally:
                self._opening = None
                if not hello:
                    writer.close()
            if not hello:
                raise RuntimeError(f"the worker parent did not start; see {self.log}")
            told = json.loads(hello)
            self.pid = told["pid"]
            self._writer = writer
            self._take_over(told["workers"])
            self._reading = asyncio.create_task(self._read(reader, writer))

    async def _pair(self) -> socket.socket:
        """Start a zygote that ends with us."""
        ours, theirs = socket.socketpair()
        with theirs:
            await self._execute("--socket-fd", theirs)
        return ours

    async def _reach(self, path: Path) -> socket.socket:
        """Connect to the zygote that listens at `path`; where none does, start one there."""
        with unixsocket.address(path) as address:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(address)
            except (FileNotFoundError, ConnectionRefusedError):
                path.unlink(missing_ok=True)
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(address)
                    path.chmod(0o600)
                    listener.listen()
                    await self._execute("--listen-fd", listener)
                connection.connect(address)
        return connection

    async def _execute(self, option: str, theirs: socket.socket) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(str(self._python), "-P", "-m", "sandbox.zygote"),
                *(option, str(theirs.fileno()), "--preload", ",".join(self.preload), *self._ahead),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **self.env},
                start_new_session=True,
            )

    def _take_over(self, workers: Sequence[Mapping[str, Any]]) -> None:
        """Workers that an earlier process asked for are ours now."""
        loop = asyncio.get_running_loop()
        self.found = {}
        for told in workers:
            pending = _Pending(loop.create_future(), loop.create_future())
            pending.started.set_result(told["pid"])
            self._pending[told["id"]] = pending
            self.found[told["pid"]] = Worker(self, told["id"], told["pid"], pending.ended)

    async def run(self, job: Job) -> Worker:
        """Fork a worker for `job`; returns once it runs."""
        for attempt in (1, 2):
            await self.start()
            loop = asyncio.get_running_loop()
            request_id = f"{self._prefix}-{next(self._ids)}"
            pending = _Pending(loop.create_future(), loop.create_future())
            self._pending[request_id] = pending
            self._send({"op": "run", "id": request_id, **_as_request(job)})
            try:
                pid = await pending.started
            except asyncio.CancelledError:  # it may run already, and nobody else will know of it
                self._kill(request_id, signal.SIGKILL)
                raise
            except ConnectionError:
                if attempt == 2:
                    raise
                continue
            return Worker(self, request_id, pid, pending.ended)
        raise AssertionError("unreachable")

    async def stop(self) -> None:
        """End the zygote and every worker it has."""
        if self._opening is not None:  # still importing: it hears of it when it is done, if it is not ours to kill
            self._opening.write(b'{"op": "stop"}\n')
            self._opening.close()
        if self._writer is None and self._process is not None and self._process.returncode is None:
            self._process.kill()
        taken_over = self.pid if self._process is None and self._writer is not None else None
        zygote = processes.process_of(taken_over) if taken_over else None
        self._send({"op": "stop"})
        if self._reading is not None and not await _within(self._reading, _STOP_S) and self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            await self._reading
        if self._process is not None:
            await self._process.wait()
        if zygote is not None:  # one that was taken over closes its connection a moment before it ends
            await asyncio.to_thread(processes.wait_gone, [zygote], _STOP_S)
        if self._address is not None:
            self._address.unlink(missing_ok=True)

    def _kill(self, request_id: str, sig: signal.Signals) -> None:
        self._send({"op": "kill", "id": request_id, "signal": int(sig)})

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand out the zygote's news until it is gone, then tell every waiter so."""
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                message = json.loads(line)
                pending = self._pending[message["id"]]
                if "exit" not in message:
                    if not pending.started.done():
                        pending.started.set_result(message["pid"])
                else:
                    del self._pending[message["id"]]
                    ended = Exit(message["exit"], message["max_rss_kib"], message["cpu_s"])
                    if not pending.ended.done():
                        pending.ended.set_result(ended)
        writer.close()
        self._writer = None
        lost, self._pending = self._pending, {}
        for pending in lost.values():
            if not pending.started.done():
                pending.started.set_exception(ConnectionError("the worker parent died"))
            elif not pending.ended.done():
                pending.ended.set_result(Exit(None))
        if self._process is not None:
            await self._process.wait()


async def _within(task: asyncio.Task[None], seconds: float) -> bool:
    """Whether the task is done by then; it goes on otherwise."""
    return bool((await asyncio.wait([task], timeout=seconds))[0])


def _as_request(job: Job) -> dict[str, Any]:
    return {
        "call": job.call,
        "argv": list(job.argv),
        "cwd": str(job.cwd),
        "log": str(job.log),
        "env": dict(job.env),
        "extras": None if job.extras is None else list(job.extras),
        "image": job.image,
        "report": None if job.report is None else str(job.report),
    }
