"""How far apart canary and stable are, with an interval: the judge's where a rollout is judged, else of what is shown.

Pure; the interval of what is shown is for looking, no verdict: it holds for one look (the judge's: for any number).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kanary.rollout.record import Record
from kanary.snapshot_metrics import Point
from kanary.text import one_line

_Z = 1.96  # 95 %


@dataclass(frozen=True)
class Gap:
    """The canary's share of requests with an outcome less stable's, from `low` to `high`. `margin`: what is tolerated.

    `judged`: by a rollout's judge, over the whole rollout; else over the points that are shown, without a margin.
    """

    name: str
    difference: float
    low: float
    high: float
    margin: float | None = None
    judged: bool = False


def judged(record: Record | None, canary: str) -> tuple[Gap, ...]:
    """Of each family of outcomes the one that is furthest beyond its margin; none where nothing was judged of it."""
    if record is None or not canary or record.canary != canary:
        return ()
    found: dict[str, Gap] = {}
    reasons = record.findings.get("reasons")
    for reason in reasons if isinstance(reasons, Sequence) else ():
        gap = _read(reason) if isinstance(reason, Mapping) else None
        if gap is not None:
            family = str(reason.get("family"))
            known = found.get(family)
            found[family] = gap if known is None or _beyond(gap) > _beyond(known) else known
    return tuple(found.values())


def shown(canary: Sequence[Point], stable: Sequence[Point]) -> Gap | None:
    """Of failures, over the moments that both courses hold; None where one of them had no request.

    Newcombe's interval (1998, method 10: from the two Wilson score intervals). A point's rate is taken to hold until
    the next point.
    """
    moments = {point.at for point in canary} & {point.at for point in stable}
    n, x = _counts(point for point in canary if point.at in moments)
    m, y = _counts(point for point in stable if point.at in moments)
    if n < 1 or m < 1:
        return None
    p, q = x / n, y / m
    (p_low, p_high), (q_low, q_high) = _wilson(p, n), _wilson(q, m)
    low = p - q - math.hypot(p - p_low, q_high - q)
    high = p - q + math.hypot(p_high - p, q - q_low)
    return Gap("errors", p - q, low, high)


def _counts(points: Iterable[Point]) -> tuple[float, float]:
    """Requests, and failed ones, of a course."""
    ordered = sorted(points, key=lambda point: point.at)
    spans = [after.at - before.at for before, after in itertools.pairwise(ordered)]
    requests = failed = 0.0
    for point, span in zip(ordered, spans, strict=False):
        requests += point.requests * span
        failed += point.requests * span * (point.errors or 0.0)
    return requests, failed


def _wilson(p: float, n: float) -> tuple[float, float]:
    middle, half = p + _Z**2 / (2 * n), _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n))
    scale = 1 + _Z**2 / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _read(reason: Mapping[str, Any]) -> Gap | None:
    interval = reason.get("interval")
    if not isinstance(interval, Mapping):
        return None
    numbers = [reason.get("difference"), interval.get("low"), interval.get("high"), reason.get("margin")]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        return None
    difference, low, high, margin = (float(number) for number in numbers if number is not None)
    return Gap(one_line(str(reason.get("name") or "")), difference, low, high, margin, judged=True)


def _beyond(gap: Gap) -> float:
    return gap.difference - (gap.margin or 0.0)
