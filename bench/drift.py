"""The drift detector: events taken in on one core, and a check against alibi-detect's own call and Evidently.

`python -P -m bench.drift [--rounds N] [--peers evidently|none]`. All figures are CPU seconds, in turn in one run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from bench.peers.environments import ROOT, Unavailable, prepare
from bench.report import show, verdict
from serving.drift import detectors
from serving.drift.findings import Score
from serving.drift.frames import Message, pack, read
from serving.drift.table import Column, Table, pooled
from tests.drift.rig import detecting
from tests.drift.stream import About, request, response, rows, wire, write_model

NAME = "drift"
FEATURES, CATEGORIES, ROWS = 30, 10, 5000
EVENTS = 40_000
GOAL = "10,000 events/s on one core; a check of 30 features x 5,000 rows at most 1.1 times alibi-detect's own call"
_INTAKE, _CHECK = 10_000.0, 1.1


def table(seed: int) -> Table:
    """20 numbers and 10 categories, nothing of which drifts."""
    rng = np.random.default_rng(seed)
    numbers = FEATURES - CATEGORIES
    columns = [Column(f"n{at}") for at in range(numbers)] + [Column(f"c{at}", 6) for at in range(CATEGORIES)]
    shares = [0.02, 0.05, 0.08, 0.15, 0.3, 0.4]
    values = [rng.normal(size=(ROWS, numbers)), rng.choice(6, p=shares, size=(ROWS, CATEGORIES)).astype(np.float64)]
    return Table(tuple(columns), np.concatenate(values, axis=1))


def check(rounds: int) -> tuple[list[float], list[float]]:
    """CPU seconds of our check, its way to the other process and back included, and of alibi-detect's own call."""
    reference, window = table(0), table(1)
    # It is given what we give it: the same values, its own detector made beforehand.
    made = detectors.prepared(reference, len(window))
    right, own = pooled(window, made.targets), made.detector
    expected = own.predict(right.values, drift_type="feature")["data"]["p_val"]
    assert [score.p_value for score in ours(made, window)] == expected.tolist()
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        began = time.process_time()
        ours(made, window)
        between = time.process_time()
        own.predict(right.values, drift_type="feature")
        taken[0].append(between - began)
        taken[1].append(time.process_time() - between)
    return taken


def ours(made: detectors.Univariate, window: Table) -> list[Score]:
    """A check as the worker makes it: the window as a message, read, tested."""
    stream = io.BytesIO(b"".join(pack(Message({}, {"rows": window.values}))))
    message = read(stream.read)
    assert message is not None
    return made.scores(Table(window.columns, message.arrays["rows"]))


def intake(folder: Path) -> float:
    """Events a second of one core: requests and responses of a row each, pipelined, journalled and answered."""
    given = rows(EVENTS // 2, seed=0)
    write_model(folder / "releases" / "market" / "v1", given[:500])
    events = [
        event
        for number, row in enumerate(given)
        for event in (
            wire(About(), "request", f"e{number}", request(row)),
            wire(About(), "response", f"e{number}", response(row)),
        )
    ]
    options = ("--window_rows", "1000000", "--max_rows", "2000000")
    with detecting(folder / "home", folder / "releases", *options) as detector:
        process = psutil.Process(detector.process.pid)
        detector.send(events[:2000])
        before = process.cpu_times()
        statuses = detector.send(events[2000:])
        after = process.cpu_times()
        assert set(statuses) == {204}
        assert detector.metric("kanary_drift_open_window_rows") == EVENTS // 2
    return len(statuses) / (after.user + after.system - before.user - before.system)


def evidently(rounds: int, folder: Path) -> list[float] | str:
    """CPU seconds of Evidently's report on the same windows; why there are none where it will not install or run."""
    for name, seed in (("reference", 0), ("window", 1)):
        found = table(seed)
        head = ",".join(column.name for column in found.columns)
        np.savetxt(folder / f"{name}.csv", found.values, delimiter=",", header=head, comments="")
    try:
        python = prepare("evidently", lambda text: print(f"bench: {text}", file=sys.stderr, flush=True)) / "python"
    except Unavailable as error:
        return str(error)
    command = [str(python), "-P", "-m", "bench.peers.evidently_drift", str(folder), str(rounds)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return f"it does not run: {done.stderr.strip().splitlines()[-1]}"
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1].isdigit()]


def main() -> int:
    """Measure, print, judge; the exit status."""
    parser = argparse.ArgumentParser(prog="bench.drift", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="checks of each kind (default: %(default)s)")
    parser.add_argument("--peers", choices=("evidently", "none"), default="evidently")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-drift-") as scratch, contextlib.ExitStack():
        events_a_second = intake(Path(scratch))
        detectors.load()
        mine, theirs = check(given.rounds)
        other = evidently(max(3, given.rounds // 3), Path(scratch)) if given.peers == "evidently" else "not asked for"
    ratio = statistics.median(one / two for one, two in zip(mine, theirs, strict=True))
    figures: dict[str, object] = {
        "events_per_core_second": round(events_a_second),
        "check_ms": round(1000 * statistics.median(mine), 1),
        "alibi_detect_ms": round(1000 * statistics.median(theirs), 1),
        "check_ratio": round(ratio, 3),
    }
    shown = [("events taken in, a second of one core", f"{events_a_second:,.0f}")]
    shown += [
        ("check, ours", f"{figures['check_ms']} ms"),
        ("check, alibi-detect's own", f"{figures['alibi_detect_ms']} ms"),
    ]
    if isinstance(other, str):
        figures["evidently"] = other
        shown.append(("check, Evidently", f"skipped: {other}"))
    else:
        figures["evidently_ms"] = round(1000 * statistics.median(other), 1)
        shown.append(("check, Evidently", f"{figures['evidently_ms']} ms"))
    show("Drift detector, CPU time", ("what", "figure"), shown)
    ok = events_a_second >= _INTAKE and ratio <= _CHECK
    peer = None if isinstance(other, str) else statistics.median(other) / statistics.median(mine)
    return verdict(NAME, figures, peer, GOAL, ok)


if __name__ == "__main__":
    sys.exit(main())
