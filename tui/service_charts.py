"""Canary against stable as charts: what callers saw of both, and how far apart they are. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kanary.snapshot_gaps import Gap, judged, shown
from kanary.snapshot_metrics import POINTS, Metrics, Point
from kanary.snapshot_services import Service
from kanary.text import duration, latency, percent, rate
from tui.graph import chart, interval_bar
from tui.look import Spans

_BARS = (11, 31)  # shortest and longest bar of an interval; odd, so that zero has a place
_WIDE = 100  # characters from which there is room to say of what the interval is
_BETWEEN = 2  # blanks between two charts


def charts(service: Service, metrics: Metrics | None, width: int, height: int) -> list[Spans]:
    """Canary against stable: requests, errors and the 99th percentile, side by side, as far back as is known; below,
    how far apart they are. `height` lines in all, at least five.
    """
    if metrics is None or metrics.profile is None:
        return [[(metrics.note if metrics else "No metrics yet.", "dim")]]
    status = service.status
    courses = {
        role: metrics.courses.get(f"{status.namespace}/{name}")
        for role, name in (("stable", status.stable or status.created), ("canary", status.canary))
        if name
    }
    known = {role: course.points for role, course in courses.items() if course}
    if not known:
        return [[(f"No request to it was counted yet by {metrics.profile.counter}.", "dim")]]
    gaps = gap_lines(service, known, width)
    rows = max(3, min(20, height - len(gaps) - 2))
    each = max(16, (width - 2 * _BETWEEN) // 3)
    panels = (
        _panel("requests/s", known, lambda p: p.requests, rate, None, each, rows),
        _panel("errors", known, lambda p: p.errors, percent, 0.01, each, rows),
        _panel("p99", known, lambda p: p.p99, latency, None, each, rows),
    )
    blank = (" " * _BETWEEN, "")
    lines: list[Spans] = [
        [*panels[0][row], blank, *panels[1][row], blank, *panels[2][row]] for row in range(len(panels[0]))
    ]
    return [*lines, legend(known, metrics), *gaps]


def legend(known: Mapping[str, Sequence[Point]], metrics: Metrics) -> Spans:
    """Which is which, over how long, and who has counted."""
    points = max(len(p) for p in known.values())
    newest, oldest = max(p[-1].at for p in known.values()), min(p[0].at for p in known.values())
    signs: Spans = (("█ stable  ", "stable"), *((("▒ canary  ", "canary"),) if "canary" in known else ()))
    counter = metrics.profile.counter if metrics.profile else ""
    told = f"{duration(newest - oldest)}, {points} points, rates over {metrics.window:.0f} s, from {counter}"
    return (*signs, (told, "dim"))


def gap_lines(service: Service, known: Mapping[str, Sequence[Point]], width: int) -> list[Spans]:
    """How far the canary is from stable, with the interval: the judge's, or that of the points that are shown."""
    if "canary" not in known or "stable" not in known:
        return []
    gaps: Sequence[Gap] = judged(service.rollout, service.status.canary)
    if not gaps:
        seen = shown(known["canary"], known["stable"])
        gaps = [seen] if seen is not None else []
    name = max((len(gap.name) for gap in gaps), default=0)
    return [_gap_line(gap, name, width) for gap in gaps]


def _gap_line(gap: Gap, name: int, width: int) -> Spans:
    style = "info"
    if gap.margin is not None:
        style = "bad" if gap.low > gap.margin else "good" if gap.high < gap.margin else "info"
    elif gap.low > 0:
        style = "bad"
    margin = "" if gap.margin is None else f"  margin {signed(gap.margin)}"
    of = f"{margin}  95 %, {'judged over the rollout' if gap.judged else 'of what is shown'}"
    before: Spans = (
        (f"{gap.name:{name}} ", "bold"),
        ("canary - stable " if width >= _WIDE else "", "dim"),
        (f"{signed(gap.difference):>7} ", style),
    )
    after: Spans = (
        (f" {signed(gap.low)} to {signed(gap.high)}", style),
        (of if width >= _WIDE else margin, "dim"),
    )
    room = width - sum(len(text) for text, _ in (*before, *after))
    bar = max(_BARS[0], min(_BARS[1], room - 1 + room % 2))
    return (*before, *interval_bar(gap.low, gap.difference, gap.high, gap.margin, bar, style), *after)


def signed(share: float) -> str:
    """A difference of shares in percent: `+0.42 %`, `-12 %`."""
    points = 100 * share
    if abs(points) < 0.005:
        return "0 %"
    digits = 0 if abs(points) >= 10 else 1 if abs(points) >= 1 else 2
    return f"{points:+.{digits}f} %"


def _panel(
    title: str,
    known: Mapping[str, Sequence[Point]],
    value: Callable[[Point], float | None],
    words: Callable[[float | None], str],
    least: float | None,
    width: int,
    height: int,
) -> list[Spans]:
    """A title line with the newest numbers and what the top stands for, and the chart below it, `width` wide."""
    courses = {role: [value(point) for point in points] for role, points in known.items()}
    top = max((v for values in courses.values() for v in values if v is not None), default=0.0)
    top = max(top, least or 0.0)
    head: list[tuple[str, str]] = [(f"{title} ", "bold")]
    head += [(f"{words(values[-1])} ", role) for role, values in courses.items()]
    scale = f"top {words(top)}" if top else ""
    room = width - sum(len(text) for text, _ in head)
    if len(scale) > room:
        scale = ""
    head.append((scale.rjust(max(0, room)), "dim"))
    return [tuple(head), *chart(courses, width, height, POINTS, top)]
