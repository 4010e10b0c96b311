"""The detectors' process as the service sees it, with one that answers anything with nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serving.drift import link as module
from serving.drift.link import Link, WorkerDied

ANSWERING = """
import os, sys
from serving.drift.frames import Message, pack, read
while True:
    sys.stdout.buffer.writelines(pack(Message({})))
    sys.stdout.buffer.flush()
    message = read(sys.stdin.buffer.read)
    if message is None or "die" in message.told:
        os._exit(1)
"""


@pytest.fixture
async def link(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Link]:
    spawn = asyncio.create_subprocess_exec

    async def answering(*argv: str, **options: Any) -> asyncio.subprocess.Process:
        return await spawn(sys.executable, "-P", "-c", ANSWERING, **options)

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    monkeypatch.setattr(asyncio, "create_subprocess_exec", answering)
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)
    made = Link()
    await made.start()
    yield made
    await made.stop()


async def test_a_process_that_dies_at_a_question_is_counted_once_and_replaced(link: Link) -> None:
    with pytest.raises(WorkerDied):
        await link.ask({"die": True})
    assert link.deaths == 1
    await link.ask({})
    assert link.deaths == 1


async def test_a_process_that_dies_between_two_questions_is_counted_and_replaced(link: Link) -> None:
    await link.ask({})
    assert link.deaths == 0
    process = link._process
    assert process is not None
    process.kill()
    await process.wait()
    await link.ask({})
    assert link.deaths == 1
