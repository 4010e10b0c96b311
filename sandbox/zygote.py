"""A process that has imported the heavy modules already and forks one worker per request.

Runs as `python -P -m sandbox.zygote (--socket-fd N | --listen-fd N) --preload a,b`. It speaks JSON lines over the
inherited socket (see `sandbox.forkserver`), stays single-threaded, never runs a request's code and never touches CUDA.

With --socket-fd it and its workers end with whoever holds the other end. With --listen-fd they outlive it: the zygote
waits for the next to connect, tells it of the workers there are, and of those that ended while nobody listened.

With --spares N up to so many workers are forked ahead, whenever nothing else is to be done, and wait for a request:
each has called --rehearsal, takes one request and ends. A fork of a big process takes longer than a small step.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import importlib
import json
import os
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
from typing import Any

from sandbox import importguard, worker

_IDLE_S = 30.0  # a lasting zygote without workers that nobody has talked to for so long is nobody's any more
_QUIET_S = 0.02  # nothing asked and nothing ended for so long: there is time to fork ahead
_ENDS = (
    ("torch._dynamo.utils", "dump_compile_times"),
    ("torch._dynamo.eval_frame", "_log_traced_frames"),
    ("torch._subclasses.fake_tensor", "dump_cache_stats"),
)


@dataclass
class Child:
    """A forked worker that has not been reaped yet; a spare one has no request, and is `ready` after its rehearsal.

    It tells its end through the `channel`, where it can, a moment before it ends; `told` says that it has.
    """

    pid: int
    pidfd: int
    channel: socket.socket | None
    request_id: str = ""
    told: bool = False
    ready: bool = False


@dataclass
class Zygote:
    """Who asks for workers (None for nobody now), who may come to ask, the workers, the exits nobody was told of.

    Spares are `lacking` once somebody has asked for a worker; one that dies by itself is not lacking before that.
    """

    channel: socket.socket | None
    listener: socket.socket | None
    hello: dict[str, Any]
    children: dict[str, Child] = field(default_factory=dict)
    untold: list[dict[str, Any]] = field(default_factory=list)
    unread: bytes = b""
    most_spares: int = 0
    rehearsal: str = ""
    spares: list[Child] = field(default_factory=list)
    lacking: int = 0

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
    parser.add_argument("--spares", type=int, default=0)
    parser.add_argument("--rehearsal", default="")
    options = parser.parse_args()
    if options.listen_fd is None:
        worker.die_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    channel = socket.socket(fileno=options.socket_fd) if options.listen_fd is None else None
    listener = socket.socket(fileno=options.listen_fd) if options.listen_fd is not None else None
    failures = preload([name for name in options.preload.split(",") if name])
    if options.rehearsal:
        worker.rehearse(options.rehearsal)  # here, too: what is loaded on the way is loaded once
    forget_what_ends()
    gc.collect()
    gc.freeze()
    hello = {"ready": True, "pid": os.getpid(), "failures": failures, "threads": threading.active_count()}
    zygote = Zygote(None, listener, hello, most_spares=options.spares, rehearsal=options.rehearsal)
    try:
        serve(zygote, channel)
    finally:
        left = (*zygote.children.values(), *zygote.spares)
        for child in left:
            kill_group(child.pid, signal.SIGKILL)
        for child in left:  # nothing is left once this process has ended
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
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
    for module, function in _ENDS:
        if loaded := sys.modules.get(module):
            atexit.unregister(getattr(loaded, function))


def serve(zygote: Zygote, channel: socket.socket | None) -> None:
    """Fork on request, kill on request, report every exit."""
    with selectors.DefaultSelector() as selector:
        if channel is not None:
            attach(zygote, channel, selector)
        if zygote.listener is not None:
            selector.register(zygote.listener, selectors.EVENT_READ, None)
        while True:
            ready = selector.select(_QUIET_S if zygote.lacking else _IDLE_S)
            if not ready and zygote.lacking:
                add_spare(zygote, selector)
            elif not ready and zygote.channel is None and not zygote.children:
                return
            for key, _ in ready:
                if isinstance(key.data, Child):
                    hear(key.data, key.fd, zygote, selector)
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
    """Carry out a request: `run` starts a worker, `kill` signals its whole process group; False for `stop`."""
    if request["op"] == "stop":
        return False
    if request["op"] == "kill":
        if found := zygote.children.get(request["id"]):
            kill_group(found.pid, signal.Signals(request["signal"]))
        return True
    started = time.time()
    guard = importguard.guard(tuple(request["extras"])) if request.get("extras") is not None else None
    child = hand_to_spare(request, guard, zygote)
    if child is None:
        child = fork(zygote, selector, lambda teller: worker.work(request, guard, teller))
    child.request_id = request["id"]
    zygote.children[child.request_id] = child
    zygote.lacking = zygote.most_spares - len(zygote.spares)
    if zygote.channel is not None:
        send(zygote.channel, {"id": child.request_id, "pid": child.pid, "started": started})
    return True


def hand_to_spare(request: dict[str, Any], guard: importguard.Guard | None, zygote: Zygote) -> Child | None:
    """The spare that has waited longest, now at the request; None where there is none."""
    hidden = None if guard is None else {"blocked": sorted(guard.blocked), "loaded": guard.loaded}
    for child in [spare for spare in zygote.spares if spare.ready]:
        zygote.spares.remove(child)
        assert child.channel is not None
        if send(child.channel, {"request": request, "hidden": hidden}):
            return child
        child.told = True  # it is dead, and nobody was to hear of it
    return None


def add_spare(zygote: Zygote, selector: selectors.BaseSelector) -> None:
    """Fork one ahead."""
    zygote.lacking -= 1
    zygote.spares.append(fork(zygote, selector, lambda teller: worker.wait(teller, zygote.rehearsal)))


def fork(zygote: Zygote, selector: selectors.BaseSelector, begin: Callable[[socket.socket | None], None]) -> Child:
    """A child that begins like that, with its end of a channel to us, and never comes back."""
    ours, theirs = (None, None) if zygote.lasting else socket.socketpair()
    # A signal for the worker that comes before it is ready for it waits, instead of meeting this process's handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, worker.BLOCKED)
    pid = os.fork()
    if pid == 0:
        try:
            leave_behind(zygote, selector, ours)
            worker.settle(zygote.lasting)
            begin(theirs)
        except BaseException:  # noqa: BLE001  # the outermost frame of a worker
            traceback.print_exc()
        finally:
            os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, worker.BLOCKED)
    if theirs is not None:
        theirs.close()
    # Here and in the child, whoever is first: a kill that follows at once must find the group.
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)
    child = Child(pid, os.pidfd_open(pid), ours)
    selector.register(child.pidfd, selectors.EVENT_READ, child)
    if child.channel is not None:
        selector.register(child.channel, selectors.EVENT_READ, child)
    return child


def leave_behind(zygote: Zygote, selector: selectors.BaseSelector, ours: socket.socket | None) -> None:
    """In the child: close what is the parent's alone."""
    selector.close()
    for held in (zygote.channel, zygote.listener, ours):
        if held is not None:
            held.close()
    for child in (*zygote.children.values(), *zygote.spares):
        os.close(child.pidfd)
        if child.channel is not None:
            child.channel.close()


