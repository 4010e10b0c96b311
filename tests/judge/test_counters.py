from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanary.errors import InputError
from kanary.judge.counters import MOST_RETRIES, Arm, Counters, Counting, Scrape, Warmup, difference, failures, observe
from tests.judge.drawing import unhurried

NOW = Warmup(seconds=0.0)
NUMBERS = st.integers(min_value=0, max_value=10_000)


def counters(requests: int, errors: int = 0, start: str = "") -> Counters:
    return Counters(requests, errors, buckets=(requests // 2, requests), start=start)


@st.composite
def any_counters(draw: st.DrawFn) -> Counters:
    classes = draw(st.dictionaries(st.sampled_from("abc"), NUMBERS))
    requests, errors, retried, retries = (draw(NUMBERS) for _ in range(4))
    buckets = tuple(draw(st.lists(NUMBERS, max_size=4)))
    return Counters(requests, errors, retried, retries, buckets, classes, draw(st.sampled_from(["", "1", "2"])))


def counted(*scrapes: Scrape, share: float = 0.1, warmup: Warmup = NOW) -> list[Arm | None]:
    """The canary's arm of each window after the first scrape, as they come."""
    counting, found = Counting(), list[Arm | None]()
    for scrape in scrapes:
        counting, counts = observe(counting, scrape, share, "m-00002", warmup)
        found.append(None if counts is None else counts.canary)
    return found[1:]


@unhurried
@given(any_counters(), any_counters(), any_counters(), any_counters())
def test_no_window_holds_a_negative_count_or_more_failures_than_requests(
    a: Counters, b: Counters, c: Counters, d: Counters
) -> None:
    found = difference(Scrape(0, a, b), Scrape(10, c, d))
    for arm in (found.canary, found.stable) if found else ():
        assert min(arm.requests, arm.errors, arm.measured, *arm.slower, *arm.classes.values()) >= 0
        assert arm.errors <= arm.requests
        assert all(slow <= arm.measured for slow in arm.slower)


def test_a_window_is_what_both_counters_grew_by() -> None:
    before = Scrape(0, counters(100, 2), counters(900, 9))
    after = Scrape(15, counters(150, 5), counters(1400, 10))
    found = difference(before, after)
    assert found is not None
    assert (found.canary, found.stable.requests, found.stable.errors) == (Arm(50, 3, (25,), 50), 500, 1)
    assert found.seconds == 15


def test_a_proxy_that_starts_anew_counts_from_zero_for_both_arms() -> None:
    before = Scrape(0, counters(100, 2, "mon"), counters(900, 9, "mon"))
    after = Scrape(15, counters(10, 1, "tue"), counters(2000, 3, "tue"))
    found = difference(before, after)
    assert found is not None
    assert (found.canary.requests, found.stable.requests, found.stable.errors) == (10, 2000, 3)


@pytest.mark.parametrize(
    "after",
    [
        Scrape(15, counters(10, 0, "mon"), counters(1000, 9, "mon")),  # went down, and nobody says why
        Scrape(15, counters(150, 2, "tue"), counters(1000, 9, "mon")),  # one arm's proxy alone
        Scrape(15, counters(150, 1, "mon"), counters(1000, 9, "mon")),  # fewer errors, more requests
        Scrape(15, None, counters(1000, 9, "mon")),
    ],
)
def test_a_window_that_is_not_the_same_for_both_arms_counts_for_neither(after: Scrape) -> None:
    assert difference(Scrape(0, counters(100, 2, "mon"), counters(900, 9, "mon")), after) is None


def test_a_missed_scrape_makes_the_next_window_longer() -> None:
    first, last = Scrape(0, counters(0), counters(0)), Scrape(30, counters(60), counters(600))
    for missed in (Scrape(15, None, counters(300)), Scrape(15, counters(30), None)):
        assert [arm and arm.requests for arm in counted(first, missed, last)] == [None, 60]


def test_a_scrape_that_comes_twice_counts_once() -> None:
    first, last = Scrape(0, counters(0), counters(0)), Scrape(15, counters(60), counters(600))
    assert [arm and arm.requests for arm in counted(first, last, last)] == [60, None]


def test_a_window_in_which_the_split_changed_is_given_up() -> None:
    counting, _ = observe(Counting(), Scrape(0, counters(0), counters(0)), 0.05, "m-00002", NOW)
    counting, counts = observe(counting, Scrape(15, counters(60), counters(600)), 0.25, "m-00002", NOW)
    assert (counts, counting.lost) == (None, 1)
    counting, counts = observe(counting, Scrape(30, counters(90), counters(700)), 0.25, "m-00002", NOW)
    assert counts is not None
    assert (counts.canary.requests, counts.stable.requests) == (30, 100)


def test_a_new_revision_is_judged_once_it_is_warm() -> None:
    scrapes = [Scrape(15.0 * i, counters(60 * i), counters(600 * i)) for i in range(6)]
    by_time = counted(*scrapes, warmup=Warmup(seconds=30))
    by_requests = counted(*scrapes, warmup=Warmup(seconds=0, requests=100))
    assert [arm is not None for arm in by_time] == [False, False, True, True, True]
    assert [arm is not None for arm in by_requests] == [False, False, True, True, True]


def test_another_revision_begins_anew() -> None:
    counting, _ = observe(Counting(), Scrape(0, counters(50), counters(0)), 0.1, "m-00002", NOW)
    counting, counts = observe(counting, Scrape(15, counters(80), counters(600)), 0.1, "m-00003", NOW)
    assert (counts, counting.revision, counting.since, counting.seen) == (None, "m-00003", 15, 0)


def test_counting_survives_being_written_down() -> None:
    counting, _ = observe(Counting(), Scrape(3.5, replace(counters(50), classes={"a": 3}), counters(9)), 0.1, "m", NOW)
    assert Counting.from_json(json.loads(json.dumps(counting.to_json()))) == counting
    with pytest.raises(InputError):
        Counting.from_json({"last": None, "nonsense": 1})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((100, 3, 0, 0), 3),
        ((100, 3, 4, 4), 7),  # four were saved by a retry: each is one failure
        ((100, 1, 0, MOST_RETRIES), 1),  # one dead request, tried 33 times
        ((100, 0, 0, 1), 1),
        ((100, 0, 0, 10 * MOST_RETRIES), 10),
        ((5, 3, 4, 4), 5),
    ],
)
def test_a_request_fails_once_however_often_it_was_retried(given: tuple[int, int, int, int], wanted: int) -> None:
    assert failures(*given) == wanted
