"""What a caller of each revision sees: requests, errors and latencies from Prometheus, with their recent course.

The numbers are the proxy's (a crashed server reports nothing about itself). Asks for nothing but queries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from kanary.config import TENANT, Config
from kanary.operations import Operation, Request
from kanary.promql import instant, number, result
from kanary.rollout import profiles
from kanary.rollout.profiles import Profile, Where

if TYPE_CHECKING:
    from kanary.api import Server

POINTS = 60  # of a course
_SHORTEST, _LONGEST = 10.0, 300.0  # seconds of a window
_LOOK_BACK = 300.0  # seconds in which a proxy must have been scraped to be found
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Point:
    """One moment: requests a second, the share of them that failed, latencies in seconds; None where none is known."""

    at: float  # seconds since the epoch, Prometheus' clock
    requests: float
    errors: float | None = None
    p50: float | None = None
    p99: float | None = None


@dataclass(frozen=True)
class Course:
    """The newest points of one revision, oldest first; never empty."""

    points: tuple[Point, ...]

    @property
    def now(self) -> Point:
        return self.points[-1]


@dataclass(frozen=True)
class Metrics:
    """All revisions' courses by `namespace/revision`. `window`: seconds that a rate is taken over."""

    courses: Mapping[str, Course] = field(default_factory=dict)
    profile: Profile | None = None
    window: float = 60.0
    interval: float = 15.0  # seconds between two scrapes
    blind: str = ""  # why what is counted cannot be told apart by revision

    @property
    def note(self) -> str:
        """What is missing, if anything is."""
        if self.profile:
            return ""
        return self.blind or "Prometheus has no metrics that tell revisions apart"


def server(config: Config) -> Server:
    """The Prometheus of the settings."""
    from kanary.api import Server

    return Server(
        name="Prometheus",
        url=config.prometheus_url,
        timeout=config.timeout,
        token_file=config.prometheus_token_file,
        readonly=True,
        ca_file=config.prometheus_ca_file,
        headers={TENANT: config.prometheus_tenant} if config.prometheus_tenant else {},
        settings="prometheus_",
        hint=f"The address is from {config.sources['prometheus_url']}; `kanary info` says more.",
    )


def refresh(known: Metrics, step: float, selectors: Mapping[str, str] = _NONE) -> Operation[Metrics]:
    """`known` with one more point a revision; the whole course anew where there is none, or too long ago.

    `step`: seconds between two points; `selectors`: further label matchers of every query. Raises ApiError where
    Prometheus does not answer as it should.
    """
    if known.profile is None:
        known = yield from found(known, selectors)
        if known.profile is None:
            return known
    profile = known.profile
    assert profile is not None
    asked = queries(profile, known.window, selectors)
    last = max((course.now.at for course in known.courses.values()), default=None)
    now = yield from instant("time()")
    moment = now[0][1] if now else 0.0
    if last is None or not 0 <= moment - last <= 5 * step:
        return (yield from _whole(known, profile, asked, moment, step))
    answers = []
    for query in asked:
        vector = yield from instant(query, moment)
        answers.append({_key(profile, labels): value for labels, value in vector})
    return replace(known, courses=MappingProxyType(_extended(known.courses, _points(moment, answers, profile))))


def queries(profile: Profile, window: float, selectors: Mapping[str, str]) -> tuple[str, str, str, str]:
    """Requests a second, failed ones a second, the median and the 99th percentile of latency, by revision."""
    assert profile.wide is not None
    wide = profile.wide
    requests, failed, buckets = (
        profiles.spanned(template, selectors, window) for template in (wide.requests, wide.failed, wide.latency)
    )
    return requests, failed, f"histogram_quantile(0.5, {buckets})", f"histogram_quantile(0.99, {buckets})"


def found(known: Metrics, selectors: Mapping[str, str]) -> Operation[Metrics]:
    """The first profile that has series of revisions, and a window of at least four scrapes."""
    for profile in profiles.ALL:
        if profile.wide is None:
            continue
        counts = yield from instant(f"max({profiles.spanned(profile.wide.probe, selectors, _LOOK_BACK)})")
        scrapes = counts[0][1] if counts else 0.0
        if scrapes and profile.blind:
            return replace(known, blind=f"{profile.counter} counts here, and: {profile.blind}")
        if scrapes:
            newest = yield from instant(f"max({profiles.spanned(profile.wide.probe, selectors, 60.0)})")
            a_minute = newest[0][1] if newest else scrapes * 60.0 / _LOOK_BACK
            interval = 60.0 / max(a_minute, 0.2)
            window = min(_LONGEST, max(_SHORTEST, 4 * interval))
            return replace(known, profile=profile, window=window, interval=interval, blind="")
    return replace(known, blind="")


def _whole(known: Metrics, profile: Profile, asked: Sequence[str], end: float, step: float) -> Operation[Metrics]:
    answers: list[dict[str, dict[float, float]]] = []
    span = {"start": f"{end - step * (POINTS - 1):.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
    for query in asked:
        answer = yield Request("GET", "/api/v1/query_range", {"query": query} | span)
        found: dict[str, dict[float, float]] = {}
        for entry in result(answer):
            values = {round(number(at), 3): number(value) for at, value in entry.get("values") or []}
            found[_key(profile, entry.get("metric") or {})] = values
        answers.append(found)
    courses: dict[str, Course] = {}
    for at in sorted({at for values in answers[0].values() for at in values}):
        moment = [{key: values[at] for key, values in found.items() if at in values} for found in answers]
        courses = _extended(courses, _points(at, moment, profile))
    return replace(known, courses=MappingProxyType(courses))


def _points(at: float, answers: Sequence[Mapping[str, float]], profile: Profile) -> dict[str, Point]:
    requests, failed, p50, p99 = answers
    found = {}
    for key, rate in requests.items():
        if math.isnan(rate):
            continue
        share = min(1.0, failed.get(key, 0.0) / rate) if rate > 0 else None
        times = (_finite(quantile.get(key), profile.unit) for quantile in (p50, p99))
        found[key] = Point(at, rate, share, *times)
    return found


def _extended(courses: Mapping[str, Course], points: Mapping[str, Point]) -> dict[str, Course]:
    known: dict[str, tuple[Point, ...]] = {key: courses[key].points if key in courses else () for key in points}
    return {key: Course((*known[key], point)[-POINTS:]) for key, point in points.items()}


def _finite(value: float | None, unit: float) -> float | None:
    return value * unit if value is not None and math.isfinite(value) else None


def _key(profile: Profile, labels: Mapping[str, str]) -> str:
    namespace = labels.get(profile.wide.namespace, "") if profile.wide else ""
    return f"{namespace}/{labels.get(profile.arm, '')}"


@dataclass(frozen=True)
class Count:
    """How many requests revisions have been sent in all, as of one scrape; None where none is counted any more."""

    total: float | None
    scraped: float = 0.0  # seconds since the epoch
    active: float = 0.0  # under way


def count(profile: Profile, where: Where) -> Operation[Count]:
    """The raw counters of some revisions of a service, at the newest scrape."""
    queries = profile.queries(where)
    total = yield from instant(queries["requests"])
    scraped = yield from instant(queries["seen"])
    active = (yield from instant(profiles.filled(profile.active, where))) if profile.active else []
    if not total or not scraped:
        return Count(None)
    newest = max(value for _, value in scraped)
    return Count(sum(value for _, value in total), newest, sum(value for _, value in active))
