"""Cron expressions as KFP's scheduler (robfig/cron v1) reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.kfp.cron import CronError, latest_time, next_time, parse

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def shown(seconds: float | None) -> str:
    return "never" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        # Seconds come first: this is not "at three o'clock".
        ("0 3 * * *", "2027-01-15 08:00", "2027-01-15 08:03:00"),
        ("0 3 * * *", "2027-01-15 08:03", "2027-01-15 09:03:00"),
        ("0 0 3 * * *", "2027-01-15 08:00", "2027-01-16 03:00:00"),
        ("* * * * * *", "2027-01-15 08:00:00.7", "2027-01-15 08:00:01"),
        ("*/20 * * * * ?", "2027-12-31 23:59:40", "2028-01-01 00:00:00"),
        ("0 5/20 * * * *", "2027-01-15 08:25", "2027-01-15 08:45:00"),
        ("0 10-40/15 * * * *", "2027-01-15 08:40", "2027-01-15 09:10:00"),
        ("30 0,30 8-9 * * *", "2027-01-15 09:30:30", "2027-01-16 08:00:30"),
        ("0 0 0 29 Feb ?", "2027-01-15 08:00", "2028-02-29 00:00:00"),
        ("0 0 0 31 * ?", "2027-01-31 00:00", "2027-03-31 00:00:00"),
        ("0 0 12 ? * mon-fri", "2027-01-15 12:00", "2027-01-18 12:00:00"),
        ("0 0 0 1 JAN,jul *", "2027-01-15 08:00", "2027-07-01 00:00:00"),
        # Both kinds of day given: either is enough. One with a star: both have to fit.
        ("0 0 0 20 * Sun", "2027-01-15 08:00", "2027-01-17 00:00:00"),
        ("0 0 0 20 * *", "2027-01-15 08:00", "2027-01-20 00:00:00"),
        ("0 0 0 */2 * Sun", "2027-01-15 08:00", "2027-01-17 00:00:00"),
        ("0 0 0 */2 * Sun", "2027-01-17 08:00", "2027-01-31 00:00:00"),
        ("@hourly", "2027-01-15 08:00", "2027-01-15 09:00:00"),
        ("@midnight", "2027-01-15 08:00", "2027-01-16 00:00:00"),
        ("@weekly", "2027-01-15 08:00", "2027-01-17 00:00:00"),
        ("@yearly", "2027-01-15 08:00", "2028-01-01 00:00:00"),
        ("@every 1h30m", "2027-01-15 08:00:00.9", "2027-01-15 09:30:00"),
        ("@every 10ms", "2027-01-15 08:00", "2027-01-15 08:00:01"),
        ("0 0 0 30 2 ?", "2027-01-15 08:00", "never"),
    ],
)
def test_the_next_time_of_an_expression(expression: str, after: str, expected: str) -> None:
    assert shown(next_time(parse(expression), at(after))) == expected


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        # 28 March 2027, 02:00 -> 03:00: half past two is left out that day.
        ("0 30 2 * * *", "2027-03-27 12:00+01:00", "2027-03-29 02:30+02:00"),
        ("0 0 * * * *", "2027-03-28 01:00+01:00", "2027-03-28 03:00+02:00"),
        # 31 October 2027, 03:00 -> 02:00: half past two comes twice.
        ("0 30 2 * * *", "2027-10-30 12:00+02:00", "2027-10-31 02:30+02:00"),
        ("0 30 2 * * *", "2027-10-31 02:30+02:00", "2027-10-31 02:30+01:00"),
        ("0 30 2 * * *", "2027-10-31 02:30+01:00", "2027-11-01 02:30+01:00"),
        ("0 0 9 * * *", "2027-10-30 12:00+02:00", "2027-10-31 09:00+01:00"),
    ],
)
def test_changes_of_the_clock_leave_out_and_repeat(expression: str, after: str, expected: str) -> None:
    assert next_time(parse(expression), at(after), BERLIN) == at(expected)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "found 0"),
        ("* * * *", "found 4"),
        ("* * * * * * *", "found 7"),
        ("60 * * * * *", "second '60'"),
        ("* * 24 * * *", "hour '24'"),
        ("* * * 0 * *", "day of month '0'"),
        ("* * * * 13 *", "month '13'"),
        ("* * * * * 7", "day of week '7'"),
        ("* * * * foo *", "month 'foo' is no number"),
        ("5-3 * * * * *", "low to high"),
        ("1-2-3 * * * * *", "hyphens"),
        ("*/2/3 * * * * *", "slashes"),
        ("*/0 * * * * *", "step of 0"),
        ("*/-5 * * * * *", "is no number"),
        (", * * * * *", "allows no value"),
        ("@often", "none of @yearly"),
        ("@every fortnight", "no duration"),
        ("@every " + "9" * 30 + "h", "too long"),
        ("\u0661 * * * * *", "is no number"),
    ],
)
def test_what_is_no_expression_is_refused_saying_why(expression: str, says: str) -> None:
    with pytest.raises(CronError) as caught:
        parse(expression)
    assert says in str(caught.value)


PART = st.sampled_from(["*", "?", "0", "3", "5/7", "2-9", "10-50/20", "1,30", "*/25"])
DAY = st.sampled_from(["*", "?", "1", "15", "*/9", "28-31", "5/10"])
MONTH = st.sampled_from(["*", "1-3", "Feb", "*/5"])
WEEKDAY = st.sampled_from(["*", "?", "Mon", "1-5", "0,6"])
HOUR = st.sampled_from(["*", "3", "8-10", "*/7", "22"])
EXPRESSION = st.tuples(PART, PART, HOUR, DAY, MONTH, WEEKDAY).map(" ".join)
MOMENT = st.integers(int(at("2026-01-01")), int(at("2030-01-01")))


LOW = (0, 0, 0, 1, 1, 0)
HIGH = (59, 59, 23, 31, 12, 6)
WORDS = {"Feb": "2", "Mon": "1"}


def allowed(text: str, n: int) -> set[int]:
    """The values of field `n`, read once more, in another way."""
    values: set[int] = set()
    for part in text.split(","):
        ends, _, step = part.partition("/")
        low, _, high = ends.partition("-")
        if low in "*?":
            first, last = LOW[n], HIGH[n]
        else:
            first = int(WORDS.get(low, low))
            last = int(high) if high else HIGH[n] if step else first
        values |= set(range(first, last + 1, int(step or 1)))
    return values


@given(EXPRESSION, MOMENT, st.sampled_from([UTC, BERLIN]))
@settings(deadline=None, max_examples=100)
def test_no_time_is_passed_over_and_none_is_invented(expression: str, after: int, zone: ZoneInfo) -> None:
    """Against a walk: over every second of the quarter of an hour before the time found, and over every day before."""
    fields = expression.split()
    sets = [allowed(text, n) for n, text in enumerate(fields)]
    star = any(text[0] in "*?" for text in (fields[3], fields[5]))

    def allows_day(moment: datetime) -> bool:
        day, weekday = moment.day in sets[3], moment.isoweekday() % 7 in sets[5]
        return moment.month in sets[4] and (day and weekday if star else day or weekday)

    def allows(seconds: int) -> bool:
        moment = datetime.fromtimestamp(seconds, zone)
        return moment.second in sets[0] and moment.minute in sets[1] and moment.hour in sets[2] and allows_day(moment)

    found = next_time(parse(expression), after, zone)
    assert found is not None
    assert found > after
    assert allows(int(found))
    assert not any(allows(second) for second in range(max(after + 1, int(found) - 900), int(found)))
    begin, end = (datetime.fromtimestamp(moment, UTC) for moment in (after, found))
    days = [begin + timedelta(days=n) for n in range(2, (end - begin).days - 1)]
    assert not any(allows_day(day) for day in days)


@given(EXPRESSION, MOMENT, st.integers(0, 2000))
@settings(deadline=None, max_examples=50)
def test_the_latest_time_is_the_last_of_those_that_come_one_after_the_other(
    expression: str, after: int, span: int
) -> None:
    schedule = parse(expression)
    last, following = None, next_time(schedule, after)
    while following is not None and following <= after + span:
        last, following = following, next_time(schedule, following)
    assert latest_time(schedule, after, after + span) == last


def test_a_week_of_missed_seconds_is_not_walked_through() -> None:
    schedule = parse("* * * * * *")
    now = at("2027-01-15 08:00")
    assert latest_time(schedule, now - timedelta(days=700).total_seconds(), now) == now
