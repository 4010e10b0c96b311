"""One operating-system process of a model server, forked or started cold."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from sandbox.forkserver import ForkServer, Job, Worker
from sandbox.modelserver.command import Command

_LOST = 128 + signal.SIGKILL
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Process(Protocol):
    """A process that runs or has run."""

    pid: int

    async def wait(self) -> int:
        """Its exit status as a container runtime gives it: 128 + n for signal n."""
        ...

    def signal(self, sig: signal.Signals) -> None:
        """Signal it and all it started."""
        ...


class Forked:
    """A worker of a fork server. It dies with its zygote."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.pid = worker.pid

    async def wait(self) -> int:
        """Exit status, 137 where the zygote was lost."""
        code = (await self._worker.wait()).code
        return _LOST if code is None else _container_code(code)

    def signal(self, sig: signal.Signals) -> None:
        """Signal it and all it started."""
        self._worker.kill(sig)


class Spawned:
    """A process of its own, in a session of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def wait(self) -> int:
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
    return Forked(await server.run(Job(command.module, argv, cwd=cwd, log=log, env=command.env)))


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
