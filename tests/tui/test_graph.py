from __future__ import annotations

import pytest

from kanary.text import latency, percent, rate
from tui.graph import chart, interval_bar, share_bar, sparkline


@pytest.mark.parametrize(
    ("shares", "drawn"),
    [
        ([(90, "stable"), (10, "canary")], "█████████▒"),
        ([(99, "stable"), (1, "canary")], "█████████▒"),  # whoever has a share is seen
        ([(1, "stable"), (99, "canary")], "█▒▒▒▒▒▒▒▒▒"),
        ([(50, "stable"), (0, "canary")], "█████·····"),
        ([(100, "stable")], "██████████"),
        ([], "··········"),
        ([(60, "stable"), (60, "canary")], "█████▒▒▒▒▒"),
        ([(98, "stable"), (1, "canary"), (1, "dim")], "████████▒▓"),
    ],
)
def test_a_bar_shows_every_share_in_its_pattern(shares: list[tuple[int, str]], drawn: str) -> None:
    assert "".join(text for text, _ in share_bar(shares, 10)) == drawn


def test_a_sparkline_goes_from_zero_to_its_largest_and_leaves_gaps() -> None:
    assert sparkline([0, 1, None, 4, 8], 5) == "▁▁ ▄█"
    assert sparkline([5], 3) == "  █"
    assert sparkline([0.0, 0.0], 2) == "▁▁"
    assert sparkline([1, 2, 3], 2) == "▆█"


def test_a_chart_ends_at_its_right_edge_and_keeps_to_its_size() -> None:
    lines = chart({"stable": [0, 1, 2, 3], "canary": [None, 3, 3, 3]}, 10, 4, 4)
    assert len(lines) == 4
    assert all(sum(len(text) for text, _ in line) == 10 for line in lines)
    assert lines[0][-1][1] == "canary"
    assert {style for line in lines for text, style in line if text.strip()} == {"stable", "canary"}
    assert all(not text.strip() for line in chart({"stable": [None, None]}, 8, 2, 60) for text, _ in line)


def test_numbers_are_as_short_as_they_can_be() -> None:
    assert [rate(v) for v in (None, 0, 0.421, 8.14, 123.4, 12_345)] == ["–", "0", "0.42", "8.1", "123", "12k"]
    assert [percent(v) for v in (None, 0, 0.0004, 0.0042, 0.25)] == ["–", "0 %", "0.04 %", "0.4 %", "25 %"]
    assert [latency(v) for v in (None, 0.0008, 0.012, 1.25)] == ["–", "0.8 ms", "12 ms", "1.2 s"]


@pytest.mark.parametrize(
    ("interval", "drawn"),
    [
        ((-0.01, 0.01, 0.03, 0.02), "·····├──┼──●─┊──┤"),
        ((0.01, 0.02, 0.04, None), "········│·├─●───┤"),
        ((0.0, 0.0, 0.0, None), "········●········"),
    ],
)
def test_an_interval_stands_around_zero_with_its_margin(
    interval: tuple[float, float, float, float | None], drawn: str
) -> None:
    low, middle, high, margin = interval
    assert "".join(text for text, _ in interval_bar(low, middle, high, margin, 17, "info")) == drawn
