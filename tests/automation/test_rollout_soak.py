"""Twenty seeded rollouts of each kind of canary, with real traffic: who is promoted, who is taken back, at what cost.

KANARY_SOAK_RUNS for another number, KANARY_SOAK_PARALLEL for so many at a time (they share the rate). Each rollout's
figures are a line of JSON on stdout.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pytest

from bench.httpload import COMMAND, Job
from kanary.rollout import record as records
from kanary.rollout.record import Record
from tests.automation.rig import (
    FAULTS,
    MODES,
    NEVER_READY,
    POLICY,
    RATE,
    WARM,
    Live,
    Releases,
    blame,
    exposed,
    gone,
    predictions,
)
from tests.rollout.rig import BODIES, Sandbox, Service
from tests.waiting import wait_for

pytestmark = [pytest.mark.sandbox, pytest.mark.soak]

RUNS = int(os.environ.get("KANARY_SOAK_RUNS", "20"))
PARALLEL = int(os.environ.get("KANARY_SOAK_PARALLEL", "2"))
PATIENT = POLICY | {"deadline": 900}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def announced(live_sandbox: Sandbox, releases: Releases) -> float:
    """The requests of both arms that `kanary plan` announces, from the traffic of a service like those below."""
    live = Live(Service(live_sandbox, "judged-plan"), releases)
    live.deploy(releases.v1)
    try:
        with live.service.traffic(RATE / PARALLEL) as traffic:
            wait_for(lambda: traffic.summary().requests > 3 * RATE, "stable has traffic to plan from", 120)
            return live.plan(PATIENT, RATE / PARALLEL).within
    finally:
        gone(live.service)


@pytest.mark.parametrize("kind", [*reversed(FAULTS), "good"])
@pytest.mark.parametrize("mode", MODES)
def test_rollouts_end_as_they_should(
    live_sandbox: Sandbox, releases: Releases, announced: float, mode: str, kind: str
) -> None:
    def one(seed: int) -> dict[str, Any]:
        live = Live(Service(live_sandbox, f"soak-{next(_numbers)}"), releases, mode)
        try:
            return figures(live, kind, seed, announced)
        finally:
            gone(live.service)

    with ThreadPoolExecutor(PARALLEL) as threads:
        results = list(threads.map(one, range(1, RUNS + 1)))
    expected = records.PROMOTED if kind == "good" else records.ROLLED_BACK
    right = [r for r in results if r["outcome"] == expected and (kind == "good" or r["needed"] <= announced)]
    needed = sorted(r["needed"] for r in results)
    summary = {"kind": kind, "mode": mode, "runs": RUNS, "right": len(right), "announced": announced, "needed": needed}
    print(json.dumps(summary), flush=True)
    assert sum(r["stable"] + r["switch"] for r in results) == 0, results
    if kind == "good":
        assert [r for r in results if r["outcome"] == records.ROLLED_BACK] == []
        assert len(right) == RUNS, results
    else:
        assert len(right) >= RUNS - RUNS // 20, results


def figures(live: Live, kind: str, seed: int, announced: float) -> dict[str, Any]:
    """One rollout, and what the access log says of it."""
    live.deploy(live.releases.v1)
    began = time.monotonic()
    with traffic(live.service.url, RATE / PARALLEL):
        wait_for(lambda: len(predictions(live.service.sandbox, live.name)) > 30, "stable has traffic", 60, every=0.5)
        if kind == "good":
            live.deploy(live.releases.v2)
        else:
            live.deploy_bad(kind, seed)
        record = live.roll_out(PATIENT | NEVER_READY if kind == "never starts" else PATIENT)
    sent = settled(live)
    blamed = blame(live.service.sandbox, live.name, record.canary)
    found = {
        "kind": kind,
        "mode": live.mode,
        "seed": seed,
        "outcome": record.outcome,
        "needed": exposed(live.service.sandbox, live.name, record),
        "judged": judged(record),
        "announced": announced,
        "requests": sent,
        "failed": blamed.canary,
        "stable": blamed.stable,
        "switch": blamed.switch,
        "seconds": round(time.monotonic() - began, 1),
        "warm": WARM,
        "why": record.why[:200],
    }
    print(json.dumps(found), flush=True)
    return found


@contextmanager
def traffic(url: str, rate: float) -> Iterator[None]:
    """Requests from a process of its own: one interpreter that sends them and judges, too, is soon at its limit."""
    job = Job(url, [body.decode() for body in BODIES], connections=8, seconds=3600.0, rate=rate)
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(job)))
        process.stdin.close()
        try:
            yield
        finally:
            process.kill()


def settled(live: Live) -> int:
    """How many predictions there were, once the access log has them all."""
    before = -1
    while (now := len(predictions(live.service.sandbox, live.name))) != before:
        before = now
        time.sleep(1.0)
    return now


def judged(record: Record) -> int:
    return sum(step.canary.requests + step.stable.requests for step in record.steps if step.percent < 100)
