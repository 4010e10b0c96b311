"""The commands `up` and `down`: one sandbox a home folder, whoever asks, however often. Failures are SandboxError."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from sandbox.errors import SandboxError
from sandbox.home import Home, make_home, put_aside, read_json, remove_files, take_lock
from sandbox.parts import parts
from sandbox.processes import Process, kill_marked, marked, process_of, recorded, send, wait_gone
from sandbox.rotation import tail

Report = Callable[[Mapping[str, object]], None]

_UP_DEADLINE_S = 600.0
_DOWN_DEADLINE_S = 60.0
_ORPHAN_GRACE_S = 10.0


def up(home: Home, foreground: bool, out: TextIO, drift: bool = False) -> None:
    """Starts the sandbox and returns when all of it answers, or finds it running. Raises SandboxError.

    With `drift` the drift detector is one of its parts. With `foreground` it returns only after SIGTERM, SIGINT, or
    `down` from elsewhere.
    """
    make_home(home)
    lock = _lock_or_running(home)
    if lock is None:
        pid = read_json(home.endpoints).get("pid")
        print(f"The sandbox in {home.path} is up already (pid {pid}).", file=out)
        _print_endpoints(home, out)
        _print_progress(home, {"up": True}, out)
        return
    print(f"Starting the sandbox in {home.path}", file=out, flush=True)
    if foreground:
        failure = supervise(home, lock, lambda message: _print_progress(home, message, out), drift)
    else:
        failure = _start_detached(home, lock, out, drift)
    os.close(lock)
    if failure:
        raise SandboxError(failure, f"All logs are in {home.logs}.")


def _lock_or_running(home: Home) -> int | None:
    """The lock, or None once the sandbox that holds it is up: one that is starting or stopping is waited for."""
    deadline = time.monotonic() + _UP_DEADLINE_S
    while (lock := take_lock(home)) is None:
        state = read_json(home.state)
        if state.get("up") and recorded(state.get("supervisor")):
            return None
        if time.monotonic() > deadline:
            raise SandboxError(f"Another process holds {home.lock} and brings no sandbox up.", "See `logs supervisor`.")
        time.sleep(0.03)
    return lock


def _start_detached(home: Home, lock: int, out: TextIO, drift: bool) -> str:
    """Starts the supervisor in a session of its own and passes on its progress; gives what failed, "" for nothing."""
    receiving, sending = os.pipe()
    argv = [sys.executable, "-P", "-m", "sandbox", "supervise", "--home", str(home.path), *(["--drift"] * drift)]
    with home.log("supervisor").open("ab") as log:
        child = subprocess.Popen(
            [*argv, "--lock", str(lock), "--report", str(sending)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=(lock, sending),
        )
    os.close(sending)
    with open(receiving, encoding="utf-8") as progress:
        for line in _lines_within(progress, _UP_DEADLINE_S):
            message = json.loads(line)
            _print_progress(home, message, out)
            if message.get("up"):
                child.returncode = 0  # it outlives us by intent: no ResourceWarning
                return ""
            if "failed" in message:
                child.wait()
                return str(message["failed"])
    return f"The supervisor ended early. Its log ends with:\n{tail(home.log('supervisor'))}"


def _lines_within(stream: TextIO, seconds: float) -> Iterator[str]:
    """The lines of a pipe until its end or the deadline. Its writer writes whole lines, one at a time."""
    deadline = time.monotonic() + seconds
    while select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
        line = stream.readline()
        if not line:
            return
        yield line


def supervise(home: Home, lock: int, report: Report, drift: bool = False) -> str:
    """Runs the supervisor in this process, which holds `lock`, until it is told to stop; gives what failed."""
    import asyncio  # here: the other commands answer without it

    from sandbox.supervisor import Supervisor

    own = process_of(os.getpid())
    os.truncate(lock, 0)
    os.pwrite(lock, json.dumps(own.as_json() if own else {}).encode(), 0)

    async def run() -> str:
        return await Supervisor(home, parts(drift), report).run()

    return asyncio.run(run())


def down(home: Home, out: TextIO) -> None:
    """Stops the sandbox and whatever a killed one has left. Raises SandboxError when something will not end."""
    if not home.path.is_dir():
        print(f"No sandbox is running in {home.path}.", file=out)
        return
    lock = take_lock(home)
    was_up = lock is None
    if lock is None:
        print(f"Stopping the sandbox in {home.path}", file=out, flush=True)
        lock = _lock_after_stop(home)
        if lock is None:
            print("Stopped, and started again by an `up` that waited for that.", file=out)
            return
    try:
        orphans = _orphans(home)
        for process in orphans:
            send(process, signal.SIGTERM)
        wait_gone(orphans, _ORPHAN_GRACE_S)
        if not kill_marked(home.path):
            pids = ", ".join(str(process.pid) for process in marked(home.path))
            raise SandboxError(f"Processes of the sandbox survive SIGKILL: {pids}.", "They wait in the kernel.")
        remove_files(home)
    finally:
        os.close(lock)
    told = f"Ended {len(orphans)} processes that a killed sandbox had left." if orphans else "Stopped."
    print(told if was_up or orphans else f"No sandbox is running in {home.path}.", file=out)


def _lock_after_stop(home: Home) -> int | None:
    """Tells the supervisor to stop and waits for its lock; after the deadline it is killed. None: another has it."""
    deadline = time.monotonic() + _DOWN_DEADLINE_S
    told: Process | None = None
    while (lock := take_lock(home)) is None:
        supervisor = recorded(read_json(home.lock))
        late = time.monotonic() > deadline
        if told is not None and supervisor not in (None, told):
            break
        if supervisor is not None and (late or supervisor != told):
            told = supervisor
            send(supervisor, signal.SIGKILL if late else signal.SIGTERM)
        elif late:
            raise SandboxError(f"Another process holds {home.lock} and is no supervisor.", f"fuser -v {home.lock}")
        time.sleep(0.02)
    wait_gone([told] if told else [], _ORPHAN_GRACE_S)  # it deletes the lock's file shortly before its end
    return lock


def _orphans(home: Home) -> list[Process]:
    """The main processes of the parts that outlived their supervisor, else whatever of them is left."""
    known: Mapping[str, Any] = read_json(home.state).get("parts", {})
    mains = [process for process in map(recorded, known.values()) if process is not None]
    return mains or marked(home.path)


def _print_progress(home: Home, message: Mapping[str, Any], out: TextIO) -> None:
    if "part" in message:
        line = f"  {message['part']:<12} {message.get('url', ''):<28} ready in {message['seconds']} s"
        print(line.rstrip(), file=out, flush=True)
    if "absent" in message:
        print(f"  {message['absent']:<12} absent: {message['why']}", file=out, flush=True)
    for name in message.get("later", ()):
        print(f"  {name:<12} starts; `kanary info` says when it answers, and where", file=out, flush=True)
    if "up" in message:
        url = read_json(home.endpoints).get("kfp", {}).get("url", "")
        for path in put_aside(home):
            print(f"  A damaged store of pipelines was put aside: {path}", file=out, flush=True)
        print(f"\nexport KFP_ENDPOINT={url}", file=out, flush=True)
        if (kubeconfig := home.path / "kubeconfig").exists():
            print(f"export KUBECONFIG={kubeconfig}", file=out, flush=True)


def _print_endpoints(home: Home, out: TextIO) -> None:
    for name, entry in read_json(home.endpoints).items():
        if isinstance(entry, dict):
            print(f"  {name:<12} {entry.get('url', '')}", file=out)
