"""What a caller of each revision sees: requests, errors and latencies from Prometheus, with their recent course.

The numbers are the proxy's (a crashed server reports nothing about itself). Asks for nothing but queries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from kanary.config import Config
from kanary.operations import Operation, Request
from kanary.promql import instant as _instant
from kanary.promql import number as _number
from kanary.promql import result as _result

if TYPE_CHECKING:
    from kanary.api import Server

POINTS = 60  # of a course
_SHORTEST, _LONGEST = 10.0, 300.0  # seconds of a window


@dataclass(frozen=True)
class Profile:
    """Whose metrics they are, and how they call things. `unit`: seconds in one unit of the latency buckets."""

    name: str
    requests: str  # the counter of requests; that it is there is how the profile is found
    failed: tuple[str, ...]  # selectors of counters of failed ones
    buckets: str
    namespace: str
    revision: str
    unit: float
    active: str = ""  # the gauge of requests under way, where there is one


PROFILES = (
    Profile(
        "Envoy",
        "envoy_cluster_upstream_rq_total",
        # What was retried has failed once, though its caller did not see it.
        ('envoy_cluster_upstream_rq_xx{envoy_response_code_class="5"}', "envoy_cluster_upstream_rq_retry"),
        "envoy_cluster_upstream_rq_time_bucket",
        "namespace",
        "revision",
        0.001,
        "envoy_cluster_upstream_rq_active",
    ),
    Profile(
        "Knative queue-proxy",
        "revision_app_request_count",
        ('revision_app_request_count{response_code_class="5xx"}',),
        "revision_app_request_latencies_bucket",
        "namespace_name",
        "revision_name",
        0.001,
    ),
)


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

    @property
    def note(self) -> str:
        """What is missing, if anything is."""
        return "" if self.profile else "Prometheus has no metrics that tell revisions apart"


def server(config: Config) -> Server:
    """The Prometheus of the settings."""
    from kanary.api import Server

    return Server(
        name="Prometheus",
        url=config.prometheus_url,
        timeout=config.timeout,
        readonly=True,
        hint=f"The address is from {config.sources['prometheus_url']}; `kanary info` says more.",
    )


def refresh(known: Metrics, step: float) -> Operation[Metrics]:
    """`known` with one more point a revision; the whole course anew where there is none, or too long ago.

    `step`: seconds between two points. Raises ApiError where Prometheus does not answer as it should.
    """
    if known.profile is None:
        known = yield from _found(known)
        if known.profile is None:
            return known
    profile = known.profile
    assert profile is not None
    last = max((course.now.at for course in known.courses.values()), default=None)
    now = yield from _instant("time()")
    moment = now[0][1] if now else 0.0
    if last is None or not 0 <= moment - last <= 5 * step:
        return (yield from _whole(known, profile, moment, step))
    answers = []
    for query in queries(profile, known.window):
        found = yield from _instant(query, moment)
        answers.append({_key(profile, labels): value for labels, value in found})
    return replace(known, courses=MappingProxyType(_extended(known.courses, _points(moment, answers, profile))))


def queries(profile: Profile, window: float) -> tuple[str, str, str, str]:
    """Requests a second, failed ones a second, the median and the 99th percentile of latency, by revision."""
    by, span = f"{profile.namespace}, {profile.revision}", f"{window:.0f}s"
    failed = " or ".join(f"rate({selector}[{span}])" for selector in profile.failed)
    buckets = f"sum by (le, {by}) (rate({profile.buckets}[{span}]))"
    return (
        f"sum by ({by}) (rate({profile.requests}[{span}]))",
        f"sum by ({by}) ({failed})",
        f"histogram_quantile(0.5, {buckets})",
        f"histogram_quantile(0.99, {buckets})",
    )


def _found(known: Metrics) -> Operation[Metrics]:
    """The first profile that has series with a revision, and a window of at least four scrapes."""
    for profile in PROFILES:
        selector = f'{profile.requests}{{{profile.revision}!=""}}'
        counts = yield from _instant(f"max(count_over_time({selector}[5m]))")
        scrapes = counts[0][1] if counts else 0.0
        if scrapes:
            newest = yield from _instant(f"max(count_over_time({selector}[1m]))")
            a_minute = newest[0][1] if newest else scrapes / 5
            interval = 60.0 / max(a_minute, 0.2)
            window = min(_LONGEST, max(_SHORTEST, 4 * interval))
            return replace(known, profile=profile, window=window, interval=interval)
    return known


def _whole(known: Metrics, profile: Profile, end: float, step: float) -> Operation[Metrics]:
    answers: list[dict[str, dict[float, float]]] = []
    span = {"start": f"{end - step * (POINTS - 1):.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
    for query in queries(profile, known.window):
        answer = yield Request("GET", "/api/v1/query_range", {"query": query} | span)
        found: dict[str, dict[float, float]] = {}
        for entry in _result(answer):
            values = {round(_number(at), 3): _number(value) for at, value in entry.get("values") or []}
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
    return f"{labels.get(profile.namespace, '')}/{labels.get(profile.revision, '')}"


@dataclass(frozen=True)
class Count:
    """How many requests revisions have been sent in all, as of one scrape; None where none is counted any more."""

    total: float | None
    scraped: float = 0.0  # seconds since the epoch
    active: float = 0.0  # under way


def count(profile: Profile, namespace: str, revisions: Sequence[str]) -> Operation[Count]:
    """The raw counters of some revisions at the newest scrape."""
    names = "|".join(revisions)
    where = f'{{{profile.namespace}="{namespace}",{profile.revision}=~"{names}"}}'
    total = yield from _instant(f"sum({profile.requests}{where})")
    scraped = yield from _instant(f"max(timestamp({profile.requests}{where}))")
    active = (yield from _instant(f"sum({profile.active}{where})")) if profile.active else []
    if not total or not scraped:
        return Count(None)
    return Count(total[0][1], scraped[0][1], active[0][1] if active else 0.0)
