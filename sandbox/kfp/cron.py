"""Cron expressions as KFP reads them: robfig/cron v1, seconds first. Knows times, not runs.

Source: parser.go, spec.go and constantdelay.go of github.com/robfig/cron v1.2.0. One difference: what can never come
(30 February) gives None, where KFP takes it for a time long past and starts runs without end.
"""

from __future__ import annotations

import bisect
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

_YEARS = 5  # how far ahead a time is looked for, as in robfig/cron
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DESCRIPTORS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST_S = 2**63 / 1e9  # Go counts nanoseconds in 64 bits


class CronError(ValueError):
    """The expression is none; the message says why."""


@dataclass(frozen=True)
class _Bounds:
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()
    first_word: int = 0


_FIELDS = (
    _Bounds("second", 0, 59),
    _Bounds("minute", 0, 59),
    _Bounds("hour", 0, 23),
    _Bounds("day of month", 1, 31),
    _Bounds("month", 1, 12, _MONTHS, 1),
    _Bounds("day of week", 0, 6, _DAYS, 0),
)


@dataclass(frozen=True)
class Cron:
    """The values that each field allows, in order; `any_day` where one of the two kinds of day has a star."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool

    def has_day(self, moment: datetime) -> bool:
        """Both kinds of day have to fit where one has a star, else either."""
        day, weekday = moment.day in self.days, moment.isoweekday() % 7 in self.weekdays
        return moment.month in self.months and (day and weekday if self.any_day else day or weekday)


@dataclass(frozen=True)
class Every:
    """A fixed delay in whole seconds."""

    seconds: int


def parse(text: str) -> Cron | Every:
    """The schedule of an expression: five or six fields, or a descriptor. Raises CronError."""
    if text.startswith("@every "):
        return Every(max(1, math.floor(_duration(text.removeprefix("@every ")))))
    if text.startswith("@"):
        if text not in _DESCRIPTORS:
            raise CronError(f"{text!r} is none of {', '.join(_DESCRIPTORS)}, @every DURATION")
        text = _DESCRIPTORS[text]
    words = text.split()
    if len(words) not in (5, 6):
        raise CronError(
            f"5 or 6 fields are needed, seconds first (second minute hour day month [weekday]); found {len(words)}"
        )
    parsed = [_field(word, bounds) for word, bounds in zip([*words, "*"], _FIELDS, strict=False)]
    (seconds, _), (minutes, _), (hours, _), (days, day_star), (months, _), (weekdays, weekday_star) = parsed
    return Cron(
        tuple(sorted(seconds)),
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        frozenset(days),
        frozenset(months),
        frozenset(weekdays),
        day_star or weekday_star,
    )


def _field(text: str, bounds: _Bounds) -> tuple[set[int], bool]:
    values: set[int] = set()
    star = False
    for part in filter(None, text.split(",")):
        found, has_star = _range(part, bounds)
        values |= found
        star = star or has_star
    if not values:
        raise CronError(f"the {bounds.name} {text!r} allows no value")
    return values, star


def _range(text: str, bounds: _Bounds) -> tuple[set[int], bool]:
    """The values of `*`, `a`, `a-b`, each with or without `/step`; whether it has a star."""
    ends, *steps = text.split("/")
    first, *rest = ends.split("-")
    if len(steps) > 1 or len(rest) > 1:
        raise CronError(f"the {bounds.name} {text!r} has too many {'slashes' if len(steps) > 1 else 'hyphens'}")
    star = first in ("*", "?")
    low = bounds.low if star else _value(first, bounds)
    high = bounds.high if star else _value(rest[0], bounds) if rest else low
    step = 1
    if steps:
        step = _number(steps[0], bounds)
        high = high if rest else bounds.high  # "N/step" means "N-max/step"
    if low < bounds.low or high > bounds.high or low > high:
        raise CronError(f"the {bounds.name} {text!r} does not lie within {bounds.low}-{bounds.high}, low to high")
    if step == 0:
        raise CronError(f"the {bounds.name} {text!r} has a step of 0")
    return set(range(low, high + 1, step)), star


def _value(text: str, bounds: _Bounds) -> int:
    word = text.lower()
    return bounds.words.index(word) + bounds.first_word if word in bounds.words else _number(text, bounds)


def _number(text: str, bounds: _Bounds) -> int:
    if not re.fullmatch(r"\+?[0-9]{1,9}", text):
        raise CronError(f"the {bounds.name} {text!r} is no number")
    return int(text)


def _duration(text: str) -> float:
    """Seconds of a Go duration such as 1h30m. Raises CronError."""
    sign = -1 if text.startswith("-") else 1
    body = text[1:] if text[:1] in "+-" and text else text
    pieces = _DURATION.findall(body)
    if body != "0" and (not pieces or "".join(number + unit for number, unit in pieces) != body):
        raise CronError(f"{text!r} is no duration such as 1h30m")
    seconds = sign * sum(float(number) * _UNITS[unit] for number, unit in pieces)
    if abs(seconds) >= _LONGEST_S:
        raise CronError(f"the duration {text!r} is too long")
    return seconds


def next_time(schedule: Cron | Every, after: float, zone: tzinfo = UTC) -> float | None:
    """The first time of the schedule after `after`, seconds since the epoch, by the clock of `zone`.

    None where there is none in the next five years. A time that a change of the clock leaves out is passed over, one
    that it repeats comes twice.
    """
    if isinstance(schedule, Every):
        return math.floor(after) + schedule.seconds
    earliest = math.floor(after) + 1
    try:
        begin = datetime.fromtimestamp(earliest, zone)
        day = begin.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        while day.year <= begin.year + _YEARS:
            if not schedule.has_day(day):
                day = _following(schedule, day)
                continue
            found = _first_of_day(schedule, day, earliest)
            if found is not None:
                return found
            day += timedelta(days=1)
    except (OverflowError, ValueError, OSError):  # beyond the years that there are
        return None
    return None


def _following(schedule: Cron, day: datetime) -> datetime:
    """The next day, or the first of the next month where the whole month is out."""
    if day.month in schedule.months:
        return day + timedelta(days=1)
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _first_of_day(schedule: Cron, day: datetime, earliest: int) -> float | None:
    """The schedule's first time on that day which is not before `earliest`."""
    midnight = int(day.timestamp())
    if (day + timedelta(days=1)).utcoffset() == day.utcoffset():
        within = _first_within(schedule, earliest - midnight)
        return None if within is None else float(midnight + within)
    # The clock changes on that day: each of its times is looked up.
    times = (
        moment.timestamp() + second
        for hour in schedule.hours
        for minute in schedule.minutes
        for fold in (0, 1)
        if _exists(moment := day.replace(hour=hour, minute=minute, fold=fold))
        for second in schedule.seconds
    )
    return min((found for found in times if found >= earliest), default=None)


