"""What runs beside what in the detector service, with workers that answer when the test wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.drift.frames import Array, Message
from serving.drift.http import Request
from serving.drift.link import Link
from serving.drift.service import service
from serving.drift.settings import settings
from serving.drift.truth import Outcome
from tests.drift.stream import About, headers, request, rows, write_model


class Answering(Link):
    """A worker that finds nothing."""

    async def ask(self, told: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> Message:
        return Message({"scores": [], "shapes": [], "outliers": 0, "outlier_rows": [], "online": {}})


class Calibrating(Link):
    """A worker that has been asked, and is not done."""

    asked: asyncio.Event

    async def ask(self, told: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> Message:
        self.asked.set()
        never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await never


def test_windows_are_checked_while_the_tests_of_labelled_rows_are_calibrated(tmp_path: Path) -> None:
    write_model(tmp_path / "releases" / "market" / "v1", rows(100, seed=0))
    words = ["--home", str(tmp_path / "home"), "--releases", str(tmp_path / "releases"), "--window_rows", "20"]
    made = service(settings([*words, "--labelled_rows", "50"], {}))
    made.checks.link, labels = Answering(), Calibrating()
    made.checks.labels = labels

    def take(prefix: str) -> None:
        for number, row in enumerate(rows(25, seed=1)):
            told = headers(About(), "request", f"{prefix}{number}")
            found = {name.lower().encode(): value.encode() for name, value in told.items()}
            assert made.intake.event(Request("POST", b"/", found, request(row))).status == 204

    async def both() -> int:
        labels.asked = asyncio.Event()
        take("first")
        ((source, stream),) = made.watch.streams.items()
        outcomes = [Outcome(number % 5 > 0, 0.8) for number in range(50)]
        made.watch.truths[source].baseline, made.watch.truths[source].fresh = outcomes, list(outcomes)
        loops = [asyncio.create_task(one) for one in (made.check(), made.test_labels())]
        async with asyncio.timeout(60):
            await labels.asked.wait()
            take("second")
            while stream.checked < 2:
                await asyncio.sleep(0.01)
        for one in loops:
            one.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        return stream.checked

    assert asyncio.run(both()) == 2
    made.watch.close()
