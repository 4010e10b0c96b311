"""One source of data, asked again and again: the last good answer is kept with its age, whatever happens next.

At most one request is under way. Runs inside a Textual worker; ends only when that is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from kanary.errors import KanaryError

T = TypeVar("T")
_LONGEST_PAUSE = 30.0  # seconds between two attempts while a server is away

log = logging.getLogger("kanary.tui")


@dataclass(frozen=True)
class Snapshot(Generic[T]):
    """What is known of a source. Times are seconds of the monotonic clock."""

    value: T | None = None
    at: float | None = None  # when the last good answer came
    error: str = ""  # why the newest attempt failed; "" where it did not
    hint: str = ""
    failures: int = 0  # in a row
    retry_at: float | None = None


def succeeded(value: T, now: float) -> Snapshot[T]:
    return Snapshot(value, now)


def failed(before: Snapshot[T], error: str, hint: str, now: float, pause: float) -> Snapshot[T]:
    """The last good answer stays, with what went wrong since."""
    return replace(before, error=error, hint=hint, failures=before.failures + 1, retry_at=now + pause)


def back_off(interval: float, failures: int, jitter: float) -> float:
    """Seconds until the next attempt: twice as long after each failure, at most 30, plus up to a quarter of jitter."""
    base: float = min(_LONGEST_PAUSE, max(1.0, interval) * 2 ** min(failures, 10))
    return base * (1 + jitter / 4)


async def poll(
    fetch: Callable[[], Awaitable[T]],
    show: Callable[[Snapshot[T]], Awaitable[None]],
    wake: asyncio.Event,
    interval: Callable[[T], float],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Fetches, shows, waits `interval(answer)` seconds or until `wake` is set; for ever."""
    snapshot: Snapshot[T] = Snapshot()
    while True:
        wake.clear()
        try:
            value = await fetch()
        except KanaryError as error:
            pause = back_off(1.0, snapshot.failures, random.random())
            snapshot = failed(snapshot, error.message, error.hint, clock(), pause)
        except Exception:  # the worker's outermost loop: a fault of ours must not end the monitor
            log.exception("asking a server failed in a way nobody foresaw")
            pause = back_off(1.0, snapshot.failures, random.random())
            snapshot = failed(snapshot, "A fault in the monitor; its log has it.", "See `kanary info`.", clock(), pause)
        else:
            pause = interval(value)
            snapshot = succeeded(value, clock())
        await show(snapshot)
        await _sleep(wake, pause)


async def _sleep(wake: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(wake.wait(), seconds)
    except TimeoutError:
        return
