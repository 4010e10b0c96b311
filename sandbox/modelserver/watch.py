"""Probes one running model server as a kubelet would: readiness, and liveness where the container has such a probe."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from sandbox.modelserver import probe
from sandbox.modelserver import spec as states
from sandbox.modelserver.spec import Spec, Status

# Until it is first ready, a server is asked more often than its probe's period: a new revision is wanted soon.
_FIRST_S, _LAST_S = 0.01, 0.05

Tell = Callable[..., None]


async def watch(spec: Spec, status: Status, ended: asyncio.Task[Any], tell: Tell) -> str:
    """Probe until the process has ended, telling state and readiness; why it must end, "" where it ended by itself.

    `status` is what is known at the beginning: a server that was ready is not asked whether it has started.
    """
    loops = [asyncio.create_task(_readiness(spec, status, ended, tell))]
    if spec.liveness is not None:
        loops.append(asyncio.create_task(_liveness(spec, status.port, ended)))
    try:
        done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for loop in loops:
            loop.cancel()


async def _readiness(spec: Spec, status: Status, ended: asyncio.Task[Any], tell: Tell) -> str:
    if not status.ready and (late := await _start(spec, status.port, ended)):
        return late
    missed, passed = 0, probe.success_threshold(spec.probe)
    while not ended.done():
        if passed >= probe.success_threshold(spec.probe):
            tell(state=states.READY, ready=True)
        elif missed == probe.failure_threshold(spec.probe):
            tell(state=states.STARTING, ready=False)
        await asyncio.wait([ended], timeout=probe.period(spec.probe))
        if await probe.is_ready(status.port, spec.port, spec.probe):
            missed, passed = 0, passed + 1
        else:
            missed, passed = missed + 1, 0
    return ""


async def _start(spec: Spec, port: int, ended: asyncio.Task[Any]) -> str:
    deadline = time.monotonic() + spec.start_deadline_s
    pause = _FIRST_S
    while not ended.done() and not await probe.is_ready(port, spec.port, spec.probe):
        if time.monotonic() > deadline:
            return f"was not ready within {spec.start_deadline_s:g} s"
        await asyncio.wait([ended], timeout=pause)
        pause = min(pause * 1.5, _LAST_S)
    return ""


async def _liveness(spec: Spec, port: int, ended: asyncio.Task[Any]) -> str:
    await asyncio.wait([ended], timeout=probe.initial_delay(spec.liveness))
    missed = 0
    while not ended.done():
        missed = 0 if await probe.is_ready(port, spec.port, spec.liveness) else missed + 1
        if missed >= probe.failure_threshold(spec.liveness) and not ended.done():
            return f"failed its liveness probe, {missed} times in a row\n"
        await asyncio.wait([ended], timeout=probe.period(spec.liveness))
    return ""
