"""Asks Envoy what it does now: clusters and requests in flight (admin port), the routes it obeys (gateway port)."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from sandbox.gateway.bootstrap import LOOPBACK
from sandbox.gateway.routes import PROBE_HOST, PROBE_PATH

_TIMEOUT_S = 1.0
_HELD = r"^(http\.gateway\.downstream_rq_active|cluster\..*\.upstream_rq_(pending_)?active)$"


@dataclass(frozen=True)
class ClusterState:
    """The endpoints (`address:port`) of a cluster that Envoy uses, the requests they have in flight or waiting, and how
    many they have had.
    """

    addresses: tuple[str, ...]
    active: int
    total: int = 0


class Peer:
    """A kept-alive HTTP connection to one of Envoy's ports, opened again when Envoy has been restarted."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_TIMEOUT_S)

    def get(self, path: str, host: str = LOOPBACK) -> str | None:
        """The body of a 200 answer; None when Envoy does not answer, or otherwise."""
        for _ in range(2):
            fresh = self._connection.sock is None
            try:
                return self._ask(path, host)
            except TimeoutError:
                self._connection.close()
                return None
            except (OSError, http.client.HTTPException):
                self._connection.close()
            if fresh:
                return None
        return None

    def refuses(self) -> bool:
        """Whether nothing listens on the port; False for an Envoy that hangs."""
        try:
            socket.create_connection((LOOPBACK, self._connection.port), timeout=_TIMEOUT_S).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close the connection; the next `get` opens it again."""
        self._connection.close()

    def _ask(self, path: str, host: str) -> str | None:
        self._connection.request("GET", path, headers={"Host": host})
        response = self._connection.getresponse()
        body = response.read().decode("utf-8")
        return body if response.status == 200 else None


def live(admin_port: int) -> bool:
    """Whether Envoy has started and takes requests: the supervisor's probe."""
    admin = Peer(admin_port)
    try:
        return admin.get("/ready") is not None
    finally:
        admin.close()


def obeyed_routes(gateway: Peer) -> str | None:
    """The version of the routes that Envoy's worker applies to the very next request; None when it does not answer."""
    return gateway.get(PROBE_PATH, PROBE_HOST)


def cluster_states(admin: Peer, names: Iterable[str]) -> dict[str, ClusterState] | None:
    """The state of those of the named clusters that Envoy knows; None when it does not answer."""
    text = admin.get("/clusters?filter=" + quote(f"^({'|'.join(map(re.escape, names))})$", safe=""))
    return None if text is None else parse_clusters(text)


def unsent(admin: Peer) -> int | None:
    """How many requests Envoy holds that are with no revision: bodies still arriving, pauses between two attempts.

    Envoy has chosen their revision already, but looks its cluster up only when they go out. None when it does not
    answer.
    """
    text = admin.get("/stats?filter=" + quote(_HELD, safe=""))
    return None if text is None else parse_unsent(text)


def parse_unsent(text: str) -> int:
    """What admin `/stats` says of requests in lines `name: value`: those taken, less those with a cluster."""
    values = [line.rpartition(": ") for line in text.splitlines() if ": " in line]
    taken = sum(int(value) for name, _, value in values if name.startswith("http."))
    return taken - sum(int(value) for name, _, value in values if name.startswith("cluster."))


def parse_clusters(text: str) -> dict[str, ClusterState]:
    """What admin `/clusters` says, in its lines `name::address:port::field::value` and `name::field::value`."""
    found: dict[str, dict[str, int]] = {}
    totals: dict[str, int] = {}
    for line in text.splitlines():
        name, *parts = line.split("::")
        endpoints = found.setdefault(name, {})
        if len(parts) == 3 and parts[1] in ("rq_active", "rq_pending_active"):
            endpoints[parts[0]] = endpoints.get(parts[0], 0) + int(parts[2])
        elif len(parts) == 3 and parts[1] == "rq_total":
            totals[name] = totals.get(name, 0) + int(parts[2])
    return {
        name: ClusterState(tuple(endpoints), sum(endpoints.values()), totals.get(name, 0))
        for name, endpoints in found.items()
    }


def rejections(admin: Peer) -> str:
    """Why Envoy refused the files, in its own words as far as it gives any; empty when it refused none."""
    counters = admin.get("/stats?filter=" + quote(r"(cds|rds\..*)\.update_(rejected|failure)$", safe="")) or ""
    refused = [line for line in counters.splitlines() if not line.endswith(": 0")]
    return "; ".join(refused)
