"""A program in a terminal of its own, driven by keys and timed by what it writes. Linux and macOS."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psutil


@dataclass
class Terminal:
    """A running program. `written` is what it has written so far, escapes included."""

    command: Sequence[str]
    environment: Mapping[str, str]
    columns: int = 120
    rows: int = 40
    written: bytearray = field(default_factory=bytearray)
    started: float = 0.0

    def __enter__(self) -> Terminal:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, self.columns, 0, 0))
        environment = {**self.environment, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            list(self.command), stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._master)

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self._process.pid)

    def read(self, seconds: float) -> bool:
        """Takes what is written next, waiting at most so long; whether anything was."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, seconds))
        if not ready:
            return False
        try:
            self.written += os.read(self._master, 1 << 16)
        except OSError:
            return False  # the program has ended
        return True

    def until(self, text: bytes, seconds: float = 60.0) -> float:
        """Seconds from the start until this was written. Raises TimeoutError."""
        deadline = time.perf_counter() + seconds
        while text not in self.written:
            if time.perf_counter() > deadline or self._process.poll() is not None:
                raise TimeoutError(f"{text!r} was not written; the end: {bytes(self.written[-500:])!r}")
            self.read(0.5)
        return time.perf_counter() - self.started

    def quiet(self, seconds: float, most: float = 30.0) -> None:
        """Waits until nothing was written for so long, or `most` seconds are over."""
        deadline = time.perf_counter() + most
        while self.read(seconds) and time.perf_counter() < deadline:
            pass

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def key_to_write(self, key: bytes) -> float:
        """Seconds from a key to the program's next write; what it was writing already does not count."""
        while self.read(0.0):
            pass
        began = time.perf_counter()
        self.press(key)
        if not self.read(10.0):
            raise TimeoutError(f"nothing was written within 10 s of {key!r}")
        return time.perf_counter() - began
