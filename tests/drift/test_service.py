"""What the detector service does beside what, and after what, with workers that answer when the test wants it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.drift.coverage import Counted
from serving.drift.frames import Array, Message
from serving.drift.http import Request
from serving.drift.link import Link
from serving.drift.service import Service, service
from serving.drift.settings import settings
from serving.drift.truth import Outcome
from tests.drift.stream import About, headers, request, rows, write_model

BUSY, CALM = About(), About(revision="market-predictor-00002")


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


def watching(folder: Path) -> Service:
    """A service with windows of 20 rows, whose worker finds nothing."""
    write_model(folder / "releases" / "market" / "v1", rows(100, seed=0))
    words = ["--home", str(folder / "home"), "--releases", str(folder / "releases"), "--window_rows", "20"]
    made = service(settings([*words, "--labelled_rows", "50"], {}))
    made.checks.link = Answering()
    return made


def take(made: Service, prefix: str, about: About = BUSY) -> None:
    """Take the requests of a window."""
    for number, row in enumerate(rows(20, seed=1)):
        told = headers(about, "request", f"{prefix}{number}")
        found = {name.lower().encode(): value.encode() for name, value in told.items()}
        assert made.intake.event(Request("POST", b"/", found, request(row))).status == 204


def test_windows_are_checked_while_the_tests_of_labelled_rows_are_calibrated(tmp_path: Path) -> None:
    made, labels = watching(tmp_path), Calibrating()
    made.checks.labels = labels

    async def both() -> int:
        labels.asked = asyncio.Event()
        take(made, "first")
        ((source, stream),) = made.watch.streams.items()
        outcomes = [Outcome(number % 5 > 0, 0.8) for number in range(50)]
        made.watch.truths[source].baseline, made.watch.truths[source].fresh = outcomes, list(outcomes)
        loops = [asyncio.create_task(one) for one in (made.check(), made.test_labels())]
        async with asyncio.timeout(60):
            await labels.asked.wait()
            take(made, "second")
            while stream.checked < 2:
                await asyncio.sleep(0.01)
        for one in loops:
            one.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        return stream.checked

    assert asyncio.run(both()) == 2
    made.watch.close()


def test_a_window_that_is_full_before_the_proxy_is_scraped_waits_for_its_count(tmp_path: Path) -> None:
    made, now = watching(tmp_path), time.time()
    arm = (BUSY.namespace, BUSY.service, BUSY.revision)
    made.intake.counted(Counted(now - 1, {arm: 7.0}))
    take(made, "few")
    (stream,) = made.watch.streams.values()
    stream.close_if(now, made.settings.rule)

    async def checked(at: float, **counts: float) -> bool:
        made.intake.counted(Counted(at, {arm: counts["requests"]}))
        return await made.checks.turn(at)

    assert not asyncio.run(checked(now + 5, requests=7.0))  # of a scrape before the window
    assert asyncio.run(checked(now + 10, requests=27.0))
    assert stream.result is not None
    assert stream.result.coverage == 1.0
    # Of a proxy that counts nothing at all nobody can tell, and nobody waits for ever.
    take(made, "more")
    stream.close_if(now + 11, made.settings.rule)
    assert not asyncio.run(checked(now + 15, requests=27.0))
    assert asyncio.run(checked(now + 80, requests=27.0))
    assert stream.checked == 2
    assert stream.result.coverage is None
    made.watch.close()


def test_a_busy_stream_keeps_no_other_one_from_its_turn(tmp_path: Path) -> None:
    made = watching(tmp_path)
    rule = made.settings.rule
    for at, (prefix, about) in enumerate([("a", BUSY), ("b", CALM), ("c", BUSY)]):
        take(made, prefix, about)
        for stream in made.watch.streams.values():
            stream.close_if(1000.0 + at, rule)

    async def turns() -> list[tuple[int, ...]]:
        found = []
        while await made.checks.turn(2000.0):
            found.append(tuple(stream.checked for stream in made.watch.streams.values()))
        return found

    assert asyncio.run(turns()) == [(1, 0), (1, 1), (2, 1)]
    made.watch.close()
