"""A controller whose parts are away."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from sandbox.kserve.controller import Controller
from sandbox.modelserver.client import HostUnreachable
from sandbox.modelserver.spec import READY, Status


async def test_a_host_that_is_away_while_a_server_is_nobodys_does_not_end_the_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, asked = Controller(tmp_path), asyncio.Event()

    async def away(name: str) -> None:
        asked.set()
        raise HostUnreachable("no model server host answers")

    monkeypatch.setattr(controller._servers, "remove", away)
    controller._servers.statuses = {"ns/m": Status("ns/m", "uid", READY)}
    followed = (controller._services, controller._runtimes, controller._cluster_runtimes, controller._config_maps)
    for part in (*followed, controller._servers):
        part.synced.set()
    running = asyncio.create_task(controller.run())
    async with asyncio.timeout(60):
        await asked.wait()
    for _ in range(20):  # it has come as far as it comes
        await asyncio.sleep(0.005)
    assert not running.done()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await controller.close()
