"""What is known of a source of data, and how it is asked again and again: the last good answer stays with its age.

At most one request is under way a source. Ends only when it is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from kanary.errors import KanaryError

T = TypeVar("T")
_LONGEST_PAUSE = 30.0  # seconds between two attempts while a server is away
FAULT = "A fault in the monitor; its log has it.", "See `kanary info` for where it is, and tell us."

log = logging.getLogger("kanary.snapshot")


@dataclass(frozen=True)
class Snapshot(Generic[T]):
    """What is known of a source. Times are seconds of the monotonic clock."""

    value: T | None = None
    at: float | None = None  # when the last good answer came
    error: str = ""  # why the newest attempt failed; "" where it did not
    hint: str = ""
    failures: int = 0  # in a row
    retry_at: float | None = None
    live: bool = False  # a watch is open: what is shown is how it is now


def succeeded(value: T, now: float, *, live: bool = False) -> Snapshot[T]:
    return Snapshot(value, now, live=live)


def failed(before: Snapshot[T], error: KanaryError | tuple[str, str], now: float, pause: float) -> Snapshot[T]:
    """The last good answer stays, with what went wrong since."""
    said, hint = error if isinstance(error, tuple) else (error.message, error.hint)
    # What was live until now is as old as this moment.
    at = now if before.live and before.value is not None else before.at
    return replace(before, at=at, error=said, hint=hint, failures=before.failures + 1, retry_at=now + pause, live=False)


def back_off(interval: float, failures: int, jitter: float) -> float:
    """Seconds until the next attempt: twice as long after each failure, at most 30, plus up to a quarter of jitter."""
    base: float = min(_LONGEST_PAUSE, max(1.0, interval) * 2 ** min(failures, 10))
    return base * (1 + jitter / 4)


def jittered(seconds: float) -> float:
    """About so many seconds: many monitors that began at once do not ask at once for ever."""
    return seconds * random.uniform(0.95, 1.05)


async def poll(
    fetch: Callable[[], Awaitable[T]],
    show: Callable[[Snapshot[T]], None],
    wake: asyncio.Event,
    interval: Callable[[T], float],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Fetches, shows, waits about `interval(answer)` seconds or until `wake` is set; for ever."""
    snapshot: Snapshot[T] = Snapshot()
    while True:
        wake.clear()
        try:
            value = await fetch()
        except KanaryError as error:
            pause = back_off(1.0, snapshot.failures, random.random())
            snapshot = failed(snapshot, error, clock(), pause)
        except Exception:  # the worker's outermost loop: a fault of ours must not end the monitor
            log.exception("asking a server failed in a way nobody foresaw")
            pause = back_off(1.0, snapshot.failures, random.random())
            snapshot = failed(snapshot, FAULT, clock(), pause)
        else:
            pause = jittered(interval(value))
            snapshot = succeeded(value, clock())
        show(snapshot)
        await sleep(wake, pause)


async def sleep(wake: asyncio.Event, seconds: float) -> None:
    """Waits so long, or until `wake` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):  # wait_for loses a cancellation that comes with the wake (Python 3.11)
            await wake.wait()
