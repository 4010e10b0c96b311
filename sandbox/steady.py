"""The time for deadlines that are written down as moments: steps of the wall clock do not move it."""

from __future__ import annotations

import time
from collections.abc import Callable


def steady(
    wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
) -> Callable[[], float]:
    """A clock in seconds of the epoch: the wall clock as it stands now, and from then on what has really passed.

    A machine that slept, or whose clock was set, then neither fails what is starting nor ends what it should keep.
    """
    offset = wall() - monotonic()
    return lambda: monotonic() + offset


now = steady()
"""This process's clock of that kind."""
