"""Processes by pid and start time, from /proc. A pid that has come to name another process is never signalled."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HOME_MARK = "KANARY_SANDBOX"  # the home folder, in the environment of every process of a part
PART_MARK = "KANARY_PART"

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_LISTEN = "0A"  # the state in /proc/net/tcp


@dataclass(frozen=True)
class Process:
    """A process for as long as it lives: `start_time` (clock ticks since boot) tells it from a later one."""

    pid: int
    start_time: int
    boot: str

    def as_json(self) -> dict[str, int | str]:
        return {"pid": self.pid, "start_time": self.start_time, "boot": self.boot}


def boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def process_of(pid: int) -> Process | None:
    """The live process of that pid; None when there is none, or only its zombie."""
    fields = _stat(pid)
    return None if not fields or fields[0] in "ZX" else Process(pid, int(fields[19]), boot_id())


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none where there is no such process."""
    try:
        # The command's name stands in parentheses and may hold anything, parentheses too.
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def told(value: object) -> Process | None:
    """The process that `as_json` once described, dead or alive; None for anything else."""
    if not isinstance(value, Mapping):
        return None
    match value.get("pid"), value.get("start_time"), value.get("boot"):
        case int(pid), int(start_time), str(boot):
            return Process(pid, start_time, boot)
    return None


def recorded(value: object) -> Process | None:
    """The process that `as_json` once described, if it still lives."""
    process = told(value)
    return process if process is not None and is_alive(process) else None


def is_alive(process: Process) -> bool:
    return process_of(process.pid) == process


def is_same(process: Process) -> bool:
    """Whether the number still names it, were it only its zombie: some of its threads may run, its sockets be open."""
    fields = _stat(process.pid)
    return bool(fields) and Process(process.pid, int(fields[19]), boot_id()) == process


def send(process: Process, number: signal.Signals) -> bool:
    """Signals the process, unless it has gone. Through a pidfd: what was checked is what is signalled."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(descriptor, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)


def send_group(process: Process, number: signal.Signals) -> bool:
    """Signals the process and the group that it leads, unless it has gone."""
    if not is_alive(process):
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
    return True


def wait_gone(processes: Iterable[Process], seconds: float) -> list[Process]:
    """Waits until they have ended; gives those that have not in time."""
    deadline = time.monotonic() + seconds
    left = [process for process in processes if is_alive(process)]
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [process for process in left if is_alive(process)]
    return left


def marked(home: Path, part: str | None = None) -> list[Process]:
    """Every process started under a part of that home, however deep; never this process or one above it."""
    return [process for process, name in parts_of(home).items() if part in (None, name)]


def parts_of(home: Path) -> dict[Process, str]:
    """Every process started under a part of that home, with the part's name."""
    wanted, named = f"{HOME_MARK}={home}".encode(), f"{PART_MARK}=".encode()
    own = set(_ancestors(os.getpid()))
    found = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) in own:
            continue
        with contextlib.suppress(OSError):
            environment = (entry / "environ").read_bytes().split(b"\0")
            process = process_of(int(entry.name)) if wanted in environment else None
            if process is not None:
                names = [word.removeprefix(named).decode() for word in environment if word.startswith(named)]
                found[process] = names[0] if names else ""
    return found


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 0:
        yield pid
        fields = _stat(pid)
        if not fields:
            return
        pid = int(fields[1])


def kill_marked(home: Path, part: str | None = None, seconds: float = 5.0) -> bool:
    """Kills what `marked` finds until it finds nothing; False where something outlives that."""
    deadline = time.monotonic() + seconds
    while found := marked(home, part):
        if time.monotonic() > deadline:
            return False
        for process in found:
            send(process, signal.SIGKILL)
        wait_gone(found, 0.5)
    return True


def listens(process: Process, port: int) -> bool:
    """Whether it is this process that listens on that TCP port."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / str(process.pid) / "net" / table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    with contextlib.suppress(OSError):
        for descriptor in (_PROC / str(process.pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(descriptor) in sockets:
                    return True
    return False


@dataclass(frozen=True)
class Usage:
    """What processes take together: memory, where shared pages count in proportion (PSS), and CPU seconds so far."""

    memory_bytes: int = 0
    cpu_seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.memory_bytes + other.memory_bytes, self.cpu_seconds + other.cpu_seconds)

    def as_json(self) -> dict[str, int | float]:
        return {"memory_bytes": self.memory_bytes, "cpu_seconds": round(self.cpu_seconds, 2)}


def usage(process: Process) -> Usage:
    """What one process takes; children of its that have ended count in."""
    fields = _stat(process.pid)
    memory = 0
    with contextlib.suppress(OSError):
        for line in (_PROC / str(process.pid) / "smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                memory = int(line.split()[1]) * 1024
    return Usage(memory, sum(map(int, fields[11:15])) / _TICKS if fields else 0.0)


def group_of(process: Process) -> int:
    """The process group, known by the pid of its leader; 0 where the process has gone."""
    fields = _stat(process.pid)
    return int(fields[2]) if fields else 0
