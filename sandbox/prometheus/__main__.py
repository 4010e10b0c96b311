"""`python -P -m sandbox.prometheus --home HOME --port PORT --gateway-admin-port PORT`: become Prometheus."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from sandbox.prometheus.config import prepare
from sandbox.prometheus.find import HOW_TO_INSTALL, find

CANNOT_RUN = 78  # tells the supervisor that starting again will not help


def main() -> None:
    """Find a Prometheus, prepare its files and replace this process by it; say how to install one if there is none."""
    parser = argparse.ArgumentParser(prog="python -P -m sandbox.prometheus", description="Run the sandbox's metrics.")
    parser.add_argument("--home", type=Path, required=True, help="the sandbox's home folder")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--gateway-admin-port", type=int, required=True, help="where Envoy shows its statistics")
    parser.add_argument(
        "--drift-port", type=int, default=0, help="where the drift detector shows its metrics, 0: nowhere"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # a fetch under way leaves nothing behind
    found = find()
    if found is None:
        print(HOW_TO_INSTALL, file=sys.stderr)
        sys.exit(CANNOT_RUN)
    argv = prepare(options.home, found.binary, options.port, options.gateway_admin_port, options.drift_port)
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main()
