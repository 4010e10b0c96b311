"""What the router holds for draining is what the gateway said last; what Prometheus is told is what is in force."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sandbox.gateway.description import Revision, RevisionKey, Service
from sandbox.gateway.gateway import Applied
from sandbox.kserve import router
from sandbox.kserve.router import Router
from sandbox.prometheus.config import targets_file, write_targets
from tests.waiting import wait_for

LATE = RevisionKey("n", "m", "m-predictor-00001")


class SlowGateway:
    """Nothing drains when it is asked; before that answer is heard, a revision is taken out of traffic."""

    def __init__(self) -> None:
        self.asked, self.answer = threading.Event(), threading.Event()

    def sweep(self) -> tuple[RevisionKey, ...]:
        if self.asked.is_set():
            return (LATE,)
        self.asked.set()
        assert self.answer.wait(60)
        return ()

    def apply(self, services: Any) -> Applied:
        return Applied("1", True, "", 0.0, (LATE,), ())

    def close(self) -> None:
        pass


async def test_an_older_answer_does_not_end_the_draining_of_what_came_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "_SWEEP_S", 0.01)
    gateway, routes = SlowGateway(), Router(tmp_path)
    monkeypatch.setattr(routes, "_gateway", gateway)
    monkeypatch.setattr(routes, "_connected", lambda: gateway)
    routes.draining = frozenset({("n", "another")})
    heard: list[Sequence[RevisionKey]] = []
    drains = routes._drains

    def hear(keys: Sequence[RevisionKey]) -> None:
        drains(keys)
        heard.append(keys)

    monkeypatch.setattr(routes, "_drains", hear)
    sweeping = asyncio.create_task(routes.sweep())
    try:
        await asyncio.to_thread(wait_for, gateway.asked.is_set, "it is asked what drains")
        removing = asyncio.create_task(routes.put(("n", "m"), ()))
        for _ in range(20):  # it has come as far as it comes
            await asyncio.sleep(0.005)
        gateway.answer.set()
        assert await removing
        while () not in heard:
            await asyncio.sleep(0.005)
        assert routes.draining == {("n", LATE.revision)}
    finally:
        gateway.answer.set()
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping


class Obedient:
    """Does what it is told."""

    def apply(self, services: Any) -> Applied:
        return Applied("1", True, "", 0.0, (), ())


async def test_targets_that_could_not_be_written_are_written_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(home: Path, targets: Any) -> None:
        raise OSError("no space left on the device")

    routes, described = Router(tmp_path), (Service("n", "m", (Revision("m-predictor-00001", 8001, weight=100),)),)
    monkeypatch.setattr(routes, "_connected", Obedient)
    monkeypatch.setattr(router, "write_targets", full)
    with pytest.raises(OSError, match="no space"):
        await routes.put(("n", "m"), described)
    monkeypatch.setattr(router, "write_targets", write_targets)
    assert await routes.put(("n", "m"), described)
    told = json.loads(targets_file(tmp_path).read_text(encoding="utf-8"))
    assert [one["labels"]["revision"] for one in told] == ["m-predictor-00001"]
