"""What the soak calls flat, and what it does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sandbox import soaking
from tests.sandbox.soaking import Sample


def grown(part: str, memory: Callable[[float], float]) -> list[str]:
    """What is found of a part that has so many MiB after each share (0 to 1) of an hour."""
    return soaking.growing({part: [Sample(i * 5.0, memory(i / 720) + i % 3, 20, 1) for i in range(720)]})


@pytest.mark.parametrize("part", ["kserve", "kubernetes", "gateway"])
def test_what_creeps_up_for_the_whole_hour_grows(part: str) -> None:
    assert grown(part, lambda passed: 40 + 60 * passed)
    assert not grown(part, lambda passed: 40 + 4 * passed)


def test_what_fills_in_the_first_half_is_flat() -> None:
    assert not grown("kubernetes", lambda passed: 60 + min(60.0, 150 * passed))


def test_one_step_of_envoy_is_no_leak_and_two_are() -> None:
    for at in (0.55, 0.6, 0.75, 0.9):
        assert not grown("gateway", lambda passed, at=at: 34 + 31 * (passed > at))  # type: ignore[misc]
        assert grown("gateway", lambda passed, at=at: 34 + 31 * (passed > at) + 60 * passed)  # type: ignore[misc]
    assert grown("gateway", lambda passed: 34 + 31 * (passed > 0.6) + 31 * (passed > 0.8))
    assert grown("gateway", lambda passed: 34 + 80 * (passed > 0.7))
    assert grown("kserve", lambda passed: 34 + 31 * (passed > 0.7))
