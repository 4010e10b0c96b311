"""Runs the Kubernetes API: `python -P -m sandbox.kubernetes --home H --port P --token-file F`.

Writes HOME/kubeconfig and, below HOME/kubernetes, the state, the certificate and the token. Listens on 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from starlette.types import Scope

from sandbox.connections import cut
from sandbox.errors import SandboxError
from sandbox.kubernetes import auth, controllers, kubeconfig, tls
from sandbox.kubernetes.admission import Admission
from sandbox.kubernetes.app import Api, application
from sandbox.kubernetes.cluster import EVENT_SECONDS, Cluster
from sandbox.kubernetes.storage import Store
from sandbox.kubernetes.watch import Hub

HOST = "127.0.0.1"
GRACE_SECONDS = 1
EVENT_TTL = "KANARY_EVENT_TTL"

log = logging.getLogger("sandbox.kubernetes")


class Server(uvicorn.Server):
    """Ends open watches when told to stop: they would keep it waiting."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    def handle_exit(self, sig: int, frame: object) -> None:
        self._hub.close()
        super().handle_exit(sig, frame)  # type: ignore[arg-type]

    def cut(self, scope: Scope) -> None:
        """Aborts the connection that a request came on, with whatever is waiting to be sent."""
        client = tuple(scope.get("client") or ())
        if cut(list(self.server_state.connections), client):
            log.warning("client %s:%s does not read its watch: cut off", *client)


def seconds(text: str) -> float:
    """How long something is kept: from one second to a year."""
    with contextlib.suppress(ValueError):
        if 1 <= (found := float(text)) <= 366 * 86400:
            return found
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 to {366 * 86400}")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sandbox.kubernetes", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the sandbox's home folder")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--token-file", type=Path, help="tokens, as kube-apiserver reads them; made if not there")
    parser.add_argument("--namespace", default="default", help="made if not there, and the kubeconfig's")
    parser.add_argument("--default-mode", choices=("Knative", "Standard"), default="Knative", help="KServe's default")
    parser.add_argument(
        "--event-ttl",
        type=seconds,
        default=os.environ.get(EVENT_TTL) or EVENT_SECONDS,
        metavar="SECONDS",
        help=f"how long events are kept (default: %(default)s, in a cluster an hour; from {EVENT_TTL})",
    )
    parser.add_argument("--no-admission", action="store_true", help="leave KServe's webhooks out")
    parser.add_argument("--plain", action="store_true", help="HTTP without TLS; kubectl then sends no token")
    return parser.parse_args(argv)


def listening(port: int) -> socket.socket:
    """A bound socket. Raises SandboxError if the port is taken."""
    # With the protocol named, asyncio sets TCP_NODELAY on what is accepted.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
    except OSError as error:
        sock.close()
        raise SandboxError(f"port {port} cannot be used: {error.strerror}", "Choose another with --port.") from error
    return sock


def run(chosen: argparse.Namespace) -> None:
    """Serves until a signal. Raises SandboxError when it cannot start."""
    home = chosen.home.resolve()
    folder = home / "kubernetes"
    tokens = auth.load_tokens(chosen.token_file or folder / "token")
    sock = listening(chosen.port)
    port = sock.getsockname()[1]
    store = Store(folder / "state.sqlite")
    admission = None if chosen.no_admission else Admission(chosen.default_mode)
    cluster = Cluster(store, home, admission, event_seconds=chosen.event_ttl)
    controllers.ensure_namespaces(cluster, (*controllers.INITIAL_NAMESPACES, chosen.namespace))
    certificate = None if chosen.plain else tls.ensure(folder / "tls")
    hub = Hub(cluster)
    api = Api(cluster, hub, tokens, f"{HOST}:{port}", lambda scope: server.cut(scope))
    config = uvicorn.Config(
        application(api),
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        ssl_certfile=certificate.certificate if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = Server(config, hub)
    url = f"{'https' if certificate else 'http'}://{HOST}:{port}"
    authority = certificate.authority if certificate else None
    kubeconfig.write(home / "kubeconfig", url, next(iter(tokens)), authority, chosen.namespace)
    # uvicorn raises the signal that stopped it again once it is done: the store is still to be closed then.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
    sock.listen(1024)
    log.info("listening on %s", url)
    try:
        server.run(sockets=[sock])
    finally:
        store.close()


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        run(arguments(argv))
    except SandboxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
