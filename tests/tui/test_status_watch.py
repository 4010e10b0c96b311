"""`kanary status --watch`: a block or a line for each change, and one place on a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kanary.commands.status_watch import follow, sources
from kanary.errors import KanaryError
from tests.core.fake_kfp import FakeKfp, run_json, serving
from tests.tui import rig
from tests.tui.cluster import FakePrometheus, Namespace
from tests.tui.drift import Column, FakeDrift, Watched

ROOT = Path(__file__).parents[2]
RUN = "aaaaaaaa-0000-4000-8000-000000000000"


@pytest.fixture
def fake() -> Iterator[FakeKfp]:
    failed = run_json(RUN, "nightly", "FAILED", error={"message": "no \x1b[31mdisk"})
    with serving(FakeKfp(runs=[failed])) as server:
        yield server


@pytest.fixture
def given(space: Namespace, fake: FakeKfp, metrics: FakePrometheus) -> dict[str, Any]:
    return space.settings | {"kfp_endpoint": fake.url, "prometheus_url": metrics.url}


class Shown(list[str]):
    """What was shown so far."""

    async def until(self, condition: Callable[[str], bool], seconds: float = 40) -> str:
        """The first of them that is so."""
        deadline = time.monotonic() + seconds
        while not (found := [text for text in self if condition(text)]):
            assert time.monotonic() < deadline, "\n\n".join(self)
            await asyncio.sleep(0.02)
        return found[0]


@asynccontextmanager
async def watching(folder: Path, given: dict[str, Any], service: str = "", **more: bool) -> AsyncIterator[Shown]:
    made, shown = rig.settings(folder, given), Shown()
    hub = sources(service, made, 0.2)
    task = asyncio.create_task(follow(hub, service, shown.append, **more))
    try:
        yield shown
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_all_services_and_failing_pipelines_are_told_and_each_change_once(
    given: dict[str, Any], space: Namespace, fake: FakeKfp, tmp_path: Path
) -> None:
    space.put("calm")
    space.put("churn", 20)
    space.remember("churn")
    async with watching(tmp_path, given) as shown:
        first = await shown.until(lambda text: "nightly" in text and "churn" in text)
        assert "1 pipeline failing, 1 canary out" in first
        assert "no disk" in first
        assert "\x1b" not in first
        rows = {line.split()[1]: line.split() for line in first.splitlines() if line.startswith(("canary", "ready"))}
        assert rows["churn"][:6] == ["canary", "churn", "v1", "v2", "20", "%"]
        assert rows["calm"][0] == "ready"
        space.status("churn", 20, 66)
        await shown.until(lambda text: "66 % of 20 %" in text)
        space.put("churn")
        await shown.until(lambda text: "canary out" not in text)
        fake.run(RUN)["state"] = "SUCCEEDED"
        await shown.until(lambda text: "nothing needs you" in text)
        assert not any(one.split(maxsplit=1)[1] == two.split(maxsplit=1)[1] for one, two in pairwise(shown))


async def test_what_is_not_shown_is_not_asked_for(
    space: Namespace, given: dict[str, Any], fake: FakeKfp, metrics: FakePrometheus, tmp_path: Path
) -> None:
    space.put("churn", 20)
    metrics.rates = {"churn-predictor-00002": (2.0, 0.5, 3.0, 480.0)}
    async with watching(tmp_path, given, "churn", numbers=True) as shown:
        await shown.until(lambda text: "480 ms" in text)
        await shown.until(lambda text: sum("rq_completed" in query for query in metrics.asked) > 4)
    assert not [query for query in metrics.asked if "ALERTS" in query or "kanary_drift" in query]
    assert not fake.paths("GET")


async def test_a_line_of_json_holds_the_facts_and_the_numbers(
    given: dict[str, Any], space: Namespace, metrics: FakePrometheus, fake: FakeKfp, tmp_path: Path
) -> None:
    space.put("churn", 20)
    metrics.rates = {"churn-predictor-00001": (8.0, 2.0, 2.0, 12.0)}
    async with watching(tmp_path, given, as_lines=True) as shown:
        first = json.loads(await shown.until(lambda text: '"nightly"' in text))
        (service,) = first["services"]
        assert (service["name"], service["asked"], service["effective"]) == ("churn", 20, 20)
        assert first["runs"] == [
            {"id": RUN, "name": "nightly", "pipeline": "training-pipeline", "state": "FAILED",
             "tasks": "", "error": "no \x1b[31mdisk"}
        ]  # fmt: skip
        space.status("churn", 20, 50)
        changed = json.loads(await shown.until(lambda text: '"effective": 50' in text))
        assert changed["at"] > first["at"]
        fake.stop()
        lost = json.loads(await shown.until(lambda text: '"errors": {"kubeflow' in text))
        assert "cannot be reached" in lost["errors"]["kubeflow pipelines"]
        space.status("churn", 20, 30)
        numbers = json.loads(await shown.until(lambda text: '"effective": 30' in text))["numbers"]
        assert numbers[f"{space.name}/churn-predictor-00001"]["errors"] == 0.25


async def test_a_model_that_drifts_needs_somebody(
    given: dict[str, Any], space: Namespace, metrics: FakePrometheus, tmp_path: Path
) -> None:
    space.put("churn")
    metrics.drift = FakeDrift(
        [Watched(space.name, "churn", "churn-predictor-00001", "v1", [Column("age", 0)], "drift")]
    )
    async with watching(tmp_path, given) as shown:
        await shown.until(lambda text: "churn drifts" in text)


async def test_one_service_is_told_whole_and_without_the_runs(
    given: dict[str, Any], space: Namespace, metrics: FakePrometheus, tmp_path: Path
) -> None:
    space.put("churn", 20)
    space.put("calm")
    metrics.rates = {"churn-predictor-00002": (8.0, 2.0, 2.0, 480.0)}
    async with watching(tmp_path, given, "churn", numbers=True) as shown:
        told = await shown.until(lambda text: "480 ms" in text)
        assert "asked     20 %" in told
        assert "calm" not in told
        assert "nightly" not in told
        space.delete("churn")
        await shown.until(lambda text: "churn is gone" in text)


async def test_a_service_that_is_not_there_is_an_error_that_names_those_that_are(
    given: dict[str, Any], space: Namespace, tmp_path: Path
) -> None:
    space.put("churn")
    hub = sources("nope", rig.settings(tmp_path, given), 0.2)
    with pytest.raises(KanaryError, match="no InferenceService nope") as refused:
        await asyncio.wait_for(follow(hub, "nope", print), 40)
    assert "churn" in refused.value.hint


def test_a_terminal_shows_one_picture_in_one_place_and_an_interrupt_ends_it_quietly(
    given: dict[str, Any], space: Namespace, tmp_path: Path
) -> None:
    space.put("churn", 20)
    command = [sys.executable, "-P", "-m", "kanary", "status", "--watch", "--home", str(tmp_path / "home")]
    command += ["--endpoint", given["kfp_endpoint"], "--prometheus", given["prometheus_url"], "--refresh", "0.5"]
    command += ["--kubeconfig", given["kubeconfig"], "--namespace", space.name]
    ours, theirs = pty.openpty()
    environ = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "70", "LINES": "10"}
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, cwd=tmp_path)
    os.close(theirs)
    said = b""

    def read(wanted: bytes) -> None:
        nonlocal said
        deadline = time.monotonic() + 60
        while wanted not in said:
            assert time.monotonic() < deadline, said.decode()
            said += os.read(ours, 65536)

    try:
        read(b"20 %")
        said = b""
        space.status("churn", 20, 66)
        read(b"66 % of 20 %")
        assert b"A\r\x1b[J" in said  # up to where it began, and cleared from there
        assert all(len(part.split("\x1b")[0]) <= 70 for part in said.decode().split("\r\n"))
        child.send_signal(signal.SIGINT)
        assert child.wait(40) == 130
        with suppress(OSError):  # the terminal's other end is closed
            while rest := os.read(ours, 65536):
                said += rest
        assert b"Traceback" not in said
        assert said.rstrip().endswith(b"\x1b[?7h")
    finally:
        child.kill()
        child.wait()
        os.close(ours)
