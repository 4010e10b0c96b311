"""How much of the traffic the events stand for. What too few stand for is unknown, never free of drift. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Arm = tuple[str, str, str]
"""Namespace, service, revision."""


@dataclass(frozen=True)
class Counted:
    """What the proxy has answered with success, by revision, since it started. `at`: seconds since the epoch."""

    at: float
    requests: Mapping[Arm, float]


@dataclass(frozen=True)
class Span:
    """One window's time as far as the proxy's counts are concerned: requests between its counts, None where unknown."""

    requests: float | None


def between(before: Counted | None, after: Counted | None, arm: Arm) -> Span:
    """The requests of `arm` from one count to the next. A proxy that has started anew counts from 0 again."""
    if before is None or after is None or arm not in after.requests:
        return Span(None)
    first, last = before.requests.get(arm, 0.0), after.requests[arm]
    return Span(last if last < first else last - first)


def share(events: int, span: Span) -> float | None:
    """Events by requests, at most 1; None where the requests are not known or where there were none."""
    if span.requests is None or (span.requests <= 0 and events):
        return None
    return 1.0 if span.requests <= 0 else min(1.0, events / span.requests)


def behind(events: int, span: Span) -> bool:
    """Whether there were events but, as far as the proxy has been counted, no request: its newest scrape is older."""
    return span.requests is not None and span.requests <= 0 < events


def doubt(found: float | None, least: float) -> str:
    """Why nothing can be said of the traffic; empty where enough of it was seen, or where `least` is 0."""
    if least <= 0:
        return ""
    if found is None:
        return "coverage unobservable"
    return f"coverage {found:.0%} below {least:.0%}" if found < least else ""