def hear(child: Child, descriptor: int, zygote: Zygote, selector: selectors.BaseSelector) -> None:
    """A spare is ready, a worker tells its end, or has ended."""
    if child in zygote.spares and descriptor != child.pidfd:
        assert child.channel is not None
        child.ready = receive(child.channel) == worker.READY
        if not child.ready:  # it has ended, which its pidfd tells
            selector.unregister(child.channel)
            child.channel.close()
            child.channel = None
        return
    if child.channel is not None and (descriptor == child.channel.fileno() or child.pidfd == descriptor):
        selector.unregister(child.channel)
        line = b"" if descriptor == child.pidfd else receive(child.channel)
        child.channel.close()
        child.channel = None
        if line:
            child.told = True
            tell(zygote, {"id": child.request_id, "pid": child.pid, **json.loads(line)})
    if descriptor != child.pidfd:
        return
    selector.unregister(child.pidfd)
    zygote.children.pop(child.request_id, None)
    if child in zygote.spares:
        zygote.spares.remove(child)
        child.told = True
    exit = reap(child)
    if not child.told:
        tell(zygote, exit)


def receive(channel: socket.socket) -> bytes:
    """The line that a worker leaves; empty where it has left none."""
    try:
        return channel.recv(1 << 12)
    except ConnectionError:
        return b""


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
