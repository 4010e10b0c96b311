"""One operating-system process of a model server, forked or started cold."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from sandbox import processes
from sandbox.forkserver import ForkServer, Job, Worker
from sandbox.modelserver.command import Command

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Process(Protocol):
    """A process that runs or has run; it leads a group of its own."""

    pid: int

    async def wait(self) -> int | None:
        """Its exit status as a container runtime gives it, 128 + n for signal n; None where nobody can tell."""
        ...

    def signal(self, sig: signal.Signals) -> None:
        """Signal it and all it started."""
        ...


class Lasting:
    """A process that may outlive this one, or has outlived the one that started it: known by pid and start time.

    How it ended is asked of its fork server's `worker`, where it has one that still lives.
    """

    def __init__(self, process: processes.Process, worker: Callable[[], Awaitable[Worker | None]]) -> None:
        self._process = process
        self._worker = worker
        self.pid = process.pid

    async def wait(self) -> int | None:
        """Exit status; None where its fork server was lost before it, and for one that an earlier host spawned."""
        worker = await self._worker()
        if worker is not None and (code := (await worker.wait()).code) is not None:
            return _container_code(code)
        await gone(self._process)
        kill_group(self.pid, signal.SIGKILL)  # what it leaves keeps the group's number from being another's
        return None

    def signal(self, sig: signal.Signals) -> None:
        """Signal it and all it started."""
        processes.send_group(self._process, sig)


class Spawned:
    """A process of its own, in a session of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def wait(self) -> int | None:
        """Exit status."""
        code = await self._process.wait()
        kill_group(self.pid, signal.SIGKILL)
        return _container_code(code)

    def signal(self, sig: signal.Signals) -> None:
        """Signal it and all it started."""
        if self._process.returncode is None:
            kill_group(self.pid, sig)


async def fork(server: ForkServer, command: Command, cwd: Path, log: Path) -> Process:
    """Fork `command` (which has a module) from `server`."""
    argv = command.module_argv
    worker = await server.run(Job(command.module, argv, cwd=cwd, log=log, env=command.env))
    found = processes.process_of(worker.pid) or processes.Process(worker.pid, 0, "")  # it has ended already

    async def known() -> Worker:
        return worker

    return Lasting(found, known)


def adopt(process: processes.Process, bring_up: Callable[[], Awaitable[ForkServer]] | None) -> Process:
    """A process that an earlier host started: forked from what `bring_up` takes over, or spawned."""

    async def found() -> Worker | None:
        if bring_up is None:
            return None
        try:
            return (await bring_up()).found.get(process.pid)
        except (OSError, RuntimeError):  # without its fork server only the status is lost
            return None

    return Lasting(process, found)


async def gone(process: processes.Process) -> None:
    """Wait for the end of a process, of all its threads, that need not be a child of ours."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    over, loop = asyncio.Event(), asyncio.get_running_loop()
    try:
        if processes.is_same(process):
            loop.add_reader(descriptor, over.set)
            await over.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def spawn(command: Command, cwd: Path, log: Path, env: Mapping[str, str]) -> Process:
    """Start `command` cold. Raises OSError where there is no such program."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env={**os.environ, **env, **command.env},
            start_new_session=True,
        )
    return Spawned(process)


def memory(pid: int) -> tuple[int, int]:
    """Resident bytes of a process, and those of them that it shares with no other; zeros where there is none."""
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * _PAGE
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except (OSError, IndexError):
        return 0, 0
    private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
    return resident, private * 1024


def _container_code(code: int) -> int:
    return code if code >= 0 else 128 - code


def kill_group(pid: int, sig: signal.Signals) -> None:
    """Signal a process that leads a group, and the group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, sig)
