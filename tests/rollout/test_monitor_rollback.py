"""The monitor on a real sandbox: an operator rolls a canary back, with keys that the screen shows, under load."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kanary import manifests, release
from kanary.snapshot_hub import Scope
from tests.rollout.conftest import Deploy, Models
from tests.rollout.rig import NAMESPACE, Service
from tests.tui.rig import SIZE, column, flat, loaded, picture, sees, settings, table, text, until
from tests.waiting import wait_for
from tui.app import Monitor

pytestmark = pytest.mark.sandbox


def monitor(service: Service, folder: Path) -> Monitor:
    endpoints = service.sandbox.endpoints
    given = {
        "kfp_endpoint": endpoints["kfp"]["url"],
        "prometheus_url": endpoints["prometheus"]["url"],
        "kubeconfig": str(service.sandbox.kubeconfig),
        "timeout": 30,
    }
    return Monitor(settings(folder, given), Scope(NAMESPACE, interval=1.0), theme="kanary")


async def test_six_visible_keys_roll_a_canary_back_and_the_last_request_to_it_is_told(
    service: Service, deployed: Deploy, models: Models, tmp_path: Path
) -> None:
    canary = deployed(models.v2, 40).revision
    pressed = 0

    with service.traffic(rate=40) as traffic:
        wait_for(lambda: traffic.summary().by_revision.get(canary, 0) > 10, "the canary answers")
        async with monitor(service, tmp_path).run_test(size=SIZE, notifications=True) as pilot:

            async def press(key: str, shown: str) -> None:
                nonlocal pressed
                await sees(pilot, shown)
                await pilot.press(key)
                pressed += 1

            await press("2", "2 Services")
            await until(pilot, loaded(pilot, "services-table"))
            # Other tests' services are calm: what has a canary stands first.
            await until(pilot, lambda: table(pilot, "services-table").selected == f"{NAMESPACE}/{service.name}")
            await press("R", "R Roll back")
            await sees(pilot, f"Roll back {service.name}?")
            await press("right", "←→ choose")
            await press("enter", "Enter press")
            assert pressed <= 6
            await sees(pilot, "gets no traffic", 60)
            await until(pilot, lambda: "the last request to 00002 is gone" in flat(pilot)
                        or "its last request is gone" in flat(pilot), 90)  # fmt: skip
            await until(pilot, lambda: f"✓ {service.name} is rolled back to v1" in flat(pilot), 90)
            counted = traffic.summary().by_revision.get(canary, 0)
            await pilot.press("escape")
            await until(
                pilot, lambda: text(table(pilot, "services-table"), f"{NAMESPACE}/{service.name}", "share") == ""
            )
        seen = traffic.summary().requests
        wait_for(lambda: traffic.summary().requests > seen + 40, "more requests")
        summary = traffic.stop()
    assert summary.by_revision.get(canary, 0) == counted, "no request has reached the canary since"
    assert summary.failed == 0
    document, state = service.document(), service.state()
    assert manifests.percent(document) is None
    assert manifests.model_digest(manifests.content(document)) == models.v1.digest
    assert release.denial(state, models.v2.digest) is not None


async def test_the_monitor_promotes_what_serves_and_reads_its_servers_log(
    service: Service, deployed: Deploy, models: Models, tmp_path: Path
) -> None:
    canary = deployed(models.v2, 40).revision
    async with monitor(service, tmp_path).run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, "services-table"))
        await until(pilot, lambda: table(pilot, "services-table").selected == f"{NAMESPACE}/{service.name}")
        await pilot.press("enter")
        await until(pilot, lambda: column(pilot, "revisions", "role") == ["stable", "canary"])
        await pilot.press("j", "tab", "tab", "tab")
        await until(pilot, lambda: "Log of 00002" in picture(pilot) and "serving" in flat(pilot), 60)
        await pilot.press("P", "right", "enter")
        await sees(pilot, "✓ traffic is 00002 100 %", 90)
        await pilot.press("escape")
        await until(pilot, lambda: column(pilot, "revisions", "role") == ["stable"])
    deadline = time.monotonic() + 60
    while service.status().split != {canary: 100}:
        assert time.monotonic() < deadline
