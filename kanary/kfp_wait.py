"""Waiting for a run's end: polls, tells what changed, and outlives a server that is away for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from kanary import kfp
from kanary.api import Client
from kanary.errors import ApiError, KanaryError, Unreachable
from kanary.kfp_types import Run

PATIENCE = 60.0  # seconds that a server may be away before waiting gives up
_SHORTEST, _LONGEST = 0.2, 5.0  # seconds between two looks


def wait(
    api: Client,
    run_id: str,
    on_change: Callable[[Run | None, Run], None] | None = None,
    *,
    deadline: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Run:
    """The run in its final state: SUCCEEDED, FAILED, SKIPPED or CANCELED.

    `on_change(before, after)` is told of every difference, the first look (before is None) included. `deadline` is
    in seconds from now; where it passes KanaryError is raised and the run goes on.
    """
    started = answered = clock()
    before: Run | None = None
    pause = _SHORTEST
    while True:
        try:
            run = api.call(kfp.get_run(run_id))
        except ApiError as error:
            if not _passing(error) or clock() - answered > PATIENCE:
                raise
        else:
            answered = clock()
            if run != before:
                pause = _SHORTEST
                if on_change is not None:
                    on_change(before, run)
            if run.final:
                return run
            before = run
        left = float("inf") if deadline is None else started + deadline - clock()
        if left <= 0:
            state = before.state if before else "in a state nobody could read"
            raise KanaryError(
                f"Run {run_id} is still {state} after {deadline:g} s.",
                f"It goes on: `kanary run {run_id} --watch` looks again, `kanary terminate {run_id}` ends it.",
            )
        sleep(min(pause, left))
        pause = min(pause * 1.5, _longest(before))


def _passing(error: ApiError) -> bool:
    return isinstance(error, Unreachable) or error.status in (429, 500, 502, 503, 504)


def _longest(run: Run | None) -> float:
    """A run that has been going for long is looked at more seldom."""
    age = (run.seconds(datetime.now(UTC)) if run else None) or 0.0
    return min(_LONGEST, max(_SHORTEST, age / 20))
