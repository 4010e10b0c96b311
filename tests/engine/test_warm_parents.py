"""A worker that is forked from a warm parent cleans up after itself, and not after what its parent had imported."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import psutil
import pytest

from sandbox.forkserver import ForkServer, Job

_PRELOADED = """
import weakref

class Thing:
    pass

THING = Thing()
weakref.finalize(THING, print, "cleaned up after the parent")
"""
_STEP = """
import atexit
import tempfile

KEPT = tempfile.TemporaryDirectory(dir=".")
atexit.register(print, "the step's exit function ran")
print("the step ran")
"""


@pytest.mark.asyncio
async def test_a_worker_ends_what_it_began_and_not_what_its_parent_imported(tmp_path: Path) -> None:
    modules, work = tmp_path / "modules", tmp_path / "work"
    modules.mkdir()
    work.mkdir()
    (modules / "warm_thing.py").write_text(_PRELOADED, encoding="utf-8")
    (modules / "one_step.py").write_text(_STEP, encoding="utf-8")
    path = os.pathsep.join([str(modules), *filter(None, [os.environ.get("PYTHONPATH")])])
    parent = ForkServer(["warm_thing"], tmp_path / "parent.log", {"PYTHONPATH": path})
    try:
        await parent.start()
        worker = await parent.run(Job("one_step", [], work, tmp_path / "log"))
        assert (await worker.wait()).code == 0
    finally:
        await parent.stop()
    told = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert told[:2] == ["the step ran", "the step's exit function ran"]
    assert not any("parent" in line for line in told)
    assert list(work.iterdir()) == [], "the step's temporary folder is gone"


@pytest.mark.asyncio
async def test_a_worker_that_nobody_waits_for_any_more_ends(tmp_path: Path) -> None:
    parent = ForkServer([], tmp_path / "parent.log")
    try:
        await parent.start()
        given_up = asyncio.create_task(parent.run(Job("signal:pause", [], tmp_path, tmp_path / "log")))
        await asyncio.sleep(0)  # it has asked, and not heard yet
        given_up.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await given_up
        await (await parent.run(Job("gc:collect", [], tmp_path, tmp_path / "log"))).wait()  # which is forked after it
        async with asyncio.timeout(60):
            while psutil.Process(parent.pid).children():
                await asyncio.sleep(0.01)
    finally:
        await parent.stop()
