from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.core.fake_kfp import FakeKfp, run_json, serving
from tests.tui import rig
from tests.tui.cluster import FakePrometheus, Namespace
from tests.tui.rig import column, loaded, picture, sees, table, text, until
from tui.app import Monitor
from tui.run import RunScreen
from tui.service import ServiceScreen

TABLE = "events-table"
RUN = "aaaaaaaa-0000-4000-8000-000000000000"


@pytest.fixture
def fake() -> Iterator[FakeKfp]:
    failed = run_json(RUN, "nightly", "FAILED", error={"message": "no disk"}, created_at="2026-11-20T00:59:00Z",
                      finished_at="2026-11-20T01:30:00Z")  # fmt: skip
    with serving(FakeKfp(runs=[failed])) as server:
        yield server


@pytest.fixture
def make(space: Namespace, fake: FakeKfp, tmp_path: Path) -> Callable[[], Monitor]:
    return lambda: rig.monitor(tmp_path, space.settings | {"kfp_endpoint": fake.url, "namespace": space.name})


async def test_runs_releases_acts_and_events_stand_in_one_timeline(
    make: Callable[[], Monitor], space: Namespace
) -> None:
    space.put("churn", 20)
    space.remember("churn")
    space.happened("churn", "BackOff", "[red]crashed[/] \x1b[31mtwice", "Warning")
    async with make().run_test(size=(160, 40), notifications=True) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: loaded(pilot, TABLE)() and table(pilot, TABLE).row_count == 7)
        assert [line.split()[-1] for line in column(pilot, TABLE, "kind")] == [
            "event",
            "act",
            "release",
            "run",
            "release",
            "run",
            "act",
        ]
        shown = picture(pilot)
        assert "BackOff: [red]crashed[/] twice" in shown
        assert "set-traffic to 20 % of v2: done" in shown
        assert "release of v1, promoted since: why 1" in shown
        assert "failed: no disk" in shown
        assert "v0 denied: it was slow" in shown
        assert "ada" in shown
        await pilot.press("s")
        await until(pilot, lambda: column(pilot, TABLE, "kind")[0] == "✗ run")
        # The cursor stays with the row that it was on: which source has answered first decides which that is.
        table(pilot, TABLE).move_to(table(pilot, TABLE).keys[0])
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await pilot.press("escape", "slash", *"crashed", "enter", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, ServiceScreen))


async def test_a_new_event_comes_by_itself(make: Callable[[], Monitor], space: Namespace) -> None:
    async with make().run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("4")
        await sees(pilot, "nightly")
        await sees(pilot, "k8s live")
        space.happened("other", "Created", "it is there")
        await sees(pilot, "Created: it is there")


async def test_alerts_and_what_they_are_about_stand_in_the_timeline(
    space: Namespace, fake: FakeKfp, metrics: FakePrometheus, tmp_path: Path
) -> None:
    space.put("churn")
    metrics.alerts = [
        {"alertname": "Slow", "namespace": space.name, "service": "churn-predictor", "severity": "critical"}
    ]
    given = space.settings | {"kfp_endpoint": fake.url, "prometheus_url": metrics.url}
    async with rig.monitor(tmp_path, given).run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("4")
        await sees(pilot, "Slow fires")
        (key,) = [key for key in table(pilot, TABLE).keys if key.startswith("alert/")]
        assert text(table(pilot, TABLE), key, "kind") == "✗ alert"
        table(pilot, TABLE).move_to(key)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, ServiceScreen))
