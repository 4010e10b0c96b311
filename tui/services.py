"""View 2: InferenceServices, where their traffic really goes, and what callers see of each revision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from textual import on

from kanary.snapshot_hub import METRICS, SERVICES
from kanary.snapshot_metrics import Course, Metrics
from kanary.snapshot_services import URGENCY, Service
from kanary.text import duration, latency, one_line, percent, rate
from tui.actions import bindings
from tui.graph import share_bar, sparkline
from tui.look import state_sign
from tui.service_acts import ServiceActs
from tui.table import Cell, Column, KeyedTable, Row
from tui.view import Listing, OpenService, View

COLUMNS = (
    Column("state", "STATE", 10),
    Column("name", "SERVICE", 0),
    Column("version", "VERSION", 27, at=150),
    Column("newest", "VERSION", 14, at=100, until=150),
    Column("traffic", "TRAFFIC", 14),
    Column("share", "CANARY", 10),
    Column("age", "SINCE", 7, at=96, right=True),
    Column("requests", "REQ/S", 5, at=84, right=True),
    Column("course", "", 12, at=132),
    Column("errors", "ERRORS", 7, right=True),
    Column("p50", "P50", 7, at=108, right=True),
    Column("p99", "P99", 7, right=True),
    Column("slow", "", 12, at=144),
    Column("note", "NOTE", 36, at=190),
)


@dataclass(frozen=True)
class Line:
    """A service, and the courses of its stable revision and its canary."""

    service: Service
    stable: Course | None = None
    canary: Course | None = None
    everywhere: bool = False


def line(service: Service, metrics: Metrics | None, everywhere: bool) -> Line:
    courses: Mapping[str, Course] = metrics.courses if metrics else {}
    status = service.status
    return Line(
        service,
        courses.get(f"{status.namespace}/{status.stable or status.created}"),
        courses.get(f"{status.namespace}/{status.canary}") if status.canary else None,
        everywhere,
    )


def state_cell(service: Service) -> Cell:
    sign, style = state_sign(service.situation)
    return Cell(f"{sign} {service.situation}", style)


def traffic_cell(service: Service, width: int) -> Cell:
    """The effective split: stable, canary, others, from left to right."""
    shares = [(r.percent, r.role if r.role in ("stable", "canary") else "dim") for r in service.status.revisions]
    if not any(percent for percent, _ in shares):
        return Cell("no traffic", "dim")
    return Cell("", spans=share_bar(shares, width))


def share_cell(service: Service) -> Cell:
    """The canary's effective share, and what was asked where that is something else."""
    status = service.status
    if not status.canary:
        return Cell("")
    if status.requested is not None and status.requested != status.effective:
        return Cell(f"{status.effective} of {status.requested} %", "bold warn")
    return Cell(f"{status.effective} %", "canary")


def worse(now: Line, value: Callable[[Course], float | None]) -> tuple[float | None, str]:
    """The canary's number where there is a canary, else stable's; warned of where the canary's is clearly worse."""
    if now.canary is None:
        return (value(now.stable) if now.stable else None), ""
    mine, other = value(now.canary), value(now.stable) if now.stable else None
    bad = mine is not None and other is not None and mine > 2 * other and mine > 0.01
    return mine, "bad" if bad else "canary"


def version_cell(service: Service) -> Cell:
    """`v1`, or `v1 → v2` during a canary; `?` where nobody recorded it."""
    status = service.status
    stable, canary = status.revision(status.stable or status.created), status.revision(status.canary)
    shown = stable.version or "?" if stable else "?"
    if canary is None:
        return Cell(shown)
    half = 12
    return Cell(
        "", spans=((one_line(shown)[:half], ""), (" → ", "dim"), (one_line(canary.version or "?")[:half], "canary"))
    )


def newest_cell(service: Service) -> Cell:
    """The version of the canary where there is one, else that of the stable revision."""
    status = service.status
    found = status.revision(status.canary or status.stable or status.created)
    return Cell((found.version if found else "") or "?", "canary" if status.canary else "")


def row(now: Line, moment: datetime) -> Row:
    service, status = now.service, now.service.status
    total = [course.now.requests for course in (now.stable, now.canary) if course]
    errors, error_style = worse(now, lambda course: course.now.errors)
    p99, p99_style = worse(now, lambda course: course.now.p99)
    p50, _ = worse(now, lambda course: course.now.p50)
    newest = now.canary or now.stable
    if errors and errors > 0.05:
        error_style = "bold bad"
    since = service.canary_since
    verdict = service.under_way.sentence if service.under_way else ""
    notes = [service.problem, status.failure, verdict, *status.notes]
    return (
        state_cell(service),
        Cell(f"{status.namespace}/{status.name}" if now.everywhere else status.name),
        version_cell(service),
        newest_cell(service),
        traffic_cell(service, 14),
        share_cell(service),
        Cell(short_age((moment - since).total_seconds()) if since else ""),
        Cell(rate(sum(total)) if total else "–", "" if total else "dim"),
        Cell(sparkline([p.requests for p in newest.points], 12) if newest else "", "info"),
        Cell(percent(errors), error_style if errors else "dim"),
        Cell(latency(p50), "dim"),
        Cell(latency(p99), p99_style if p99 is not None else "dim"),
        Cell(sparkline([p.p99 for p in newest.points], 12) if newest else "", "canary" if now.canary else "stable"),
        Cell(next((note for note in notes if note), ""), "warn"),
    )


def short_age(seconds: float) -> str:
    """An age in its largest unit and the next: `12 s`, `3m 05s`, `2h 07m`."""
    return duration(max(0.0, round(seconds))).replace(".0", "")


SORTS: Mapping[str, Callable[[Line, datetime], Any]] = {
    "urgency": lambda now, moment: (URGENCY.index(now.service.situation), now.service.key),
    "name": lambda now, moment: now.service.key,
    "requests": lambda now, moment: -sum(c.now.requests for c in (now.stable, now.canary) if c),
    "errors": lambda now, moment: -max((c.now.errors or 0.0 for c in (now.stable, now.canary) if c), default=0.0),
}


def words(now: Line) -> Sequence[str]:
    status = now.service.status
    versions = [revision.version for revision in status.revisions]
    return status.name, status.namespace, now.service.situation, status.mode, *versions


class ServicesView(View[Line], ServiceActs):
    """The list of services."""

    PLACES: ClassVar[tuple[str, ...]] = ("view", "services")
    LISTING: ClassVar[Listing[Line]] = Listing(
        "services", "Services", COLUMNS, SORTS, lambda now: now.service.key, row, words
    )
    SOURCES: ClassVar[tuple[str, ...]] = (SERVICES, METRICS)
    BINDINGS = bindings("services")

    def items(self) -> Sequence[Line]:
        services, everywhere = self.hub.services.value or {}, self.hub.scope.everywhere
        return [line(service, self.hub.metrics.value, everywhere) for service in services.values()]

    def empty_text(self) -> str:
        where = "any namespace" if self.hub.scope.everywhere else "this namespace (-A looks at all)"
        return f"No InferenceServices in {where}. The training pipeline's `service` parameter deploys one."

    def the_service(self) -> Service | None:
        return self.current.service if self.current else None

    @on(KeyedTable.Selected, "#services-table")
    def _open(self, event: KeyedTable.Selected) -> None:
        self.post_message(OpenService(event.key))
