"""The pipelines process: the KFP API and the engine that runs what it accepts, in one asyncio loop on 127.0.0.1."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
from pathlib import Path
from threading import Event
from types import FrameType

import uvicorn

from sandbox.engine.engine import Engine
from sandbox.errors import SandboxError
from sandbox.kfp.api import make_app
from sandbox.kfp.service import Service
from sandbox.runstore.catalog import Catalog
from sandbox.runstore.store import Store

CANNOT_RUN = 78  # EX_CONFIG: starting again will not help
TRY_AGAIN = 75  # EX_TEMPFAIL: with another port it may go
_GOODBYE_S = 2  # how long requests still going on, followed logs above all, may delay the end


def make_service(home: Path) -> Service:
    """The service over the files of `home`. Raises SandboxError when the store cannot be opened."""
    store = Store(home / "kfp" / "kfp.sqlite")
    return Service(store, Catalog(store.database), Engine(store, home), home / "artifacts")


class _Server(uvicorn.Server):
    """Tells requests that would go on for ever that the end has come."""

    closing: Event

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.closing.set()
        super().handle_exit(sig, frame)


def serve(service: Service, listener: socket.socket) -> bool:
    """Answers on `listener` until SIGTERM or SIGINT; False when the application did not even start."""
    # uvicorn ends by raising the signal that stopped it once more, for whoever ran before: nobody did.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignore)
    app = make_app(service)
    server = _Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=_GOODBYE_S))
    server.closing = service.closing
    server.run(sockets=[listener])
    return server.started


def _ignore(number: int, frame: FrameType | None) -> None:
    """The default would end the process with the signal's status; it has ended in order."""


def listen(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1; 0 takes a free port. Raises SandboxError when the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise SandboxError(f"Port {port} cannot be had: {error.strerror}.", "Give another one with --port.") from None
    listener.listen(512)
    return listener


def main(arguments: list[str]) -> int:
    """`python -P -m sandbox.kfp --home H --port P`; prints its URL when it listens. The exit status."""
    parser = argparse.ArgumentParser(prog="python -P -m sandbox.kfp", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the sandbox's home folder")
    parser.add_argument("--port", type=int, default=8888, help="0 takes a free one (default: %(default)s)")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        listener = listen(given.port)
    except SandboxError as error:
        print(error, file=sys.stderr)
        return TRY_AGAIN
    try:
        service = make_service(given.home.resolve())
    except SandboxError as error:
        print(error, file=sys.stderr)
        return CANNOT_RUN
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    return 0 if serve(service, listener) else 1
