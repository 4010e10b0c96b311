"""What a forked process does until it leaves: takes on a request's surroundings, runs what that calls, tells its end.

Runs in the child of a `sandbox.zygote` alone.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib
import io
import json
import os
import resource
import runpy
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandbox import importguard

_PR_SET_PDEATHSIG = 1
BLOCKED = (signal.SIGINT, signal.SIGTERM)
"""Signals that wait until a worker is ready for them."""
READY = b"ready\n"
"""What a spare says when it may be given a request."""
_OPEN = "/proc/self/fd"
_GOES_FIRST = "500"
_HARMLESS = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def settle(lasting: bool) -> None:
    """Be a process of one's own, just after the fork: a group, no parent's random numbers, no life after the parent."""
    os.setpgid(0, 0)
    if not lasting:
        die_with_parent(signal.SIGKILL)
        with contextlib.suppress(OSError):  # where memory is lacking a step goes, not the parent of all of them
            Path("/proc/self/oom_score_adj").write_text(_GOES_FIRST, encoding="ascii")
    # Python's own generator is seeded again at a fork; numpy's would give each worker the same numbers.
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def work(request: dict[str, Any], guard: importguard.Guard | None, teller: socket.socket | None) -> None:
    """Take on the request's surroundings, run its code, leave. Never returns.

    The end is told through `teller` as soon as nothing is left that the end itself would release.
    """
    code, pid = 1, os.getpid()
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)
        redirect(request["log"])
        os.chdir(request["cwd"])
        os.environ.update(request.get("env", {}))
        if guard is not None:
            importguard.install(guard)
        code = run(request, guard.blocked if guard is not None else frozenset())
    except BaseException:  # noqa: BLE001  # the outermost frame of a worker
        traceback.print_exc()
    finally:
        finish(code, teller if os.getpid() == pid else None)  # a child of the step's own may come out here, too


def wait(teller: socket.socket | None, rehearsal: str) -> None:
    """A spare's life: get ready, wait for a request, carry it out. Ends where whoever would ask is gone."""
    assert teller is not None
    if rehearsal:
        rehearse(rehearsal)
    teller.sendall(READY)
    received = b""
    while not received.endswith(b"\n"):
        chunk = teller.recv(1 << 20)
        if not chunk:
            os._exit(0)
        received += chunk
    told = json.loads(received)
    hidden = told["hidden"]
    guard = None if hidden is None else importguard.Guard(frozenset(hidden["blocked"]), tuple(hidden["loaded"]))
    work(told["request"], guard, teller)


def rehearse(target: str) -> None:
    """Call what makes the first steps of any request quick; it leaves nothing behind but memory that was touched."""
    try:
        load(target)()
    except Exception:  # noqa: BLE001  # logged whole; a worker does without
        traceback.print_exc()


def run(request: dict[str, Any], blocked: frozenset[str]) -> int:
    """Run what the request calls, with its argv; give the exit code, and leave the reason of a failure."""
    sys.argv = [request["call"], *request.get("argv", [])]
    try:
        load(request["call"])()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if code and isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
        cause = leaving.__cause__
        if code:
            report(request, f"{type(cause).__name__}: {cause}" if cause else f"exit status {leaving.code}")
        return code
    except BaseException as error:  # noqa: BLE001  # the outermost frame of a worker
        traceback.print_exc()
        hint = importguard.explain(error, blocked, request.get("image", ""))
        report(request, f"{type(error).__name__}: {error}{hint}")
        return 1
    return 0


def report(request: dict[str, Any], reason: str) -> None:
    """Leave the reason of a failure where the request asked for it, if there is room."""
    if path := request.get("report"):
        with contextlib.suppress(OSError):
            Path(path).write_text(reason, encoding="utf-8", errors="replace")


def finish(code: int, teller: socket.socket | None) -> None:
    """Leave as an interpreter would (threads joined, exit functions run, streams flushed), but never unwind.

    Giving back the memory of torch takes the kernel longer than most steps: nobody has to wait for that.
    """
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    with contextlib.suppress(BaseException):
        if teller is not None and nothing_left():
            release(teller)
            usage = resource.getrusage(resource.RUSAGE_SELF)
            cpu_s = usage.ru_utime + usage.ru_stime
            told = {"exit": code & 0xFF, "max_rss_kib": usage.ru_maxrss, "cpu_s": cpu_s}
            teller.sendall(json.dumps(told).encode() + b"\n")
    os._exit(code & 0xFF)


def nothing_left() -> bool:
    """Whether no thread, no child and no device is left: a GPU's memory is free only after the process's end."""
    if threading.active_count() > 1:
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return not any(_is_device(number) for number in os.listdir(_OPEN))
    return False


def _is_device(number: str) -> bool:
    try:
        target = os.readlink(f"{_OPEN}/{number}")
    except OSError:  # that of the list itself
        return False
    return target.startswith("/dev/") and not target.startswith("/dev/shm/") and target not in _HARMLESS


def release(teller: socket.socket) -> None:
    """Let go of every file, lock and port now, as the end would."""
    for number in map(int, os.listdir(_OPEN)):
        if number > 2 and number != teller.fileno():
            with contextlib.suppress(OSError):
                os.close(number)


def load(target: str) -> Callable[[], object]:
    """The callable behind `module:function`; a bare `module` is run as `python -m module` would."""
    module, _, function = target.partition(":")
    if not function:
        return functools.partial(runpy.run_module, module, run_name="__main__", alter_sys=True)
    found: Callable[[], object] = getattr(importlib.import_module(module), function)
    return found


def redirect(log: str) -> None:
    """Send stdout and stderr to `log`, unbuffered by line so that a crash loses nothing already printed."""
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(target, 1)
    os.dup2(target, 2)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        raw = open(descriptor, "wb", closefd=False)  # noqa: SIM115  # for as long as the process lives
        setattr(sys, name, Log(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True))


class Log(io.TextIOWrapper):
    """A worker's output, in a file where a container's is in a pipe: a full disk costs lines, not the worker."""

    def write(self, text: str, /) -> int:
        """All of `text`, or nothing of it."""
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """As far as there is room."""
        with contextlib.suppress(OSError):
            super().flush()


def die_with_parent(sig: signal.Signals) -> None:
    """Ask the kernel for `sig` when the parent dies, so that a killed sandbox leaves nothing running."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0)
