"""Predictors forked from a process that has loaded torch and KServe already, as the sandbox forks them: soon there.

Where a test is about processes, their ends or their imports, it starts one of its own: see predictor_rig.serving.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PRELOAD = "serving.predictor.server"


class Forked:
    """A predictor, with what is used of subprocess.Popen."""

    def __init__(self, pid: int, ended: threading.Event) -> None:
        self.pid = pid
        self._ended = ended

    def poll(self) -> int | None:
        """0 once it has ended, however it did."""
        return 0 if self._ended.is_set() else None

    def wait(self, timeout: float = 60.0) -> int:
        """Waits for its end. TimeoutError if it does not come."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"process {self.pid} does not end")
        return 0

    def send_signal(self, number: int) -> None:
        if not self._ended.is_set():
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Parent:
    """The process that they are forked from, started by the first that needs it."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._numbers = itertools.count(1)
        self._told = threading.Condition()
        self._pids: dict[str, int] = {}
        self._ends: dict[str, threading.Event] = {}

    def run(self, arguments: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]) -> Forked:
        """A predictor with these arguments, in `folder`, writing to `log`."""
        if self._channel is None:
            self._start()
        assert self._channel is not None
        number = str(next(self._numbers))
        ended = self._ends[number] = threading.Event()
        job = {"call": f"{PRELOAD}:main", "argv": list(arguments), "cwd": str(folder), "log": str(log)}
        self._say({"op": "run", "id": number, "env": dict(environment), **job})
        with self._told:
            assert self._told.wait_for(lambda: number in self._pids, 120), "nothing is forked"
        return Forked(self._pids[number], ended)

    def stop(self) -> None:
        """Ends it, and what is left of those it has forked."""
        if self._channel is None or self._process is None or self._reader is None:
            return
        self._say({"op": "stop"})
        self._process.wait(60)
        self._reader.join(60)
        self._channel.close()
        self._channel = None

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "sandbox.zygote", "--preload", PRELOAD, "--socket-fd"]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())], cwd=ROOT, pass_fds=(theirs.fileno(),), stdout=subprocess.DEVNULL
            )
        self._channel = ours
        self._reader = threading.Thread(target=self._read, args=(ours.makefile("rb"),))
        self._reader.start()

    def _say(self, request: dict[str, Any]) -> None:
        assert self._channel is not None
        self._channel.sendall(json.dumps(request).encode() + b"\n")

    def _read(self, lines: Any) -> None:
        with lines:
            for line in lines:
                told = json.loads(line)
                if "started" in told:
                    with self._told:
                        self._pids[told["id"]] = told["pid"]
                        self._told.notify_all()
                elif "exit" in told:
                    self._ends[told["id"]].set()


PARENT = Parent()
