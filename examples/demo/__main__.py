"""Runs the demo: the sandbox up, v1 trained and serving, broken data refused, v2 in canary, and back.

Figures go to HOME/demo.json. On a terminal it ends in the monitor, with v3 in canary under live traffic.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo import canary, training, watching
from demo.terminal import COMMAND, kanary, step, write_figures
from kanary import config
from kanary.errors import KanaryError


def main() -> int:
    """Run the demo; 0 where everything went as it should, the refusal of the broken data included."""
    os.environ.pop("PYTHONPATH", None)  # it was for us; the processes that we start do not need it
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # else what other programs print comes first
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the sandbox running at the end")
    parser.add_argument("--stop", action="store_true", help="stop the sandbox at the end, on a terminal too")
    parser.add_argument("--no-monitor", action="store_true", help="end with the figures, on a terminal too")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        raise KanaryError(f"The sandbox needs Linux (or WSL2); this is {sys.platform}.", "The monitor runs here, too.")
    home = config.load().home
    began = time.monotonic()
    with sandbox(home, stop=options.stop or not (options.keep or sys.stdout.isatty())):
        figures = walk(home)
        figures["seconds"] = round(time.monotonic() - began, 2)
        write_figures(home / "demo.json", figures)
        if not options.no_monitor and watching.possible(os.environ):
            watching.watch(training.prepared(home))
    return 0


def walk(home: Path) -> dict[str, Any]:
    """The whole path, step by step; gives its figures. Raises KanaryError where a step did not do what it should."""
    prepared = training.prepare(home)
    first = training.train(prepared, "train-v1", prepared.data, service=training.MODEL, seed=1)
    training.must_release(first)
    training.report(first)
    refused = training.train(prepared, "train-on-broken-data", prepared.broken)
    training.must_be_refused(refused)
    with canary.live_traffic(prepared) as traffic:
        second = training.train(
            *(prepared, "train-v2", prepared.data),
            service=training.MODEL,
            canary_percent=canary.PERCENT,
            seed=int(time.time()),  # a new model each time: one that was rolled back is refused for good
        )
        training.must_release(second)
        training.report(second)
        split = canary.measure_split(traffic, home)
        rollback = canary.roll_back(traffic, split["canary"], home)
        summary = traffic.stop()
    return {
        "v1": training.results(first),
        "refusal": {"run_id": refused.run_id, "reason": training.task(refused, "validate").error},
        "v2": training.results(second),
        "split": split,
        "rollback": rollback,
        "traffic": canary.total(summary),
    }


@contextmanager
def sandbox(home: Path, stop: bool) -> Iterator[None]:
    """The sandbox of `home`, up; stopped at the end if asked, unless it ran before the demo."""
    step("Start the sandbox: Kubeflow's APIs on this machine")
    before = subprocess.run(kanary("info", "--json", home=home), capture_output=True, text=True, check=False)
    ran = before.returncode == 0 and bool(json.loads(before.stdout).get("sandbox", {}).get("running"))
    subprocess.run(kanary("up", home=home), check=True)
    try:
        yield
    finally:
        if stop and not ran:
            step("Stop the sandbox")
            subprocess.run(kanary("down", home=home), check=True)
        else:
            print(f"\nThe sandbox is left running, with the service {training.MODEL} and without traffic.")
            print(f"Look at it with:  make monitor   {COMMAND} status   {COMMAND} runs")
            print("Stop it with:  make down")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KanaryError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except subprocess.CalledProcessError as error:
        print(f"demo: {' '.join(error.cmd[3:])} failed; what it printed stands above", file=sys.stderr)
        sys.exit(1)
