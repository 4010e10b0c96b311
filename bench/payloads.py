"""`python -P -m bench.payloads`: what the payload log costs a predictor, and how much of it arrives at which load.

Two predictors of one model, one with a payload log of every prediction, are loaded in turn, for some seconds each; load
and sink are processes of their own. On a machine whose cores are all busy the sender runs on what is left.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from bench.httpload import Job, put_load
from bench.report import show, verdict
from bench.sink import sink
from tests.serving.predictor_rig import ROWS, Server, serving, write_model

GOAL = 0.03
_PATIENCE_S = 5.0
_BODY = json.dumps({"instances": ROWS[:1]})


@dataclass(frozen=True)
class Figures:
    """Answers a second, the predictor's CPU seconds a prediction, and the share of events that were sent."""

    rate: float
    cpu: float
    sent: float


def measure(server: Server, connections: int, seconds: float, rate: float = 0.0) -> Figures:
    """Load one predictor. The share counts what was sent by the time the queue was empty, or seconds later."""
    before, used = events(server), cpu(server.process.pid)
    url = f"http://127.0.0.1:{server.port}/v1/models/plants:predict"
    load = put_load(Job(url, [_BODY], connections, seconds, rate=rate))
    if load.failed:
        raise RuntimeError(f"predictions failed under load: {load.failed}")
    used = (cpu(server.process.pid) - used) / load.total
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and waiting(server):
        time.sleep(0.1)
    after = events(server)
    done = {outcome: after[outcome] - before.get(outcome, 0.0) for outcome in after}
    total = sum(done.values())
    return Figures(load.rate, used, done.get("sent", 0.0) / total if total else 0.0)


def progress(connections: int, plain: Figures, logged: Figures) -> None:
    """A line for whoever waits."""
    text = f"{connections} connections: {plain.rate:.0f}/s without, {logged.rate:.0f}/s with, {logged.sent:.0%} sent"
    print(text, file=sys.stderr, flush=True)


def metrics(server: Server) -> Iterator[tuple[str, float]]:
    """Lines of /metrics about the payload log."""
    with urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("kanary_payload"):
                name, _, value = line.rpartition(" ")
                yield name, float(value)


def events(server: Server) -> dict[str, float]:
    """Events so far by outcome."""
    found: dict[str, float] = {}
    for name, value in metrics(server):
        if "_events_total" in name:
            outcome = name.partition('outcome="')[2].partition('"')[0]
            found[outcome] = found.get(outcome, 0.0) + value
    return found


def waiting(server: Server) -> bool:
    """Whether events wait to be sent."""
    return any(value for name, value in metrics(server) if "queue_events" in name)


def cpu(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def predictors(folder: Path) -> Iterator[tuple[Server, Server]]:
    """One without and one with a payload log, and the sink that it sends to."""
    write_model(folder / "model")
    with sink() as url, serving(folder / "model", folder / "without") as without:
        told = json.dumps({"url": url, "inferenceservicename": "plants", "namespace": "default"})
        with serving(folder / "model", folder / "with", "--payload_log", told) as logging:
            yield without, logging


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; 0 where the goal is met."""
    parser = argparse.ArgumentParser(prog="python -P -m bench.payloads")
    parser.add_argument("--rounds", type=int, default=8, help="times that each predictor is loaded, in turn")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each time")
    options = parser.parse_args(argv)
    rows, costs, figures = [], [], {}
    with tempfile.TemporaryDirectory() as folder, predictors(Path(folder)) as (without, logging):
        for server in (without, logging):
            measure(server, 16, 2.0)
        full = 0.0
        for connections in (16, 64):
            pairs = []
            for turn in range(options.rounds):
                order = (without, logging) if turn % 2 == 0 else (logging, without)
                found = {server.port: measure(server, connections, options.seconds) for server in order}
                pairs.append((found[without.port], found[logging.port]))
                progress(connections, *pairs[-1])
            cost = 1 - statistics.median(b.rate / a.rate for a, b in pairs)
            plain, logged = (statistics.median(pair[side].rate for pair in pairs) for side in (0, 1))
            spent = [statistics.median(pair[side].cpu for pair in pairs) * 1e6 for side in (0, 1)]
            sent = statistics.median(pair[1].sent for pair in pairs)
            full = max(full, logged)
            costs.append(cost)
            figures[f"at_{connections}"] = {"cost": round(cost, 4), "sent": round(sent, 3), "rate": round(logged)}
            cells = (
                f"{plain:.0f}",
                f"{logged:.0f}",
                f"{cost:+.1%}",
                f"{spent[0]:.0f}",
                f"{spent[1]:.0f}",
                f"{sent:.1%}",
            )
            rows.append((f"all it takes, {connections} connections", *cells))
        for share in (0.5, 0.65, 0.8):
            found_at = measure(logging, 16, options.seconds * 2, full * share)
            figures[f"at_{share:.0%}"] = {"sent": round(found_at.sent, 3)}
            rate, spent_one = f"{found_at.rate:.0f}", f"{found_at.cpu * 1e6:.0f}"
            rows.append((f"{share:.0%} of that", "", rate, "", "", spent_one, f"{found_at.sent:.1%}"))
    headers = ("load", "1/s without", "1/s with", "cost", "CPU µs without", "CPU µs with", "events sent")
    show("A payload log of every prediction, one row each", headers, rows)
    goal = f"payload log: less than {GOAL:.0%} of throughput at full sampling"
    return verdict("payloads", figures, None, goal, max(costs) < GOAL)


if __name__ == "__main__":
    sys.exit(main())
