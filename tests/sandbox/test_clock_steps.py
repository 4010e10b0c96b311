"""The wall clock is set, or the machine sleeps: nothing that is waited for comes hours late or at once."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox.kserve.turns import Turns
from sandbox.kubernetes.storage import Store
from sandbox.modelserver.server import Server
from sandbox.modelserver.spec import Spec
from sandbox.processes import process_of
from sandbox.steady import now, steady

HOUR = 3600.0


@dataclass
class Clocks:
    """Both clocks of a machine."""

    wall: float = 1_800_000_000.0
    monotonic: float = 50.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def set_wall_clock(monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + by)


@pytest.mark.parametrize("step", [HOUR, -HOUR, 24 * 365 * HOUR])
def test_the_clock_of_deadlines_does_not_follow_a_step(step: float) -> None:
    clocks = Clocks()
    clock = steady(lambda: clocks.wall, lambda: clocks.monotonic)
    assert clock() == 1_800_000_000.0
    clocks.wall += step
    assert clock() == 1_800_000_000.0
    clocks.pass_(7)
    assert clock() == 1_800_000_007.0


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_a_turn_comes_when_it_is_due_though_the_clock_was_set(
    step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[float] = []
    second = asyncio.Event()

    async def work(_: tuple[str, str]) -> float | None:
        came.append(time.monotonic())
        if len(came) == 1:
            moment = now() + 0.2
            set_wall_clock(monkeypatch, step)
            return moment
        second.set()
        return None

    turns = Turns(work)
    turns.ask(("ns", "m"))
    async with asyncio.timeout(60):
        await second.wait()
    assert came[1] - came[0] >= 0.19, "not at once either"
    turns.close()


async def test_a_moment_that_has_passed_and_changes_nothing_is_come_back_to_after_a_pause() -> None:
    came: list[float] = []
    enough = asyncio.Event()

    async def work(_: tuple[str, str]) -> float:
        came.append(time.monotonic())
        if len(came) == 3:
            enough.set()
        return now() - 5

    turns = Turns(work)
    turns.ask(("ns", "m"))
    async with asyncio.timeout(60):
        await enough.wait()
    turns.close()
    assert came[2] - came[0] >= 0.3


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_a_server_that_ends_is_started_again_as_soon_though_the_clock_was_set(
    step: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[float] = []
    enough = asyncio.Event()

    async def start(*_: Any) -> Any:
        starts.append(time.monotonic())
        set_wall_clock(monkeypatch, step)
        if len(starts) == 3:
            enough.set()
        raise FileNotFoundError("no such program")

    async def fetch(_: str) -> Path:
        raise AssertionError("there is nothing to fetch")

    server = Server(
        Spec("ns/m", "uid", ("x",)),
        tmp_path,
        start=start,
        fetch=fetch,
        free_port=lambda _: 1,
        changed=lambda: None,
    )
    server.start()
    async with asyncio.timeout(60):
        await enough.wait()
    assert starts[2] - starts[1] >= 0.4, "the back-off is kept"
    await server.stop(0)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_the_api_keeps_every_object_and_at_most_forgets_old_changes(
    step: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "state.sqlite", keep_changes=10, keep_seconds=60)
    for number in range(5):
        store.put("things", "n", f"a{number}", {"metadata": {"name": f"a{number}"}})
    set_wall_clock(monkeypatch, step)
    for number in range(30):
        store.put("things", "n", "b", {"metadata": {"name": "b"}, "spec": number})
    store.compact()
    assert store.get("things", "n", "a0") is not None
    assert 1 <= len(store.since(0)) <= 10, "the log is bounded in number whatever the clock says"
    store.close()
    again = Store(tmp_path / "state.sqlite")
    assert again.version >= 35
    again.close()


def test_a_process_is_the_same_one_though_the_clock_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    before = process_of(os.getpid())
    set_wall_clock(monkeypatch, -HOUR)
    assert process_of(os.getpid()) == before
