"""A rollout in brief: for `kanary status`, and for whoever has just said something to it."""

from __future__ import annotations

import time
from typing import Any

from kanary.rollout import record as records
from kanary.rollout.record import Record
from kanary.text import one_line


def summary(record: Record) -> dict[str, Any]:
    """A rollout in brief, as plain JSON types."""
    paused = record.paused
    return {
        "id": record.id,
        "phase": record.phase,
        "outcome": record.outcome,
        "why": record.why,
        "percent": record.percent,
        "steps": list(record.policy.get("steps", ())),
        "version": record.version,
        "digest": record.digest,
        "verdict": record.verdict,
        "sentence": record.sentence,
        "waits": record.waits,
        "until": _until(record) or None,
        "paused": vars(paused) if paused else None,
        "acts": [vars(act) for act in record.acts],
        "started": record.started,
        "ended": record.ended,
        "who": record.who,
        "evidence": {"uri": record.evidence_uri, "sha256": record.sha256} if record.sha256 else None,
    }


def report(record: Record) -> str:
    """A rollout in brief, for a person."""
    steps = " -> ".join(f"[{step}]" if step == record.percent else str(step) for step in record.policy["steps"])
    lines = [f"rollout   {record.version or record.digest}: {record.outcome or record.phase}, {steps} %"]
    if record.sentence:
        lines.append(f"verdict   {one_line(record.sentence)}")
    if record.outcome:
        lines.append(f"ended     {record.ended}: {one_line(record.why)}")
    elif record.waits:
        until = _until(record)
        left = f" (until {time.strftime('%H:%M:%S', time.localtime(until))})" if until else ""
        lines.append(f"waits     {one_line(record.waits)}{left}")
    for act in record.acts[-3:]:
        why = f": {act.why}" if act.why else ""
        lines.append(f"said      {act.what} by {act.who}, {act.when}{one_line(why)}")
    return "\n".join(lines)


def _until(record: Record) -> float:
    """Until when the step bakes, in seconds since the epoch; 0 where that is over or it does not."""
    bake = record.in_force + float((record.policy.get("bake") or {}).get("seconds", 0))
    return bake if record.phase == records.BAKING and bake > record.looked else 0.0
