"""Whose turn it is: one task a key at a time, asked for by events and by clocks, tried again later where it failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sandbox import steady
from sandbox.errors import SandboxError
from sandbox.kserve.following import Key

_RETRY_FIRST_S, _RETRY_LAST_S = 0.05, 2.0
# A moment that has come, but has changed nothing yet (a server that is still draining), is come back to after so long.
_AGAIN_S = 0.2

_logger = logging.getLogger(__name__)


@dataclass
class _Turn:
    again: bool = False
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    pause: float = _RETRY_FIRST_S


class Turns:
    """Calls `work(key)` for every key that was asked for since it began, never twice at once for one key.

    `work` gives the moment, by `steady.now`, at which it wants to be called again, not at once though it has passed, or
    None; it gives SOON for what has to be tried again after a pause that grows.
    """

    SOON = 0.0

    def __init__(self, work: Callable[[Key], Awaitable[float | None]]) -> None:
        self._work = work
        self._turns: dict[Key, _Turn] = {}

    def ask(self, key: Key) -> None:
        """`key` has changed."""
        turn = self._turns.setdefault(key, _Turn())
        turn.again = True
        if turn.task is None or turn.task.done():
            turn.task = asyncio.create_task(self._run(key, turn), name="/".join(key))

    def close(self) -> None:
        """Stop everything where it is."""
        for turn in self._turns.values():
            if turn.timer is not None:
                turn.timer.cancel()
            if turn.task is not None:
                turn.task.cancel()

    async def _run(self, key: Key, turn: _Turn) -> None:
        while turn.again:
            turn.again = False
            if turn.timer is not None:
                turn.timer.cancel()
                turn.timer = None
            try:
                moment = await self._work(key)
            except SandboxError as error:
                _logger.warning("%s/%s: %s; again in %.2f s", *key, error.message, turn.pause)
                moment = self.SOON
            except Exception:  # the outermost loop of this key
                _logger.exception("%s/%s", *key)
                moment = self.SOON
            self._wake(key, turn, moment)
        if turn.timer is None:
            del self._turns[key]

    def _wake(self, key: Key, turn: _Turn, moment: float | None) -> None:
        if moment is None:
            turn.pause = _RETRY_FIRST_S
            return
        if moment == self.SOON:
            delay, turn.pause = turn.pause, min(turn.pause * 2, _RETRY_LAST_S)
        else:
            delay, turn.pause = max(_AGAIN_S, moment - steady.now()), _RETRY_FIRST_S
        turn.timer = asyncio.get_running_loop().call_later(delay, self.ask, key)
