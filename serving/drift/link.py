"""The process that runs alibi-detect, as the service sees it: started, asked, replaced when it dies."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kanary.errors import KanaryError
from serving.drift.frames import Array, Message, pack, read

_log = logging.getLogger(__name__)
_PAUSE_S = 1.0


class WorkerDied(KanaryError):
    """The process ended, or did not answer in time, while it was at something."""


@dataclass
class Link:
    """`ready` is set once it has imported everything. `deaths` counts those after that, found when it is next asked at
    the latest, and answers that never came."""

    timeout_s: float = 300.0
    deaths: int = 0
    _process: asyncio.subprocess.Process | None = None
    _counted: asyncio.subprocess.Process | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def ready(self) -> bool:
        """Whether it can be asked now."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it, and wait for its imports, some ten seconds. KanaryError where it cannot run at all."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "serving.drift.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
            limit=1 << 20,
        )
        answer = await self._read(process)
        if answer is None:
            status = await process.wait()
            raise KanaryError(
                f"the detectors' process ended with status {status} before it was ready",
                'its last words are above; is alibi-detect there? pip install "kanary[drift]"',
            )
        self._process = process

    async def ask(self, told: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> Message:
        """Its answer; it is started where it is not there.

        Raises WorkerDied (the next call starts another one), and KanaryError with what it says.
        """
        async with self._turn:
            if not self.ready:
                await self._again()
            process = self._process
            assert process is not None
            assert process.stdin is not None
            try:
                async with asyncio.timeout(self.timeout_s):
                    process.stdin.writelines(pack(Message(told, arrays or {})))
                    await process.stdin.drain()
                    answer = await self._read(process)
            except (OSError, TimeoutError, asyncio.CancelledError) as error:
                process.kill()
                await process.wait()
                self._died()
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise WorkerDied(f"the detectors' process gave no answer: {error!r}") from None
            if answer is None:
                await process.wait()
                self._died()
                raise WorkerDied(f"the detectors' process ended ({process.returncode}) in the middle of a check")
        if "error" in answer.told:
            raise KanaryError(str(answer.told["error"]))
        return answer

    async def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _again(self) -> None:
        if self._process is not None:
            self._died()
            await asyncio.sleep(_PAUSE_S)
            _log.warning("starting the detectors' process again")
        try:
            await self.start()
        except KanaryError as error:
            raise WorkerDied(error.message) from None

    def _died(self) -> None:
        """Count the death of the process, once: while it was asked, or between two questions."""
        if self._process is not self._counted:
            self._counted = self._process
            self.deaths += 1

    async def _read(self, process: asyncio.subprocess.Process) -> Message | None:
        """One message; None where the process has ended."""
        stream = process.stdout
        assert stream is not None
        parts: list[bytes] = []
        try:
            head = await stream.readexactly(8)
            parts = [head, await stream.readexactly(int.from_bytes(head, "little"))]
        except asyncio.IncompleteReadError:
            return None
        at = iter(parts)
        return read(lambda size: next(at))
