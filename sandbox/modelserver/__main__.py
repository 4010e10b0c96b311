"""`python -P -m sandbox.modelserver --home HOME`: run the model servers of one sandbox until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import signal
import sys
from pathlib import Path

from sandbox.modelserver.api import listen
from sandbox.modelserver.host import Host
from sandbox.modelserver.wire import SOCKET


def main() -> None:
    """Hold the home's lock and serve; exit with the reason where another host has it."""
    parser = argparse.ArgumentParser(prog="python -P -m sandbox.modelserver", description="Run model servers.")
    parser.add_argument("--home", type=Path, required=True, help="the sandbox's home folder")
    home = parser.parse_args().home.resolve()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    lock = (home / SOCKET).with_name("lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another model server host runs in {home}")
        asyncio.run(_serve(home))


async def _serve(home: Path) -> None:
    stop = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, stop.set)
    host = Host(home)
    await host.start()
    server = await listen(host)
    await stop.wait()
    server.close()
    await host.stop()


if __name__ == "__main__":
    main()
