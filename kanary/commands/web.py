"""`kanary web`: the monitor in a browser, through textual-serve, for whoever has the address that is printed.

A page of another site, another user of this machine or another name for it gets nothing: the monitor has this user's
rights. Each page is a monitor of its own, a child process that ends with it.
"""

from __future__ import annotations

import argparse
import logging
import secrets
import shlex
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kanary.config import Config
from kanary.errors import ConfigError
from kanary.settings import SETTINGS

if TYPE_CHECKING:
    from aiohttp import web as aio
    from aiohttp.typedefs import Handler, Middleware

    from kanary.cli import Action

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost", "::1")
# The page names a style sheet of Google's: the monitor tells nobody that it is used.
_POLICY = "style-src 'self' 'unsafe-inline'; font-src 'self' data:"


def web(parser: argparse.ArgumentParser) -> Action:
    """Serve the monitor to a browser on this machine (127.0.0.1), until it is interrupted.

    Nothing can be changed from there unless --writable is given. Who opens the page needs the address with its key, as
    it is printed. Options of `kanary monitor` go to it. From elsewhere: ssh -L 8321:127.0.0.1:8321 HOST.
    """
    parser.add_argument("--port", type=_port, default=8321, help="where to listen; 0: any free one (default: 8321)")
    parser.add_argument("--writable", action="store_true", help="allow what changes a server, as in a terminal")
    return _web


def _web(given: argparse.Namespace, config: Config) -> int:
    import textual_serve.server  # noqa: F401  # first of all: what is missing is said before anything is opened

    options = [*given.passed_on, *([] if given.writable else ["--readonly"])]
    _check(options)
    listener = _listening(given.port)
    try:
        _serve(listener, command(config, options), writable=given.writable and not config.readonly)
    finally:
        listener.close()
    return 0


def command(config: Config, options: list[str]) -> str:
    """The shell command of the monitor: flags as they were given here, so that it finds the same settings."""
    flags: list[str] = []
    for setting in SETTINGS:
        value = getattr(config, setting.key)
        if config.sources[setting.key].kind != "flag":
            continue
        if isinstance(value, bool):
            flags.append(setting.flag if value else setting.flag.replace("--", "--no-", 1))
        else:
            text = ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
            flags.append(f"{setting.flag}={text}")
    # The shell makes room for it: its parent is the server, with which it ends.
    return "exec " + shlex.join([sys.executable, "-P", "-m", "kanary", "monitor", *flags, *options])


def _check(options: list[str]) -> None:
    """Ends with the monitor's own message where it would not take these options."""
    from kanary.cli import parser, resolve

    made, _ = parser("monitor", resolve("monitor"))
    made.parse_args(options)


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)  # whoever opens the printed address at once waits, and is not refused
    except OSError as error:
        listener.close()
        raise ConfigError(f"Port {port} of {HOST} cannot be had: {error.strerror}.", "Take another: --port.") from error
    return listener


def _serve(listener: socket.socket, monitor: str, *, writable: bool) -> None:
    from aiohttp import web as aio
    from textual_serve.server import Server

    # textual-serve logs what its client sends; a traceback of its own goes to stderr.
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s")
    port, key = listener.getsockname()[1], secrets.token_urlsafe(24)

    class Monitor(Server):
        """textual-serve's server behind a key, and without its banner."""

        async def _make_app(self) -> aio.Application:
            app: aio.Application = await super()._make_app()
            app.middlewares.append(guard(key, port))
            return app

        async def on_startup(self, app: Any) -> None:
            print(f"{self.public_url}/?key={key}", flush=True)
            rights = (
                "Whoever opens it may change what you may." if writable else "Read-only; --writable allows changes."
            )
            print(f"The monitor is served there to this machine. {rights} Ctrl+C ends it.", file=sys.stderr, flush=True)

    server = Monitor(monitor, HOST, port, title="kanary", public_url=f"http://{HOST}:{port}")
    aio.run_app(server._make_app(), sock=listener, print=None, access_log=None, shutdown_timeout=1.0)


def guard(key: str, port: int) -> Middleware:
    """Lets through who has shown the key once and asks by a name of this machine, from a page of this very server."""
    from aiohttp import web as aio

    cookie = f"kanary-{port}"

    @aio.middleware
    async def guarded(request: aio.Request, handler: Handler) -> aio.StreamResponse:
        # Another name that leads here is another site's (DNS rebinding).
        if urlsplit(f"//{request.host}").hostname not in _NAMES:
            raise aio.HTTPForbidden(text=f"Only {HOST} and localhost are served.\n")
        origin = request.headers.get("Origin")
        if origin and urlsplit(origin).netloc != request.host:
            raise aio.HTTPForbidden(text="Only pages of this server are served.\n")
        if request.path == "/" and secrets.compare_digest(request.query.get("key", "").encode(), key.encode()):
            entered = aio.HTTPSeeOther("/")
            entered.set_cookie(cookie, key, httponly=True, samesite="Strict")
            raise entered
        if not secrets.compare_digest(request.cookies.get(cookie, "").encode(), key.encode()):
            raise aio.HTTPForbidden(text="Open the address that `kanary web` has printed: it has the key.\n")
        answer = await handler(request)
        if not answer.prepared:
            answer.headers["Content-Security-Policy"] = _POLICY
            answer.headers["Referrer-Policy"] = "no-referrer"
        return answer

    return guarded


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError
    return port
