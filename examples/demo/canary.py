"""The second half: live traffic on v1, v2 as a canary, the split measured, and the way back."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from demo.terminal import COMMAND, answer, kanary, step
from demo.training import MODEL, Prepared
from kanary import config, dataschema, traffic_rows
from kanary.commands.traffic import prediction_url, service_url
from kanary.errors import KanaryError
from kanary.traffic import Plan, Summary, Traffic

RATE = 100.0  # requests a second
PERCENT = 10
_MEASURED_S = 8.0
_AFTER_S = 2.0


@contextmanager
def live_traffic(prepared: Prepared, rate: float = RATE) -> Iterator[Traffic]:
    """Predictions of the example's rows through the gateway, for as long as the block lasts."""
    schema = dataschema.load(prepared.schema.read_text(encoding="utf-8"))
    rows = traffic_rows.read_rows(prepared.data, traffic_rows.from_schema(schema), schema.missing_values)
    base = service_url(MODEL, config.load({"home": str(prepared.home)}))
    step(f"Live traffic: {rate:g} predictions a second through the gateway")
    print(f"  {base}")
    with Traffic(Plan(prediction_url(base, MODEL), rows.bodies, rate=rate)) as traffic:
        yield traffic


def measure_split(traffic: Traffic, home: Path) -> dict[str, Any]:
    """How the requests of some seconds divide among the revisions, next to what was asked."""
    status = answer("status", MODEL, home=home)
    canary = status["canary"]
    step(f"Measure the split for {_MEASURED_S:g} s: {PERCENT} % asked, {status['effective']} % effective")
    before = traffic.summary()
    deadline = time.monotonic() + _MEASURED_S
    while time.monotonic() < deadline:
        time.sleep(min(2.0, max(0.0, deadline - time.monotonic())))
        print(f"  {shown(before, traffic.summary())}", flush=True)
    counted = difference(before, traffic.summary())
    total = sum(counted.values())
    if not total:
        raise KanaryError("No request was answered.", f"{COMMAND} logs gateway")
    share = 100 * counted.get(canary, 0) / total
    print(f"  measured: {share:.1f} % of {total} requests went to {canary}")
    return {"asked_percent": PERCENT, "measured_percent": round(share, 2), "requests": total, "canary": canary}


def roll_back(traffic: Traffic, canary: str, home: Path) -> dict[str, Any]:
    """`kanary rollback` under load; the figures tell when the last request reached the canary."""
    step(f"kanary rollback {MODEL}")
    done = answer("rollback", MODEL, "--reason", "the demo's way back", home=home)
    for name, at in done["seconds"].items():
        if at is not None:
            print(f"  {at * 1000:6.0f} ms  {_STAGES[name]}")
    subprocess.run(kanary("status", MODEL, home=home), check=True)
    time.sleep(_AFTER_S)  # whatever were still to reach the canary would show now
    if done["outcome"] != "done":
        raise KanaryError(f"The rollback is {done['outcome']}: {done['why']}", f"{COMMAND} rollback {MODEL}")
    sent = _moment(done["started"]) + done["seconds"]["sent"]
    last = last_request(home / "logs" / "access.log", canary)
    late = max(0.0, 1000 * (last - sent))
    print(f"  the last request that reached the canary came {late:.0f} ms after the patch was sent")
    return {
        "seconds": done["seconds"],
        "patch_to_last_canary_request_ms": round(late, 1),
        "denied": done["from"]["digest"],
        "stable": done["after"]["stable"],
    }


_STAGES = {
    "sent": "the patch leaves: all traffic to the stable revision",
    "patched": "the API has accepted it",
    "effective": "the canary gets no traffic",
    "restored": "the stable content is back in the spec and serves",
}


def total(summary: Summary) -> dict[str, Any]:
    """The traffic's figures; KanaryError where a request failed."""
    quantiles = f"p50 {summary.p50_ms:.1f} ms, p99 {summary.p99_ms:.1f} ms"
    print(f"\n  {summary.requests} requests, {summary.failed} failed, {quantiles}")
    if summary.failed:
        raise KanaryError(f"{summary.failed} requests failed: {dict(summary.reasons)}", f"{COMMAND} logs access")
    return {
        "requests": summary.requests,
        "failed": summary.failed,
        "p50_ms": summary.p50_ms,
        "p99_ms": summary.p99_ms,
    }


def last_request(access_log: Path, revision: str) -> float:
    """When the last request that `revision` answered came to the gateway, in seconds since the epoch."""
    with access_log.open(encoding="utf-8") as lines:
        times = [_moment(entry["time"]) for entry in map(json.loads, lines) if entry["revision"] == revision]
    if not times:
        raise KanaryError(f"No request has reached {revision}.", f"{COMMAND} logs access")
    return max(times)


def difference(before: Summary, after: Summary) -> dict[str, int]:
    """Requests by revision between two moments."""
    found = {name: count - before.by_revision.get(name, 0) for name, count in after.by_revision.items()}
    return {name: count for name, count in found.items() if count}


def shown(before: Summary, after: Summary) -> str:
    counted: Mapping[str, int] = difference(before, after)
    parts = ", ".join(f"{name} {count}" for name, count in sorted(counted.items()))
    return f"{parts}; {after.failed - before.failed} failed"


def _moment(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