def _first_within(schedule: Cron, least: int) -> int | None:
    """The schedule's first second of a day without a change of the clock which is not before `least`."""
    for hour in schedule.hours[bisect.bisect_left(schedule.hours, least // 3600) :]:
        rest = least - hour * 3600
        for minute in schedule.minutes[bisect.bisect_left(schedule.minutes, rest // 60) :]:
            number = bisect.bisect_left(schedule.seconds, rest - minute * 60)
            if number < len(schedule.seconds):
                return hour * 3600 + minute * 60 + schedule.seconds[number]
    return None


def _exists(moment: datetime) -> bool:
    shown = datetime.fromtimestamp(moment.timestamp(), moment.tzinfo)
    return shown.replace(tzinfo=None) == moment.replace(tzinfo=None)


def latest_time(schedule: Cron | Every, after: float, until: float, zone: tzinfo = UTC) -> float | None:
    """The last time of the schedule in (after, until]; None where there is none."""
    if isinstance(schedule, Every):
        steps = math.floor((until - math.floor(after)) / schedule.seconds)
        return math.floor(after) + steps * schedule.seconds if steps >= 1 else None
    # Looked for in spans that grow: after a long pause the times in between are not walked through one by one.
    span = 60.0
    while True:
        begin = max(after, until - span)
        found = next_time(schedule, begin, zone)
        if found is not None and found <= until:
            while (later := next_time(schedule, found, zone)) is not None and later <= until:
                found = later
            return found
        if begin <= after:
            return None
        span *= 10
