"""What Prometheus has seen go wrong, and when: alerts that fired, and models whose data drifted, as stretches of time.

Asks for nothing but queries and the list of alerts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from kanary.errors import ApiError
from kanary.operations import Operation, Request
from kanary.promql import Labels, further, instant, number, quoted, ranged

ALERT, DRIFT = "alert", "drift"
SPAN = 6 * 3600.0  # seconds that are looked back
STEP = 30.0  # looked at moments that are a multiple of it: a beginning stays where it is
_MOST = 300  # stretches that are kept, the newest
_GAP = 2.5 * STEP  # seconds without a sample that end one
_NO_PART = ("__name__", "alertstate")
_MODEL = ("namespace", "service", "revision", "version")
_SAYS = ("summary", "description", "message")


@dataclass(frozen=True)
class Stretch:
    """One alert or one model's drift, from when to when; `end` is None while it goes on.

    `most`: columns that drifted at once. `says`: an alert's summary, or the columns that drift now. `exact`: the
    beginning is known; without, it may lie before what was looked at.
    """

    kind: str
    labels: Labels
    start: datetime
    end: datetime | None = None
    most: int = 0
    says: str = ""
    exact: bool = True

    @property
    def key(self) -> str:
        named = ",".join(f"{name}={value}" for name, value in sorted(self.labels.items()))
        return f"{self.kind}/{named}/{self.start.timestamp() if self.exact else 0:.0f}"


@dataclass(frozen=True)
class Alerts:
    """All stretches of the last hours, the newest first."""

    stretches: tuple[Stretch, ...] = ()


def refresh(namespace: str, selectors: Labels) -> Operation[Alerts]:
    """The stretches of a namespace, "" for all. Raises ApiError where Prometheus does not answer as it should."""
    clock = yield from instant("time()")
    now = math.floor(clock[0][1] / STEP) * STEP if clock else 0.0
    where = further(selectors)
    of = f"namespace={quoted(namespace)}" if namespace else 'namespace!=""'
    # Alerts without a namespace may be of a service, too: whoever shows them knows the services.
    alerting = f", namespace=~{quoted(f'{namespace}|')}" if namespace else ""
    fired = yield from ranged(f'ALERTS{{alertstate="firing"{alerting}{where}}}', now - SPAN, now, STEP)
    by = ", ".join(_MODEL)
    drifted = yield from ranged(f"count by ({by}) (kanary_drift_detected{{{of}{where}}} == 1)", now - SPAN, now, STEP)
    alerts = list(_stretches(ALERT, fired, now))
    drifts = list(_stretches(DRIFT, drifted, now))
    if any(alert.end is None for alert in alerts):
        alerts = _described(alerts, (yield from _active()))
    if any(drift.end is None for drift in drifts):
        columns = yield from instant(f"topk(50, kanary_drift_detected{{{of}{where}}} == 1)")
        drifts = [_with_columns(drift, columns) for drift in drifts]
    found = sorted((*alerts, *drifts), key=lambda stretch: stretch.start, reverse=True)
    return Alerts(tuple(found[:_MOST]))


def _stretches(kind: str, series: Iterable[tuple[Labels, Sequence[Any]]], now: float) -> Iterable[Stretch]:
    """Samples that follow each other as one stretch; what had its last one just now goes on."""
    for labels, pairs in series:
        own = {name: value for name, value in labels.items() if name not in _NO_PART}
        begun = last = math.nan
        most = 0
        for at, value in [(number(at), number(value)) for at, value in pairs] + [(math.inf, 0.0)]:
            if at - last > _GAP:
                going = now - last <= _GAP
                exact = begun > now - SPAN + STEP
                yield Stretch(kind, own, _moment(begun), None if going else _moment(last + STEP), most, exact=exact)
            if not at - last <= _GAP:  # the first sample, too
                begun, most = at, 0
            last, most = at, max(most, int(value))


def _active() -> Operation[list[Mapping[str, Any]]]:
    """The alerts that are active now, with what they say; none where the server keeps no such list (Thanos, Mimir)."""
    try:
        answer = yield Request("GET", "/api/v1/alerts")
    except ApiError:
        return []
    data = answer.get("data") if isinstance(answer, dict) else None
    alerts = data.get("alerts") if isinstance(data, dict) else None
    return [alert for alert in alerts if isinstance(alert, dict)] if isinstance(alerts, list) else []


def _described(stretches: Iterable[Stretch], active: Iterable[Mapping[str, Any]]) -> list[Stretch]:
    said: dict[frozenset[tuple[str, str]], str] = {}
    for alert in active:
        labels, annotations = alert.get("labels"), alert.get("annotations")
        if isinstance(labels, dict) and isinstance(annotations, dict):
            said[_own(labels)] = next((str(annotations[name]) for name in _SAYS if annotations.get(name)), "")
    return [replace(s, says=said.get(_own(s.labels), "")) if s.end is None else s for s in stretches]


def _own(labels: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    return frozenset((str(name), str(value)) for name, value in labels.items())


def _with_columns(drift: Stretch, columns: Iterable[tuple[Labels, float]]) -> Stretch:
    if drift.end is not None:
        return drift
    names = [
        labels.get("feature") or labels.get("kind") or "?"
        for labels, _ in columns
        if all(labels.get(name, "") == drift.labels.get(name, "") for name in _MODEL)
    ]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return replace(drift, says=", ".join(sorted(names)[:3]) + more)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
