"""The end on a terminal: one more canary out, traffic that goes on, and the monitor to look at it and to steer it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping

from demo import canary, training
from demo.terminal import kanary, step

RATE = 40.0  # requests a second: enough to see, and the machine has the monitor to draw, too


def possible(environ: Mapping[str, str]) -> bool:
    """Whether somebody sits there who can see the monitor and leave it."""
    return os.isatty(0) and os.isatty(1) and environ.get("TERM", "dumb") != "dumb" and not environ.get("CI")


def watch(prepared: training.Prepared) -> None:
    """v3 as a canary under live traffic, and the monitor until it is left; the traffic ends with it."""
    with canary.live_traffic(prepared, RATE) as traffic:
        third = training.train(
            *(prepared, "train-v3", prepared.data),
            service=training.MODEL,
            canary_percent=canary.PERCENT,
            seed=int(time.time()),
        )
        training.must_release(third)
        step("The monitor. R takes the canary back, P promotes it, Enter opens the service, ? tells more, q leaves")
        subprocess.run(kanary("monitor", "--view", "services", home=prepared.home), check=True)
        done = traffic.stop()
    print(f"\nThe traffic has stopped: {done.requests} requests while you looked, {done.failed} failed")
