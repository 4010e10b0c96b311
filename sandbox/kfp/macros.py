"""The macros that KFP fills into text parameters of a run: [[RunUUID]], [[ScheduledTime]], [[CurrentTime]], [[Index]].

Times are in UTC. After a dot comes a Go layout ([[ScheduledTime.2006-01-02]]), and {{$.scheduledTime.strftime('%Y')}}
does the same with strftime. What a run does not have, and all that looks similar, stays as it is.
Source: parameter_formatter.go and v2_template.go of kubeflow/pipelines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_MACRO = re.compile(
    r"\[\[(?P<name>RunUUID|Index|ScheduledTime|CurrentTime)(?:\.(?P<layout>[^\[\]]*))?\]\]"
    r"|\{\{\$\.(?P<time>scheduledTime|currentTime)\.strftime\('(?P<format>[^'{}]*)'\)\}\}"
)
_DEFAULT = "%Y%m%d%H%M%S"
# The parts of Go's reference time, the longer ones first where one begins another.
_GO = {
    "2006": "%Y",
    "January": "%B",
    "Monday": "%A",
    "MST": "%Z",
    "Jan": "%b",
    "Mon": "%a",
    "-0700": "%z",
    "01": "%m",
    "02": "%d",
    "03": "%I",
    "04": "%M",
    "05": "%S",
    "06": "%y",
    "15": "%H",
    "PM": "%p",
}
_GO_PART = re.compile("|".join(_GO))


@dataclass(frozen=True)
class Facts:
    """What is filled in, times in epoch seconds. A run that no schedule made has neither `scheduled_at` nor `index`."""

    run_id: str
    now: float
    scheduled_at: float | None = None
    index: int | None = None


def filled(value: Any, facts: Facts) -> Any:
    """`value` with its macros filled in where it is text."""
    return _MACRO.sub(lambda found: _substitute(found, facts), value) if isinstance(value, str) else value


def _substitute(found: re.Match[str], facts: Facts) -> str:
    name, layout = found["name"] or found["time"], found["layout"]
    if name in ("RunUUID", "Index"):
        fact = facts.run_id if name == "RunUUID" else facts.index
        return found[0] if fact is None or layout is not None else str(fact)
    moment = facts.scheduled_at if name.lower() == "scheduledtime" else facts.now
    if moment is None:
        return found[0]
    pattern = found["format"] or _DEFAULT
    if layout is not None:
        pattern = _GO_PART.sub(lambda part: _GO[part[0]], layout.replace("%", "%%"))
    return datetime.fromtimestamp(int(moment), UTC).strftime(pattern)
