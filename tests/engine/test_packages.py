"""The environments of `packages_to_install`: who waits for one holds nobody up, and old ones go."""

# ruff: noqa: I002 -- kfp reads the types of components and pipelines from live annotations
import asyncio
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from sandbox.engine import lightweight, packages
from sandbox.engine.attempts import Slot
from sandbox.engine.step import cores
from tests.engine import steps


@dsl.component(base_image="python:3.11", packages_to_install=["kanary-never-installed"])
def waits(item: int) -> int:
    return item


@dsl.pipeline(name="waits-for-packages")
def waiting() -> None:
    with dsl.ParallelFor(list(range(cores()))) as item:
        waits(item=item)
    steps.text(value="runs meanwhile").set_caching_options(False)


def test_steps_that_wait_for_their_packages_keep_no_other_from_running(
    engine: Any, compiled: Callable[[Any], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    async def never(*_: Any) -> bool:
        begun.append(1)
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    monkeypatch.setattr(packages, "_make", never)
    run_id = engine.submit(compiled(waiting))
    engine.until(run_id, lambda outcome: begun and outcome.states().get("text") == "SUCCEEDED")
    engine.call(engine.engine.terminate(run_id))
    outcome = engine.finish(run_id)
    assert outcome.run.state == "CANCELED"
    assert {state for path, state in outcome.steps().items() if "waits" in path} == {"CANCELED"}


async def test_a_slot_that_is_lent_is_taken_back_and_given_up_once() -> None:
    slots = asyncio.Semaphore(1)
    async with Slot(slots) as slot:
        assert slots.locked()
        async with slot.lent():
            assert not slots.locked()
        assert slots.locked()
        with pytest.raises(OSError, match="no room"):
            async with slot.lent():
                raise OSError("no room")
        assert not slots.locked(), "who ends with an error needs none"
    await slots.acquire()
    assert slots.locked(), "given up once, not twice"


def environment(folder: Path, name: str, days_ago: float, size: int = 0) -> str:
    """An environment that was used so long before the day 100."""
    place = folder / name
    place.mkdir()
    (place / "module.py").write_bytes(b"x" * size)
    (place / "installed").write_text("package", encoding="utf-8")
    moment = (100 - days_ago) * 86_400
    os.utime(place / "installed", (moment, moment))
    return name


def test_environments_that_nobody_asked_for_lately_go(tmp_path: Path) -> None:
    environment(tmp_path, "young", 1)
    old, used = environment(tmp_path, "old", 31), environment(tmp_path, "used", 99)
    (tmp_path / "half-made").mkdir()
    (tmp_path / "being-made").mkdir()
    gone = packages.outdated(tmp_path, {used, "being-made"}, now=100 * 86_400)
    assert set(gone) == {old, "half-made"}


def test_beyond_the_room_for_all_the_oldest_environments_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MOST_BYTES", 3 * 2**20)
    for days in range(5):
        environment(tmp_path, f"{days}-days", days, 2**20)
    gone = packages.outdated(tmp_path, {"4-days"}, now=100 * 86_400)
    assert set(gone) == {"1-days", "2-days", "3-days"}, "what is used counts, and stays"
    assert packages.outdated(tmp_path / "nowhere", set(), now=0.0) == []


def test_what_is_being_made_beside_may_change_while_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, used = environment(tmp_path, "old", 31), environment(tmp_path, "used", 1)
    for name in ("one", "another"):
        (tmp_path / used / name).mkdir()
        (tmp_path / used / name / "module.py").touch()
    look = Path.lstat

    def goes(path: Path) -> os.stat_result:
        if path.parent.name in ("one", "another"):
            shutil.rmtree(path.parent.with_name("one" if path.parent.name == "another" else "another"), True)
        return look(path)

    monkeypatch.setattr(Path, "lstat", goes)
    assert packages.outdated(tmp_path, {used}, now=100 * 86_400) == [old]


async def test_an_environment_that_is_asked_for_while_it_goes_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = lightweight.Lightweight("f", "", "python:3.11", (), 0, (), packages=("package",))
    key = environment(tmp_path, packages.key_of(asked.packages, ()), days_ago=31)
    stamp, under_way, go_on = tmp_path / key / "installed", threading.Event(), threading.Event()
    delete = shutil.rmtree

    def slow(folder: Path, ignore_errors: bool) -> None:
        under_way.set()
        go_on.wait(60)
        delete(folder, ignore_errors)

    async def make(folder: Path, *_: Any) -> bool:
        if not stamp.exists():
            folder.mkdir()
            stamp.touch()
        return True

    monkeypatch.setattr(shutil, "rmtree", slow)
    monkeypatch.setattr(packages, "_make", make)
    environments = packages.Environments(tmp_path, tmp_path / "log", {})
    going = asyncio.create_task(environments._remove(key))
    await asyncio.to_thread(under_way.wait, 60)

    async def use() -> bool:
        async with environments.parent(asked, tmp_path / "log"):
            await going
            return stamp.exists()

    using = asyncio.create_task(use())
    for _ in range(20):  # it has come as far as it comes
        await asyncio.sleep(0.005)
    go_on.set()
    assert await using
