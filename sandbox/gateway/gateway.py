"""Brings a description of services into force: writes Envoy's files in an order in which no request is lost.

New clusters -> Envoy knows them -> routes -> Envoy obeys them -> clusters that nothing leads to any more are drained,
then removed. The files are the truth: an Envoy or a writer that starts again goes on from them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.gateway import admin
from sandbox.gateway.clusters import addresses, clusters, discovery, resources
from sandbox.gateway.description import RevisionKey, Service, check
from sandbox.gateway.files import Document, Files, Held
from sandbox.gateway.process import ports
from sandbox.gateway.routes import Routing, routing

DRAIN_AT_LEAST_S = 2.0
DRAIN_AT_MOST_S = 65.0

DOWN = "Envoy does not answer; it takes the files up when it starts"
# After so long without effect Envoy is told again, should it have missed the first time.
_TELL_AGAIN_S = 0.5


@dataclass(frozen=True)
class Applied:
    """What became of a description. Where it is not `in_force`, the files hold it and `reason` says what is missing.

    `draining`: revisions no longer described that may have requests in flight; stop none before `sweep` has let go of
    it. `shadowed`: hosts asked for that already lead to another service.
    """

    version: str
    in_force: bool
    reason: str
    seconds: float
    draining: tuple[RevisionKey, ...]
    shadowed: tuple[str, ...]


class Gateway:
    """The one writer of the gateway's files below `home`. Its methods block for milliseconds and are thread-safe."""

    def __init__(self, home: Path, clock: Callable[[], float] = time.monotonic) -> None:
        files = Files(home.resolve())
        gateway_port, admin_port = ports(home)
        self._clusters = Held(files.clusters)
        self._routes = Held(files.routes)
        self._worker = admin.Peer(gateway_port)
        self._admin = admin.Peer(admin_port)
        self._clock = clock
        self._lock = threading.Lock()
        self._in_use: dict[str, Document] = {}
        self._retired: dict[str, float] = {}
        # Of these Envoy has held no unsent request since their last route went: none can reach them any more.
        self._unreachable: set[str] = set()
        self._routes_settled = False

    def close(self) -> None:
        """Close the connections to Envoy."""
        with self._lock:
            self._worker.close()
            self._admin.close()

    def apply(self, services: Sequence[Service], timeout_s: float = 2.0) -> Applied:
        """Make Envoy route by `services`, all there are; return once it does, after `timeout_s`, or if it is down.

        Raises InvalidSpec, and changes nothing, for a description that Envoy would refuse.
        """
        check(services)
        started = time.monotonic()
        wanted, routes = clusters(services), routing(services)
        with self._lock:
            reason = self._put_clusters(wanted, started + timeout_s)
            if reason in ("", DOWN):
                reason = self._put_routes(routes, started + timeout_s) or reason
            self._routes_settled = reason in ("", DOWN)
            self._retire(wanted)
            seconds = time.monotonic() - started
            return Applied(routes.version, not reason, reason, seconds, self._draining(), routes.shadowed)

    def sweep(self) -> tuple[RevisionKey, ...]:
        """Remove drained clusters; return the revisions that still drain. Call it now and then while there are any.

        Drained, at the earliest two seconds after its last route went: every request that Envoy held unsent at that
        time has gone out or ended, and then none is in flight; or 65 seconds after in any case.
        """
        with self._lock:
            age = {name: self._clock() - since for name, since in self._retired.items()}
            due = [name for name in age if age[name] >= DRAIN_AT_LEAST_S and self._routes_settled]
            states = admin.cluster_states(self._admin, due) if self._unreachable.intersection(due) else None
            drained = {
                name
                for name in due
                if age[name] >= DRAIN_AT_MOST_S or (name in self._unreachable and _idle(states, name))
            }
            # Only after that: who goes out between the two questions is in flight at the next sweep.
            if due and admin.unsent(self._admin) == 0:
                self._unreachable.update(due)
            if drained:
                self._clusters.put(discovery(held for name, held in self._on_disk().items() if name not in drained))
                self._retired = {name: since for name, since in self._retired.items() if name not in drained}
                self._unreachable -= drained
            return self._draining()

    def activity(self, keys: Sequence[RevisionKey]) -> dict[RevisionKey, tuple[int, int]]:
        """How many requests revisions have had, and have in flight or waiting; nothing where Envoy does not answer."""
        with self._lock:
            states = admin.cluster_states(self._admin, [str(key) for key in keys]) or {} if keys else {}
        return {RevisionKey.parse(name): (state.total, state.active) for name, state in states.items()}

    def active(self, key: RevisionKey) -> int:
        """How many requests the revision has in flight or waiting; 0 for one that Envoy does not know."""
        with self._lock:
            state = (admin.cluster_states(self._admin, [str(key)]) or {}).get(str(key))
        return state.active if state else 0

    def _put_clusters(self, wanted: dict[str, Document], deadline: float) -> str:
        """Add and change clusters, remove none; empty once Envoy uses them, else what is missing."""
        known = self._on_disk()
        if known | wanted != known:
            self._clusters.put(discovery((known | wanted).values()))
        unproven = {name: cluster for name, cluster in wanted.items() if self._in_use.get(name) != cluster}
        reason = self._wait(self._clusters, lambda: self._unused(unproven), deadline) if unproven else ""
        if not reason:
            self._in_use = wanted
        return reason

    def _put_routes(self, routes: Routing, deadline: float) -> str:
        document = discovery([routes.configuration], routes.version)
        if self._routes.get() != document:
            self._routes.put(document)
        return self._wait(self._routes, lambda: self._disobeyed(routes.version), deadline)

    def _unused(self, wanted: dict[str, Document]) -> str:
        states = admin.cluster_states(self._admin, list(wanted))
        if states is None:
            return _silence(self._admin)
        late = [name for name, cluster in wanted.items() if not _uses(states.get(name), cluster)]
        return f"Envoy does not use the clusters {', '.join(late)}" if late else ""

    def _disobeyed(self, version: str) -> str:
        obeyed = admin.obeyed_routes(self._worker)
        if obeyed is None:
            return _silence(self._worker)
        return "" if obeyed == version else f"Envoy obeys the routes {obeyed}, not {version}"

    def _wait(self, held: Held, missing: Callable[[], str], deadline: float) -> str:
        """Ask until nothing is missing, Envoy is down or the deadline has passed."""
        pause, tell_again = 0.0002, time.monotonic() + _TELL_AGAIN_S
        while (reason := missing()) not in ("", DOWN):
            now = time.monotonic()
            if now >= deadline:
                return f"{reason} {admin.rejections(self._admin)}".rstrip()
            if now >= tell_again:
                held.put(held.get() or discovery(()))
                tell_again = deadline
            time.sleep(pause)
            pause = min(pause * 1.5, 0.01)
        return reason

    def _retire(self, wanted: dict[str, Document]) -> None:
        for name in self._on_disk():
            if name not in wanted:
                self._retired.setdefault(name, self._clock())
        self._retired = {name: since for name, since in self._retired.items() if name not in wanted}
        self._unreachable.intersection_update(self._retired)

    def _draining(self) -> tuple[RevisionKey, ...]:
        return tuple(RevisionKey.parse(name) for name in sorted(self._retired))

    def _on_disk(self) -> dict[str, Document]:
        found = resources(self._clusters.get()) or ()
        return {cluster["name"]: cluster for cluster in found if RevisionKey.names(cluster["name"])}


def _silence(peer: admin.Peer) -> str:
    return DOWN if peer.refuses() else "Envoy takes connections but does not answer"


def _uses(state: admin.ClusterState | None, cluster: Document) -> bool:
    return state is not None and state.addresses == addresses(cluster)


def _idle(states: dict[str, admin.ClusterState] | None, name: str) -> bool:
    """Whether Envoy has said that the cluster has nothing in flight, or that there is no such cluster."""
    return states is not None and (name not in states or states[name].active == 0)
