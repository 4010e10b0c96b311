"""`python -P -m sandbox.kserve --home HOME`: run the KServe controller of one sandbox until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from pathlib import Path

from sandbox.errors import SandboxError
from sandbox.kserve.controller import SCALE_DOWN_S, Controller
from sandbox.kserve.manifests import load
from sandbox.kserve.standard_wish import FIRST_RELEASE, NEXT_RELEASE

_RELEASE = "KANARY_KSERVE_RELEASE"


def main() -> None:
    """Hold the home's lock and reconcile; exit with the reason where another controller has it."""
    parser = argparse.ArgumentParser(prog="python -P -m sandbox.kserve", description="Run the KServe controller.")
    parser.add_argument("--home", type=Path, required=True, help="the sandbox's home folder")
    parser.add_argument(
        "--scale-down-seconds",
        type=float,
        default=SCALE_DOWN_S,
        help="how long a revision that nothing leads to keeps its server (default: %(default)g)",
    )
    parser.add_argument(
        "--apply",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="runtimes and ConfigMaps that shall be there from the start",
    )
    parser.add_argument(
        "--release",
        choices=(FIRST_RELEASE, NEXT_RELEASE),
        default=os.environ.get(_RELEASE) or NEXT_RELEASE,
        help=f"which KServe to behave like with canaries in Standard mode: {FIRST_RELEASE} gives them no traffic, the "
        f"release after it does (default: %(default)s; from {_RELEASE})",
    )
    options = parser.parse_args()
    if options.release not in (FIRST_RELEASE, NEXT_RELEASE):
        sys.exit(f"{_RELEASE} must be {FIRST_RELEASE} or {NEXT_RELEASE}, not {options.release!r}")
    home = options.home.resolve()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        installed = [document for path in options.apply for document in load(path)]
    except SandboxError as error:
        sys.exit(str(error))
    lock = home / "kserve" / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another KServe controller runs in {home}")
        asyncio.run(_run(Controller(home, options.scale_down_seconds, installed, options.release)))


async def _run(controller: Controller) -> None:
    running = asyncio.create_task(controller.run())
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, running.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await running
    finally:
        await controller.close()


if __name__ == "__main__":
    main()
