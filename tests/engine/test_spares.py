"""Workers forked ahead, and ends that are told early: each still takes one request, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from sandbox.forkserver import ForkServer, Job

_SPARES = 2
_STEPS = """
import os, socket, subprocess, sys, threading, time

SEEN = []

def leave_a_trace():
    SEEN.append(1)
    print(os.getpid(), len(SEEN), os.getcwd(), os.environ.get("GIVEN"), flush=True)
    assert os.environ.setdefault("LEFT", "here") == "here" and len(SEEN) == 1

def import_yaml():
    import yaml

def take_a_port():
    held = socket.socket()
    held.bind((sys.argv[1], int(sys.argv[2])))
    globals()["HELD"] = held

def leave_a_child():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

def leave_a_thread():
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

def fork_and_come_back():
    if os.fork() == 0:
        return
    os.wait()
    time.sleep(0.3)
    sys.exit(7)

def draw():
    import numpy
    print(numpy.random.random())

def rehearse():
    print("rehearsed", flush=True)
    while os.path.exists(os.environ.get("HINDRANCE", "")):
        time.sleep(0.01)
"""


@pytest_asyncio.fixture
async def parent(tmp_path: Path) -> AsyncIterator[ForkServer]:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "spare_steps.py").write_text(_STEPS, encoding="utf-8")
    path = os.pathsep.join([str(modules), *filter(None, [os.environ.get("PYTHONPATH")])])
    given = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "HINDRANCE": str(tmp_path / "hindrance")}
    server = ForkServer(
        ["spare_steps", "yaml", "numpy"],
        tmp_path / "parent.log",
        given,
        spares=_SPARES,
        rehearsal="spare_steps:rehearse",
    )
    await server.start()
    yield server
    children = processes(server)
    await server.stop()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive, "spares end with their parent"


def processes(server: ForkServer) -> list[psutil.Process]:
    """The parent's children that are alive, the oldest first."""
    assert server.pid is not None
    found = psutil.Process(server.pid).children()
    return [one for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


async def rehearsed(server: ForkServer, times: int) -> list[psutil.Process]:
    """The spares, as soon as there are `_SPARES` and so many rehearsals were held."""
    await until(lambda: server.log.read_text().count("rehearsed") >= times and len(processes(server)) == _SPARES)
    return processes(server)


async def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def job(server: ForkServer, folder: Path, call: str, *argv: str, extras: tuple[str, ...] | None = None) -> int:
    """Run one function of the steps to its end; gives its exit code."""
    assigned = Job(f"spare_steps:{call}", argv, folder, folder / "log", {"GIVEN": call}, extras)
    ended = await (await server.run(assigned)).wait()
    assert ended.code is not None
    return ended.code


async def test_each_step_has_a_process_of_its_own_forked_ahead_or_not(parent: ForkServer, tmp_path: Path) -> None:
    assert processes(parent) == [], "nobody has asked for a worker yet"
    assert await job(parent, tmp_path, "leave_a_trace") == 0
    spares = {one.pid for one in await rehearsed(parent, 1 + _SPARES)}

    def lines() -> list[list[str]]:
        return [line.split() for line in (tmp_path / "log").read_text().splitlines()]

    jobs = 1
    while jobs < 1 + 2 * _SPARES or not spares < {int(line[0]) for line in lines()}:
        assert jobs < 100, "those that waited are taken"  # as soon as they have said that they are ready
        assert await job(parent, tmp_path, "leave_a_trace") == 0
        jobs += 1
    assert len({line[0] for line in lines()}) == jobs, "no process did two"
    assert {tuple(line[1:]) for line in lines()} == {("1", str(tmp_path), "leave_a_trace")}


async def test_a_spare_forgets_what_the_image_lacks(parent: ForkServer, tmp_path: Path) -> None:
    assert await job(parent, tmp_path, "import_yaml") == 0
    await rehearsed(parent, 1 + _SPARES)
    assert await job(parent, tmp_path, "import_yaml", extras=("=numpy",)) == 1
    assert "No module named 'yaml'" in (tmp_path / "log").read_text()
    assert await job(parent, tmp_path, "import_yaml") == 0


async def test_workers_draw_different_numbers(parent: ForkServer, tmp_path: Path) -> None:
    for _ in range(3):
        assert await job(parent, tmp_path, "draw") == 0
    assert len(set((tmp_path / "log").read_text().splitlines())) == 3


async def test_a_spare_that_is_killed_costs_no_step(parent: ForkServer, tmp_path: Path) -> None:
    assert await job(parent, tmp_path, "leave_a_trace") == 0
    for spare in await rehearsed(parent, 1 + _SPARES):
        os.kill(spare.pid, signal.SIGKILL)
    await until(lambda: processes(parent) == [])
    assert await job(parent, tmp_path, "leave_a_trace") == 0
    await rehearsed(parent, 1 + 2 * _SPARES)


async def test_a_spare_that_is_not_ready_is_waited_for_by_no_step(parent: ForkServer, tmp_path: Path) -> None:
    (tmp_path / "hindrance").touch()
    assert await job(parent, tmp_path, "leave_a_trace") == 0
    spares = {one.pid for one in await rehearsed(parent, 1 + _SPARES)}
    assert await job(parent, tmp_path, "leave_a_trace") == 0
    await until(lambda: spares == {one.pid for one in processes(parent)})  # the step's process may yet be ending
    (tmp_path / "hindrance").unlink()


async def test_what_a_step_held_is_free_when_its_end_is_told(parent: ForkServer, tmp_path: Path) -> None:
    host = "127.77.0.1"  # another of this machine's own addresses: on the usual one anybody might take the port
    with socket.socket() as found:
        found.bind((host, 0))
        port = found.getsockname()[1]
    for _ in range(5):
        assert await job(parent, tmp_path, "take_a_port", host, str(port)) == 0
        with socket.socket() as after:
            after.bind((host, port))


async def test_where_memory_lacks_the_kernel_takes_a_step_before_its_parent(parent: ForkServer, tmp_path: Path) -> None:
    assert await job(parent, tmp_path, "leave_a_trace") == 0
    (spare, *_) = await rehearsed(parent, 1 + _SPARES)
    first, last = (int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (spare.pid, parent.pid))
    assert first > last


@pytest.mark.parametrize("call", ["leave_a_child", "leave_a_thread"])
async def test_a_step_that_leaves_something_running_has_ended_when_that_has(
    parent: ForkServer, tmp_path: Path, call: str
) -> None:
    worker = await parent.run(Job(f"spare_steps:{call}", [], tmp_path, tmp_path / "log"))
    assert (await worker.wait()).code == 0
    assert not psutil.pid_exists(worker.pid), "told by the kernel, not by the worker itself"


async def test_a_child_of_the_steps_own_does_not_tell_the_steps_end(parent: ForkServer, tmp_path: Path) -> None:
    assert await job(parent, tmp_path, "fork_and_come_back") == 7
