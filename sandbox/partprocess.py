"""One running part: starting its process group, adopting it, watching it by pidfd, ending it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from sandbox.errors import SandboxError
from sandbox.health import answers
from sandbox.home import Home
from sandbox.parts import Part, Ports, filled
from sandbox.processes import HOME_MARK, PART_MARK, Process, listens, process_of, recorded, send


@dataclass(frozen=True)
class PartProcess:
    """A part's main process. `child` is None for an adopted one, which only init can reap."""

    process: Process
    pidfd: int
    child: subprocess.Popen[bytes] | None
    since: float
    owns_children: bool

    async def ended(self) -> str:
        """Waits for the process to end, kills what is left of the children it owns, and says how it ended."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        loop.add_reader(self.pidfd, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(self.pidfd)
        # While our child is an unreaped zombie its number cannot have passed to another group.
        if self.child is not None:
            if self.owns_children:
                _kill_group(self.process.pid)
            self.child.wait()
        os.close(self.pidfd)
        return _ending(self.status())

    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs and for an adopted process."""
        return self.child.returncode if self.child else None


def start(part: Part, home: Home, ports: Ports) -> PartProcess:
    """Starts the part with its log as output. Raises OSError, and SandboxError for an unknown placeholder."""
    argv = [filled(word, home.path, ports) for word in part.argv]
    given = {name: filled(value, home.path, ports) for name, value in part.env.items()}
    environment = {**os.environ, **given, HOME_MARK: str(home.path), PART_MARK: part.name}
    if "PYTHONPATH" in environment:  # the parts run in another folder
        entries = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in entries if entry)
    with home.log(part.name).open("ab") as log:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
            cwd=home.path,
        )
    process = process_of(child.pid) or Process(child.pid, 0, "")
    return PartProcess(process, os.pidfd_open(child.pid), child, time.monotonic(), part.owns_children)


def adopt(part: Part, record: Any, home: Home) -> tuple[PartProcess, dict[str, int]] | None:
    """The part as an earlier supervisor left it, if it still runs, has the ports that are recorded, and is healthy."""
    process = recorded(record)
    ports = record.get("ports", {}) if process else {}
    if process is None or set(ports) != set(part.ports) or not answers(part, ports):
        return None
    if part.health and not listens(process, ports[part.probe]):
        return None
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return None
    return PartProcess(process, pidfd, None, time.monotonic(), part.owns_children), ports


async def stop(running: PartProcess, seconds: float) -> None:
    """SIGTERM, and after `seconds` SIGKILL to the whole group."""
    send(running.process, signal.SIGTERM)
    ended = asyncio.create_task(running.ended())
    done, _ = await asyncio.wait([ended], timeout=seconds)
    if not done:
        send(running.process, signal.SIGKILL)
        await ended


def choose_port(preferred: int, taken: set[int]) -> int:
    """`preferred` where nothing listens on it, else a free port; none of `taken`."""
    for wanted in (preferred, *[0] * 50):
        port = _free(wanted)
        if port and port not in taken:
            return port
    raise SandboxError("No free port on 127.0.0.1.")


def _free(port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
        bound: int = probe.getsockname()[1]
        return bound


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _ending(status: int | None) -> str:
    if status is None:
        return "no status, it was adopted"
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
