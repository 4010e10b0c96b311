"""Waiting for a condition, with a deadline: what tests do instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Longer waits ask less often: asking, of a server mostly, takes processor time from what is waited for.
_SLOWER = 1.2
_SLOWEST_S = 0.1


def wait_for(condition: Callable[[], T], what: str, deadline: float = 60.0, every: float = 0.02) -> T:
    """The first true value that `condition` gives; fails the test, naming `what`, after `deadline` seconds.

    It is asked at once, `every` seconds at first, and up to ten times a second in the end.
    """
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {deadline:g} s (last: {value!r})")
        time.sleep(every)
        every = max(every, min(every * _SLOWER, _SLOWEST_S))
