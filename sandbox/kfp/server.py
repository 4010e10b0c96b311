"""The pipelines process: the KFP API and the engine that runs what it accepts, in one asyncio loop on 127.0.0.1."""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import socket
import sys
import time
from datetime import UTC, tzinfo
from pathlib import Path
from threading import Event
from types import FrameType
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import uvicorn
from starlette.types import Scope

from sandbox.connections import cut
from sandbox.engine.engine import Engine
from sandbox.errors import SandboxError
from sandbox.kfp.api import make_app
from sandbox.kfp.service import Service
from sandbox.kfp.wire import Release
from sandbox.runstore.catalog import Catalog
from sandbox.runstore.database import Damaged
from sandbox.runstore.pruning import Keep
from sandbox.runstore.recurring import RecurringRuns
from sandbox.runstore.store import Store

_log = logging.getLogger(__name__)

CANNOT_RUN = 78  # EX_CONFIG: starting again will not help
TRY_AGAIN = 75  # EX_TEMPFAIL: with another port it may go
_RELEASE, _KEEP_RUNS, _KEEP_DAYS = "KANARY_KFP_RELEASE", "KANARY_KFP_KEEP_RUNS", "KANARY_KFP_KEEP_DAYS"
_ZONE = "CRON_SCHEDULE_TIMEZONE"  # KFP's own name for it
_GOODBYE_S = 2  # how long requests still going on, followed logs above all, may delay the end


def make_service(home: Path, release: Release = Release.BOTH, keep: Keep | None = None) -> Service:
    """The service over the files of `home`. Raises SandboxError when the store cannot be opened."""
    store = open_store(home / "kfp" / "kfp.sqlite")
    return Service(
        store=store,
        catalog=Catalog(store.database),
        recurring=RecurringRuns(store.database),
        engine=Engine(store, home),
        artifacts=home / "artifacts",
        release=release,
        keep=keep or Keep(),
        zone=cron_zone(os.environ.get(_ZONE, "")),
    )


def open_store(path: Path) -> Store:
    """The store in that file. A damaged one is put aside, whole, and a new one begun. Raises SandboxError."""
    try:
        return Store(path)
    except Damaged as error:
        mark = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        beside = path.with_name(f"{path.name}.unreadable-{mark}")
        try:
            for part in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
                if part.exists():
                    part.rename(beside.with_name(part.name.replace(path.name, beside.name)))
        except OSError as refusal:
            raise SandboxError(f"{error.message} It cannot be put aside: {refusal.strerror}.", error.hint) from None
        _log.error(
            "%s It is put aside as %s, nothing of it is deleted; runs, pipelines and experiments begin anew. The logs"
            " of old runs are still below %s.",
            error.message,
            beside,
            path.with_name("runs"),
        )
        return Store(path)


def cron_zone(name: str) -> tzinfo:
    """The time zone of cron schedules: UTC, as in a cluster, unless another is named. Raises SandboxError."""
    try:
        return ZoneInfo(name) if name else UTC
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SandboxError(f"{_ZONE}={name}: there is no such time zone.", "Name one like Europe/Berlin.") from None


class _Server(uvicorn.Server):
    """Tells requests that would go on for ever that the end has come."""

    closing: Event

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.closing.set()
        super().handle_exit(sig, frame)

    def cut(self, scope: Scope) -> None:
        """Aborts the connection that a request came on, with whatever is waiting to be sent."""
        client = tuple(scope.get("client") or ())
        if cut(list(self.server_state.connections), client):
            _log.warning("client %s:%s does not read its log: cut off", *client)


def serve(service: Service, listener: socket.socket) -> bool:
    """Answers on `listener` until SIGTERM or SIGINT; False when the application did not even start."""
    # uvicorn ends by raising the signal that stopped it once more, for whoever ran before: nobody did.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignore)
    server = make_server(service)
    server.run(sockets=[listener])
    return server.started


def make_server(service: Service) -> uvicorn.Server:
    """The HTTP server of the service, not yet running."""
    app = make_app(service)
    server = _Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=_GOODBYE_S))
    server.closing = service.closing
    app.state.cut = server.cut
    return server


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


def read_release(text: str) -> Release:
    """Raises SandboxError."""
    try:
        return Release(text)
    except ValueError:
        known = ", ".join(release.value for release in Release)
        raise SandboxError(f"{text!r} is no release of KFP that is played.", f"There are: {known}.") from None


def read_keep(runs: str, days: str) -> Keep:
    """The policy for old runs; "" keeps all. Raises SandboxError."""
    try:
        keep = Keep(int(runs) if runs else None, float(days) if days else None)
    except ValueError:
        keep = Keep(-1)
    if not ((keep.runs is None or keep.runs >= 0) and (keep.days is None or 0 <= keep.days < math.inf)):
        raise SandboxError(
            f"Runs to keep: {runs!r}, days: {days!r}: not numbers from 0 on.", f"See {_KEEP_RUNS} and {_KEEP_DAYS}."
        )
    return keep


def main(arguments: list[str]) -> int:
    """`python -P -m sandbox.kfp --home H --port P`; prints its URL when it listens. The exit status."""
    parser = argparse.ArgumentParser(prog="python -P -m sandbox.kfp", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the sandbox's home folder")
    parser.add_argument("--port", type=int, default=8888, help="0 takes a free one (default: %(default)s)")
    for option, variable, default, meaning in (
        ("--release", _RELEASE, Release.BOTH.value, "whose shape of a run is shown: 2.17, next, or both"),
        ("--keep-runs", _KEEP_RUNS, "", "how many ended runs are kept"),
        ("--keep-days", _KEEP_DAYS, "", "for how many days"),
    ):
        default = os.environ.get(variable, default)
        parser.add_argument(option, default=default, help=f"{meaning}; {variable} says it, too (%(default)s)")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        listener = listen(given.port)
    except SandboxError as error:
        print(error, file=sys.stderr)
        return TRY_AGAIN
    try:
        keep = read_keep(given.keep_runs, given.keep_days)
        service = make_service(given.home.resolve(), read_release(given.release), keep)
    except SandboxError as error:
        print(error, file=sys.stderr)
        return CANNOT_RUN
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    return 0 if serve(service, listener) else 1
