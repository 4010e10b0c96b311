"""The predictor's side of the payload log: takes answered predictions and hands them to the sender process.

It never waits: what the sender does not take is dropped and counted. A sender that dies is started again. All of it
happens on the event loop of the predictor; redacting and sending happen in the other process.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import hashlib
import itertools
import json
import logging
import os
import random
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving.predictor.payloads import frames
from serving.predictor.payloads.cloudevents import go_json
from serving.predictor.payloads.counters import Counters
from serving.predictor.payloads.spec import PayloadLog, canonical

QUEUE_BYTES = 8 << 20
_PIPE_BYTES = 1 << 20
# One write for all that was answered within so many seconds.
_FLUSH_S = 0.01
_FRAMES_AT_ONCE = 256
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0
# A sender that lived so long is started again at once.
_LASTED_S = 60.0
# The sender gives up after 3 s by itself.
_CLOSE_S = 4.0

_COMMAND = (sys.executable, "-P", "-m", "serving.predictor.payloads.sender")
_ROOT = Path(__file__).resolve().parents[3]
_logger = logging.getLogger(__name__)
Headers = Sequence[tuple[bytes, bytes]]


class Recorder:
    """Records what `log` asks for. `start` and `close` it on the loop on which `answered` is called."""

    def __init__(self, log: PayloadLog, counters: Counters, features: Sequence[str], sensitive: Sequence[str]) -> None:
        self.log = log
        self._counters = counters
        told = {"log": dataclasses.asdict(log), "features": list(features), "sensitive": list(sensitive)}
        self._first = frames.encode("", (b"", b"", b"", json.dumps(told).encode(), b""), None, 0.0, 0.0)
        self._wanted = {name.lower().encode(): name for name in log.metadata_headers if canonical(name) == name}
        self._requests, self._responses = "request" in log.kinds, "response" in log.kinds
        self._below = int(log.sample * 2.0**64)
        self._all = log.sample >= 1.0
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._offset = 0
        self._accepted = self._settled = 0
        self._sampled_out = self._overflowed = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._stdin = self._stdout = -1
        self._handed = 0
        self._reported: Counter[tuple[str, str]] = Counter()
        self._sender_bytes = 0
        self._report = b""
        self._started = 0.0
        self._pause = _SHORTEST_PAUSE_S
        self._timer: asyncio.TimerHandle | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()
        self._closing = False

    @property
    def pid(self) -> int:
        """The sender's process; 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start the sender."""
        self._loop = asyncio.get_running_loop()
        self._counters.open(self.log.kinds)
        self._spawn()

    def answered(
        self,
        protocol: str,
        headers: Mapping[bytes, bytes],
        every: Headers,
        body: bytes,
        json_length: int | None,
        answer: bytes,
        arrived: float,
    ) -> None:
        """Log a prediction that is answered with 200.

        `headers` are the request's by name, `every` is all of them as they came; `arrived` is in epoch seconds.
        """
        event_id = headers.get(b"ce-id", b"")
        if self._timer is None:
            self._timer = self._loop.call_later(_FLUSH_S, self._flush)
        if not (self._all or sampled(event_id, self._below)):
            self._sampled_out += 1
            return
        request, answer = body if self._requests else b"", answer if self._responses else b""
        size = frames.HEAD_BYTES + len(request) + len(answer)
        if self._size + size > QUEUE_BYTES:
            self._overflowed += 1
            return
        metadata = self._metadata(every) if self._wanted else b""
        parts = (event_id, headers.get(b"content-type", b""), metadata, request, answer)
        frame = frames.encode(protocol, parts, json_length, arrived, time.time())
        self._frames.append(frame)
        self._size += len(frame)
        self._accepted += 1

    async def close(self) -> None:
        """Hand over what there is, and wait until the sender has sent it or given up, some seconds at the most."""
        self._closing = True
        if self._restart is not None:
            self._restart.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                while self._frames and self._stdin >= 0:
                    self._flush()
                    await asyncio.sleep(_FLUSH_S)
                self._close_stdin()
                if self._process is not None:
                    await self._gone.wait()
        if self._process is not None:
            self._ended()
        if self._timer is not None:
            self._timer.cancel()
        self._publish()
        if left := self._waiting():
            _logger.warning("payload log: %d events never reached the sender", left)

    def _metadata(self, headers: Headers) -> bytes:
        found: dict[str, list[str]] = {}
        for name, value in headers:
            if name in self._wanted:
                found.setdefault(self._wanted[name], []).append(value.decode("utf-8", "replace"))
        return go_json(found).encode("utf-8", "replace")

    def _spawn(self) -> None:
        self._restart = None
        self._started = self._loop.time()
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        try:
            self._process = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd="/",
                env=os.environ | {"PYTHONPATH": path},
                bufsize=0,
            )
        except OSError as error:
            _logger.warning("payload log: its sender cannot be started: %s", error)
            self._start_again()
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = os.dup(self._process.stdin.fileno()), os.dup(self._process.stdout.fileno())
        self._process.stdin.close()
        self._process.stdout.close()
        with contextlib.suppress(OSError):  # beyond what this user may have; a smaller one will do
            fcntl.fcntl(self._stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stdout, False)
        self._gone.clear()
        self._handed, self._reported, self._report, self._offset = 0, Counter(), b"", 0
        self._frames.appendleft(self._first)
        self._size += len(self._first)
        self._loop.add_reader(self._stdout, self._hear)
        self._flush()

    def _flush(self) -> None:
        """Write what the pipe takes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # full, or its end is about to be heard
            while self._frames and self._stdin >= 0:
                batch: list[bytes | memoryview] = list(itertools.islice(self._frames, _FRAMES_AT_ONCE))
                batch[0] = memoryview(batch[0])[self._offset :]
                self._written(os.writev(self._stdin, batch))
        self._publish()
        if self._frames and self._stdin >= 0 and not self._closing:
            self._timer = self._loop.call_later(_FLUSH_S, self._flush)

    def _written(self, number: int) -> None:
        self._offset += number
        while self._frames and self._offset >= len(self._frames[0]):
            frame = self._frames.popleft()
            self._offset -= len(frame)
            self._size -= len(frame)
            self._handed += frame is not self._first

    def _publish(self) -> None:
        for outcome, number in (("sampled_out", self._sampled_out), ("dropped_queue_full", self._overflowed)):
            if number:
                for kind in self.log.kinds:
                    self._counters.add(kind, outcome, number)
        self._sampled_out = self._overflowed = 0
        self._counters.waiting(self._waiting(), self._size + self._sender_bytes)

    def _waiting(self) -> int:
        return self._accepted * len(self.log.kinds) - self._settled

    def _hear(self) -> None:
        """Read the sender's counts; their end is its own."""
        try:
            data = os.read(self._stdout, 65536)
        except BlockingIOError:
            return
        if not data:
            self._ended()
            return
        *lines, self._report = (self._report + data).split(b"\n")
        if lines:
            told = json.loads(lines[-1])
            self._sender_bytes = told["bytes"]
            for kind, outcome, number in told["outcomes"]:
                self._settle(kind, outcome, number - self._reported[kind, outcome])
                self._reported[kind, outcome] = number
            self._publish()

    def _settle(self, kind: str, outcome: str, number: int) -> None:
        if number:
            self._counters.add(kind, outcome, number)
            self._settled += number

    def _ended(self) -> None:
        """The sender is no more: count what it had, and start another."""
        assert self._process is not None
        self._loop.remove_reader(self._stdout)
        self._close_stdin()
        os.close(self._stdout)
        self._stdout = -1
        self._process.kill()
        code = self._process.wait()
        self._process, self._sender_bytes = None, 0
        for kind in self.log.kinds:
            done = sum(number for (one, _), number in self._reported.items() if one == kind)
            self._settle(kind, "dropped_sender_died", self._handed - done)
        if self._frames and self._frames[0] is self._first:
            self._frames.popleft()
            self._size -= len(self._first)
        self._offset = 0
        self._gone.set()
        if not self._closing:
            _logger.warning("payload log: its sender ended with %d; it is started again", code)
            self._start_again()

    def _start_again(self) -> None:
        if self._loop.time() - self._started > _LASTED_S:
            self._pause = _SHORTEST_PAUSE_S
        self._restart = self._loop.call_later(self._pause, self._spawn)
        self._pause = min(_LONGEST_PAUSE_S, self._pause * 2)

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1


def sampled(event_id: bytes, below: int) -> bool:
    """Whether a prediction is logged: by its id, so that everyone decides alike; by chance where it has none.

    `below` is the share times 2 to the 64th.
    """
    if not event_id:
        return random.getrandbits(64) < below
    return int.from_bytes(hashlib.blake2b(event_id, digest_size=8).digest(), "big") < below
