"""`python -P -m sandbox.gateway --home HOME --port PORT --admin-port PORT`: become Envoy."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.gateway.process import prepare


def main() -> None:
    """Prepare the files and replace this process by Envoy; exit with the reason where that cannot be done."""
    parser = argparse.ArgumentParser(prog="python -P -m sandbox.gateway", description="Run the sandbox's gateway.")
    parser.add_argument("--home", type=Path, required=True, help="the sandbox's home folder")
    parser.add_argument("--port", type=int, required=True, help="port for requests, on 127.0.0.1")
    parser.add_argument("--admin-port", type=int, required=True, help="port of Envoy's admin interface, on 127.0.0.1")
    options = parser.parse_args()
    try:
        argv = prepare(options.home, options.port, options.admin_port)
    except SandboxError as error:
        sys.exit(str(error))
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main()
