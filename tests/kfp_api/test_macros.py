from __future__ import annotations

from typing import Any

import pytest

from sandbox.kfp.macros import Facts, filled
from tests.kfp_api.rig import NOON

SCHEDULED = Facts("id-1", NOON + 61, NOON, 7)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("run [[RunUUID]] no. [[Index]]", "run id-1 no. 7"),
        ("[[ScheduledTime]] [[CurrentTime]]", "20270115080000 20270115080101"),
        ("d/[[ScheduledTime.2006-01-02T15:04:05]]", "d/2027-01-15T08:00:00"),
        ("[[CurrentTime.Jan 02 06 100%]]", "Jan 15 27 100%"),
        ("{{$.scheduledTime.strftime('%Y/%m')}}", "2027/01"),
        ("{{$.currentTime.strftime('%H%M%S')}}", "080101"),
        (
            "[[Unknown]] [[RunUUID.x]] [ScheduledTime] {{$.else}}",
            "[[Unknown]] [[RunUUID.x]] [ScheduledTime] {{$.else}}",
        ),
        (5, 5),
        (["[[RunUUID]]"], ["[[RunUUID]]"]),
    ],
)
def test_macros_in_text_are_filled_in(value: Any, expected: Any) -> None:
    assert filled(value, SCHEDULED) == expected


def test_a_run_of_no_schedule_keeps_what_it_does_not_have() -> None:
    facts = Facts("id-1", NOON)
    assert filled("[[RunUUID]] [[ScheduledTime]] [[Index]]", facts) == "id-1 [[ScheduledTime]] [[Index]]"
    assert filled("{{$.scheduledTime.strftime('%Y')}}", facts) == "{{$.scheduledTime.strftime('%Y')}}"
