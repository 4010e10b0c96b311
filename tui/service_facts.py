"""What is told of one service: how it stands, its revisions, its releases, its object as YAML. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kanary import release
from kanary.snapshot_metrics import Course, Metrics
from kanary.snapshot_services import Service, moment
from kanary.text import duration, latency, one_line, percent, rate
from tui.graph import share_bar
from tui.look import Spans, clock_time, state_sign
from tui.service_words import rollout_lines, short
from tui.table import Cell, Column, Row

REVISIONS = (
    Column("revision", "REVISION", 0),
    Column("role", "ROLE", 7),
    Column("version", "VERSION", 16),
    Column("bar", "", 16, at=108),
    Column("share", "SHARE", 6, right=True),
    Column("ready", "READY", 5),
    Column("requests", "REQ/S", 6, right=True),
    Column("errors", "ERRORS", 7, right=True),
    Column("p50", "P50", 7, at=90, right=True),
    Column("p99", "P99", 7, right=True),
)
HISTORY = (
    Column("when", "WHEN", 11),
    Column("version", "VERSION", 16),
    Column("verdict", "VERDICT", 12),
    Column("revision", "REVISION", 10),
    Column("who", "WHO", 12),
    Column("why", "WHY", 0),
)
TIMELINE = (Column("when", "WHEN", 11), Column("kind", "KIND", 9), Column("text", "WHAT", 0))
_VERDICTS = {
    release.PROMOTED: "good",
    release.FOUND: "",
    release.ROLLED_BACK: "warn",
    release.FAILED: "bad",
    release.CANARY: "canary",
}


def facts(service: Service | None, now: datetime) -> list[Spans]:
    """What it is and how it stands, in words."""
    if service is None:
        return [[("The service is gone.", "bold warn")]]
    status = service.status
    sign, style = state_sign(service.situation)
    asked = "" if status.requested is None else f"   asked {status.requested} %, effective {status.effective} %"
    since = service.canary_since
    out = f"   out for {duration((now - since).total_seconds())}" if since else ""
    lines: list[Spans] = [
        [(f"{status.namespace}/{status.name}", "bold"), (f"   {status.mode}   {one_line(status.url)}", "dim")],
        [(f"{sign} {service.situation}", style), (asked, ""), (out, "canary")],
    ]
    if status.act:
        since_when = clock_time(moment(status.since), now) or one_line(status.since)
        lines.append([("last act  ", "dim"), (f"{one_line(status.act)}, {since_when}", "")])
    lines += rollout_lines(service)
    problems = [service.problem, status.failure, *status.notes]
    return lines + [[(f"! {one_line(text)}", "warn")] for text in problems if text]


def revision_rows(service: Service, metrics: Metrics | None) -> dict[str, Row]:
    """Its revisions: those with traffic or a part to play."""
    status = service.status
    found: dict[str, Row] = {}
    courses: Mapping[str, Course] = metrics.courses if metrics else {}
    for revision in status.revisions:
        course = courses.get(f"{status.namespace}/{revision.name}")
        now = course.now if course else None
        role = revision.role or "–"
        style = revision.role if revision.role in ("stable", "canary") else "dim"
        found[revision.name] = (
            Cell(short(status, revision.name)),
            Cell(role, style),
            Cell(revision.version or "?"),
            Cell("", spans=share_bar([(revision.percent, style)], 16)),
            Cell(f"{revision.percent} %", "bold"),
            Cell("✓ yes", "good") if revision.ready else Cell("✗ no", "bad"),
            Cell(rate(now.requests) if now else "–"),
            Cell(percent(now.errors) if now else "–", "bold bad" if now and now.errors and now.errors > 0.05 else ""),
            Cell(latency(now.p50) if now else "–", "dim"),
            Cell(latency(now.p99) if now else "–"),
        )
    return found


def history_rows(service: Service, now: datetime) -> dict[str, Row]:
    """Its releases, the newest first, as Kanary has recorded them."""
    found: dict[str, Row] = {}
    for index, entry in reversed(list(enumerate(service.state.history))):
        denied = release.denial(service.state, entry.digest)
        verdict = f"{entry.verdict}{', denied' if denied else ''}"
        found[str(index)] = (
            Cell(clock_time(moment(entry.when), now), "dim"),
            Cell(entry.version or entry.digest),
            Cell(verdict, _VERDICTS.get(entry.verdict, "")),
            Cell(short(service.status, entry.revision)),
            Cell(entry.who, "dim"),
            Cell(entry.why, "dim"),
        )
    return found


def as_yaml(document: Mapping[str, Any]) -> str:
    """An object for a person: as YAML, without the bookkeeping of who set which field."""
    import yaml

    metadata = {key: value for key, value in (document.get("metadata") or {}).items() if key != "managedFields"}
    return yaml.safe_dump(json.loads(json.dumps(dict(document) | {"metadata": metadata})), sort_keys=False, width=110)
