"""Rollouts in the sandbox with real traffic: good canaries end at 100 %, bad ones are taken back by themselves."""

from __future__ import annotations

import pytest

from kanary.rollout import record as records
from tests.automation.rig import FAULTS, RATE, Live, blame, exposed, logged
from tests.waiting import wait_for

pytestmark = pytest.mark.sandbox


def test_a_good_canary_ends_at_100_percent_and_costs_no_request(live: Live) -> None:
    with live.service.traffic(RATE) as traffic:
        live.deploy(live.releases.v2)
        record = live.roll_out(say=print)
        summary = traffic.stop()
    assert record.outcome == records.PROMOTED, record.why
    assert summary.failed == 0, summary.reasons
    assert live.service.status().split == {record.canary: 100}
    assert live.service.predict().headers["kanary-model-version"] == "v2"
    assert record.steps[0].canary.classes.keys() == {"iris", "rose"}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_bad_canary_is_taken_back_within_the_requests_that_plan_announced(live: Live, kind: str) -> None:
    with live.service.traffic(RATE) as traffic:
        wait_for(lambda: traffic.summary().requests > 3 * RATE, "stable has traffic to plan from", 60)
        announced = live.plan()
        live.deploy_bad(kind, seed=1)
        record = live.roll_out(say=print)
        summary = traffic.stop()
    assert record.outcome == records.ROLLED_BACK, record.why
    logged(live.service.sandbox, live.name, summary.requests)
    blamed, needed = (
        blame(live.service.sandbox, live.name, record.canary),
        exposed(live.service.sandbox, live.name, record),
    )
    print(kind, blamed, needed, announced.within, record.why)
    assert (blamed.stable, blamed.switch) == (0, 0)
    assert needed <= announced.within
    assert live.service.predict().headers["kanary-model-version"] == "v1"
