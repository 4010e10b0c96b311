"""A process that has imported the heavy modules already and forks one worker per request.

Runs as `python -P -m sandbox.zygote (--socket-fd N | --listen-fd N) --preload a,b`. It speaks JSON lines over the
inherited socket (see `sandbox.forkserver`), stays single-threaded, never runs a request's code and never touches CUDA.

With --socket-fd it and its workers end with whoever holds the other end. With --listen-fd they outlive it: the zygote
waits for the next to connect, tells it of the workers there are, and of those that ended while nobody listened.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox import importguard

_PR_SET_PDEATHSIG = 1
_BLOCKED = (signal.SIGINT, signal.SIGTERM)


_IDLE_S = 30.0  # a lasting zygote without workers that nobody has talked to for so long is nobody's any more


@dataclass
class Child:
    """A forked worker that has not been reaped yet."""

    request_id: str
    pid: int
    pidfd: int


@dataclass
class Zygote:
    """Who asks for workers (None for nobody now), who may come to ask, the workers, the exits nobody was told of."""

    channel: socket.socket | None
    listener: socket.socket | None
    hello: dict[str, Any]
    children: dict[str, Child] = field(default_factory=dict)
    untold: list[dict[str, Any]] = field(default_factory=list)
    unread: bytes = b""

    @property
    def lasting(self) -> bool:
        """Whether it and its workers outlive who asks."""
        return self.listener is not None


def main() -> int:
    """Serve fork requests until told to stop or, unless lasting, until the other end closes; then end every worker."""
    parser = argparse.ArgumentParser(prog="sandbox.zygote")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--socket-fd", type=int)
    given.add_argument("--listen-fd", type=int)
    parser.add_argument("--preload", default="")
    options = parser.parse_args()
    if options.listen_fd is None:
        die_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    channel = socket.socket(fileno=options.socket_fd) if options.listen_fd is None else None
    listener = socket.socket(fileno=options.listen_fd) if options.listen_fd is not None else None
    failures = preload([name for name in options.preload.split(",") if name])
    forget_what_ends()
    gc.collect()
    gc.freeze()
    hello = {"ready": True, "pid": os.getpid(), "failures": failures, "threads": threading.active_count()}
    zygote = Zygote(None, listener, hello)
    try:
        serve(zygote, channel)
    finally:
        for child in zygote.children.values():
            kill_group(child.pid, signal.SIGKILL)
    return 0


def preload(names: list[str]) -> dict[str, str]:
    """Import what workers will need; what is not installed is named, not fatal."""
    failures: dict[str, str] = {}
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            failures[name] = str(error)
    return failures


def forget_what_ends() -> None:
    """Let no worker clean up after its parent's imports: torch's take a worker 50 ms, of memory that goes with it.

    What a step itself registers runs as ever.
    """
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
    if dynamo := sys.modules.get("torch._dynamo.utils"):
        atexit.unregister(dynamo.dump_compile_times)


def serve(zygote: Zygote, channel: socket.socket | None) -> None:
    """Fork on request, kill on request, report every exit."""
    with selectors.DefaultSelector() as selector:
        if channel is not None:
            attach(zygote, channel, selector)
        if zygote.listener is not None:
            selector.register(zygote.listener, selectors.EVENT_READ, None)
        while True:
            ready = selector.select(_IDLE_S)
            if not ready and zygote.channel is None and not zygote.children:
                return
            for key, _ in ready:
                if isinstance(key.data, Child):
                    selector.unregister(key.fd)
                    del zygote.children[key.data.request_id]
                    tell(zygote, reap(key.data))
                elif key.fileobj is zygote.listener:
                    attach(zygote, zygote.listener.accept()[0], selector)
                elif key.fileobj is zygote.channel and not listen(zygote, zygote.channel, selector):
                    return


def listen(zygote: Zygote, channel: socket.socket, selector: selectors.BaseSelector) -> bool:
    """Carry out what has come in; whether to go on."""
    try:
        chunk = channel.recv(1 << 16)
    except ConnectionError:
        chunk = b""
    if not chunk:
        detach(zygote, selector)
        return zygote.lasting
    *lines, zygote.unread = (zygote.unread + chunk).split(b"\n")
    return all(handle(json.loads(line), zygote, selector) for line in lines)


def attach(zygote: Zygote, channel: socket.socket, selector: selectors.BaseSelector) -> None:
    """Serve whoever has connected, and no longer who was there before: that one is gone, or will be."""
    detach(zygote, selector)
    zygote.channel, zygote.unread = channel, b""
    selector.register(channel, selectors.EVENT_READ, None)
    workers = [{"id": child.request_id, "pid": child.pid} for child in zygote.children.values()]
    workers += [{"id": exit["id"], "pid": exit["pid"]} for exit in zygote.untold]
    send(channel, {**zygote.hello, "workers": workers})
    untold, zygote.untold = zygote.untold, []
    for exit in untold:
        tell(zygote, exit)


def detach(zygote: Zygote, selector: selectors.BaseSelector) -> None:
    """Nobody asks any more."""
    if zygote.channel is not None:
        selector.unregister(zygote.channel)
        zygote.channel.close()
        zygote.channel = None


def tell(zygote: Zygote, exit: dict[str, Any]) -> None:
    """Report an exit, or keep it for who comes next."""
    if zygote.channel is None or not send(zygote.channel, exit):
        zygote.untold.append(exit)


def handle(request: dict[str, Any], zygote: Zygote, selector: selectors.BaseSelector) -> bool:
    """Carry out a request: `run` forks a worker, `kill` signals its whole process group; False for `stop`."""
    if request["op"] == "stop":
        return False
    if request["op"] == "kill":
        if found := zygote.children.get(request["id"]):
            kill_group(found.pid, signal.Signals(request["signal"]))
        return True
    started = time.time()
    blocked = importguard.blocked_modules(tuple(request["extras"])) if request.get("extras") is not None else None
    # A signal for the worker that comes before it is ready for it waits, instead of meeting this process's handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    pid = os.fork()
    if pid == 0:
        selector.close()
        for held in (zygote.channel, zygote.listener):
            if held is not None:
                held.close()
        for child in zygote.children.values():
            os.close(child.pidfd)
        become_worker(request, blocked, zygote.lasting)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
    # Here and in the child, whoever is first: a kill that follows at once must find the group.
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)
    child = Child(request["id"], pid, os.pidfd_open(pid))
    zygote.children[child.request_id] = child
    selector.register(child.pidfd, selectors.EVENT_READ, child)
    if zygote.channel is not None:
        send(zygote.channel, {"id": child.request_id, "pid": pid, "started": started})
    return True


def reap(child: Child) -> dict[str, Any]:
    """Collect a worker's exit, and end whatever it left in its process group."""
    _, status, usage = os.wait4(child.pid, 0)
    os.close(child.pidfd)
    kill_group(child.pid, signal.SIGKILL)
    return {
        "id": child.request_id,
        "pid": child.pid,
        "exit": os.waitstatus_to_exitcode(status),
        "max_rss_kib": usage.ru_maxrss,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }


def become_worker(request: dict[str, Any], blocked: frozenset[str] | None, lasting: bool) -> None:
    """In the forked child: take on the request's surroundings, run its code, leave. Never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
        if not lasting:
            die_with_parent(signal.SIGKILL)
        redirect(request["log"])
        os.chdir(request["cwd"])
        os.environ.update(request.get("env", {}))
        if blocked is not None:
            importguard.install(blocked)
        code = run(request, blocked or frozenset())
    except BaseException:  # noqa: BLE001  # the outermost frame of a worker
        traceback.print_exc()
    finally:
        finish(code)


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


def finish(code: int) -> None:
    """Leave as an interpreter would (threads joined, exit functions run, streams flushed), but never unwind."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(code & 0xFF)


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


def kill_group(pid: int, sig: signal.Signals) -> None:
    """Signal a worker and everything it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, sig)


def send(channel: socket.socket, message: dict[str, Any]) -> bool:
    """Write one JSON line; whether the other end was there to take it."""
    try:
        channel.sendall(json.dumps(message).encode() + b"\n")
    except ConnectionError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
