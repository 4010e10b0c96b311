"""When a recurring run is due: KFP's rules, and what a clock that is set does to them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sandbox.kfp.schedule import next_scheduled, was_set_back
from sandbox.runstore.recurring import RecurringRun, Trigger
from tests.kfp_api.rig import NOON

HOUR, DAY = 3600.0, 86400.0
HOURLY = Trigger(cron="0 0 * * * *")
EVERY_TEN = Trigger(interval_second=10)


def due(trigger: Trigger, now: float, **fields: Any) -> float | None:
    """When the next run is due, in seconds after NOON; `now`, and `last` and `since`, are such, too."""
    last = fields.pop("last", None)
    record = RecurringRun(
        "r",
        "e",
        "n",
        dataclasses.replace(
            trigger,
            start_time=NOON + start if (start := fields.pop("start", None)) is not None else None,
            end_time=NOON + end if (end := fields.pop("end", None)) is not None else None,
        ),
        created_at=NOON + fields.pop("since", 0.0),
        updated_at=NOON,
        last_triggered=None if last is None else NOON + last,
        **fields,
    )
    found = next_scheduled(record, NOON + now)
    return None if found is None else found - NOON


@pytest.mark.parametrize(
    ("trigger", "now", "fields", "expected"),
    [
        (HOURLY, 0, {}, HOUR),
        (HOURLY, 5 * HOUR, {}, HOUR),
        (HOURLY, 5 * HOUR + 9, {"no_catchup": True}, 5 * HOUR),
        (HOURLY, 30, {"no_catchup": True}, HOUR),
        (HOURLY, 5 * HOUR, {"last": 2 * HOUR}, 3 * HOUR),
        (HOURLY, 5 * HOUR + 9, {"last": 2 * HOUR, "no_catchup": True}, 5 * HOUR),
        (HOURLY, 5 * HOUR + 9, {"last": 5 * HOUR, "no_catchup": True}, 6 * HOUR),
        (HOURLY, 0, {"start": 10 * HOUR}, 11 * HOUR),
        (HOURLY, 0, {"end": HOUR}, HOUR),
        (HOURLY, 0, {"end": HOUR - 1}, None),
        (HOURLY, 9 * HOUR, {"end": 3 * HOUR + 5, "no_catchup": True}, 3 * HOUR),
        (HOURLY, 9 * HOUR, {"end": 3 * HOUR, "last": 3 * HOUR}, None),
        (EVERY_TEN, 0, {}, 10),
        (EVERY_TEN, 100, {"last": 30}, 40),
        (EVERY_TEN, 100, {"last": 30, "no_catchup": True}, 100),
        (EVERY_TEN, 45, {"last": 30, "no_catchup": True}, 40),
        (EVERY_TEN, 0, {"start": 500}, 510),
        (EVERY_TEN, 0, {"last": 100, "start": 500}, 500),
        (EVERY_TEN, 0, {"last": 100, "end": 105}, None),
        (EVERY_TEN, 1000, {"last": 100, "end": 205, "no_catchup": True}, 205),
    ],
)
def test_the_next_time_by_kfps_rules(
    trigger: Trigger, now: float, fields: dict[str, Any], expected: float | None
) -> None:
    assert due(trigger, now, **fields) == expected


@pytest.mark.parametrize(
    ("last", "ahead", "expected"),
    [(None, -60.0, False), (None, 400 * DAY, True), (-60.0, 400 * DAY, False), (HOUR - 1, 0, False), (DAY, 0, True)],
)
def test_a_schedule_whose_past_lies_in_the_future_begins_anew(last: float | None, ahead: float, expected: bool) -> None:
    moment = None if last is None else NOON + last
    record = RecurringRun("r", "e", "n", HOURLY, created_at=NOON + ahead, updated_at=NOON, last_triggered=moment)
    assert was_set_back(record, NOON) is expected


@pytest.mark.parametrize("no_catchup", [False, True])
def test_a_small_correction_of_the_clock_repeats_nothing(no_catchup: bool) -> None:
    assert due(HOURLY, HOUR - 2, last=HOUR, no_catchup=no_catchup) == 2 * HOUR
    assert due(EVERY_TEN, 8, last=10, no_catchup=no_catchup) == 20
