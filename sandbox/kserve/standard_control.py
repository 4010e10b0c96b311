"""Acts on one InferenceService in Standard mode: does what `standard_decide` says, in its order.

Part of the controller, which says whose turn it is; keeps only records of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sandbox import steady
from sandbox.errors import NotFound
from sandbox.gateway.description import path
from sandbox.kserve import standard as st
from sandbox.kserve import standard_decide as decisions
from sandbox.kserve import standard_wish as wishes
from sandbox.kserve import story
from sandbox.kserve.config import Config
from sandbox.kserve.decide import Problem
from sandbox.kserve.following import Key
from sandbox.kserve.knative import Document, Servers
from sandbox.kserve.mirroring import Mirror
from sandbox.kserve.predictor import service_name
from sandbox.kserve.recorder import Recorder
from sandbox.kserve.router import Router
from sandbox.kserve.runtimes import Runtime
from sandbox.kserve.servers import ModelServers
from sandbox.kserve.standard import Backend, Standard
from sandbox.kserve.standard_decide import StandardDecision
from sandbox.kserve.standard_mirror import StandardFound
from sandbox.kserve.standard_route import describe, urls
from sandbox.kserve.standard_wish import StandardWish, standard_wish
from sandbox.kserve.store import Store, standard_from
from sandbox.kserve.writes import Writes

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What the controller acts through. `overtaken`: whether a service has changed since it was looked at."""

    home: Path
    router: Router
    servers: ModelServers
    writes: Writes
    recorder: Recorder
    mirror: Mirror
    overtaken: Callable[[Key, Document], bool]


class StandardControl:
    """All services in Standard mode, as `release` of KServe controls them."""

    def __init__(self, parts: Parts, release: str) -> None:
        self._parts = parts
        self._release = release
        self._store = Store(parts.home / "kserve" / "standard.sqlite", standard_from)
        self._known = self._store.load()
        self._seen: dict[str, Servers] = {}
        self._problems: dict[str, tuple[Problem, ...]] = {}

    @property
    def known(self) -> frozenset[str]:
        """The uids of the services that there are records of."""
        return frozenset(self._known)

    def close(self) -> None:
        """Close the file of records."""
        self._store.close()

    def preset(self, key: Key, service: Document, available: Sequence[Runtime], config: Config) -> None:
        """Describe to the gateway what it obeys already; what has no record gets one from what still runs."""
        uid = service["metadata"]["uid"]
        try:
            wish, servers = self._wish(key, service, available, config), self._parts.servers.of(uid)
        except NotFound:  # a gateway that was never prepared obeys nothing
            return
        known = self._known.get(uid)
        if known is None and (known := self._recovered(wish, service.get("status") or {}, servers)) is not None:
            self._keep(uid, known)
        if known is not None and known.routed:
            self._parts.router.preset(key, (describe(key, known, known.routed, servers, wish.timeout_s),))

    async def step(
        self, key: Key, service: Document, available: Sequence[Runtime], config: Config
    ) -> tuple[bool, bool]:
        """Decide and act once; whether anything changed, and whether the gateway obeys."""
        uid, now = service["metadata"]["uid"], steady.now()
        status: Document = service.get("status") or {}
        wish, servers = self._wish(key, service, available, config), self._parts.servers.of(uid)
        known = self._known.get(uid)
        decision = decisions.decide(wish, known, servers, now, self._release)
        self._keep(uid, decision.record)
        obeyed = await self._bring_into_force(key, uid, decision, servers, wish)
        await self._move_servers(key[0], uid, servers, steady.now())
        statuses = decisions.tell(decision, wish, status, servers, obeyed, _text(time.time()))
        events = [*story.of_servers(self._seen.get(uid, {}), servers, pods="{revision}")]
        events += decisions.events(known, decision, wish, status, statuses, self._problems.get(uid, ()))
        self._problems[uid] = decision.problems
        events += _of_route(known.routed if known is not None else (), self._known[uid].routed)
        self._seen[uid] = servers
        for document in statuses:
            if self._parts.overtaken(key, service):
                break
            await self._parts.writes.status(service, document)
        for event in events:
            self._parts.recorder.record(service, event)
        self._show(service, wish)
        return self._known[uid] != known or bool(statuses), obeyed

    def finish(self, uid: str) -> None:
        """A service is deleted: forget it; the controller ends its servers."""
        self._keep(uid, None)
        self._seen.pop(uid, None)
        self._problems.pop(uid, None)
        self._parts.mirror.show(uid, None)

    def wanted(self, namespace: str, uid: str) -> frozenset[str]:
        """Names of the servers that the host may hold for a service."""
        known = self._known.get(uid)
        return frozenset(f"{namespace}/{name}" for name in st.names(known)) if known is not None else frozenset()

    def next_look(self, uid: str) -> float | None:
        """When time alone changes something."""
        known = self._known.get(uid)
        return st.wake_at(known) if known is not None else None

    def _wish(self, key: Key, service: Document, available: Sequence[Runtime], config: Config) -> StandardWish:
        at = urls(self._parts.router.urls(key), service_name(service))
        return standard_wish(service, available, config, at)

    def _recovered(self, wish: StandardWish, status: Document, servers: Servers) -> Standard | None:
        """The record of a service whose file was lost, from what still runs; None for one that has never run."""
        if not servers or wish.stopped or wish.stable.template is None:
            return None
        _logger.warning("the record of %s is lost; its servers go on", wish.name)
        workloads = wishes.workloads(wish, lambda name: True, self._release)
        generation = int(status.get("observedGeneration") or 0)
        record = st.recovered(wish.name, wish.stable.deployment, workloads, servers, generation)
        return replace(record, routed=decisions.route(wish, record, self._release))

    def _keep(self, uid: str, record: Standard | None) -> None:
        """The record is on disk before anything is done that follows from it."""
        if record == self._known.get(uid):
            return
        self._store.save(uid, record)
        if record is None:
            self._known.pop(uid, None)
        else:
            self._known[uid] = record

    async def _bring_into_force(
        self, key: Key, uid: str, decision: StandardDecision, servers: Servers, wish: StandardWish
    ) -> bool:
        record, route = decision.record, decision.route
        if not route:
            obeyed = await self._parts.router.remove(key)
        else:
            described = describe(key, record, route, servers, wish.timeout_s)
            obeyed = await self._parts.router.put(key, (described,))
        if obeyed:
            self._keep(uid, st.put_in_force(record, route, steady.now()))
        return obeyed

    async def _move_servers(self, namespace: str, uid: str, servers: Servers, now: float) -> None:
        """Start what is wanted, end what has lingered long enough; a Deployment without replicas has no server."""
        record = self._known[uid]
        peers = {f"{known.name}.{namespace}": path(namespace, known.name) for known in record.deployments}
        for known in record.deployments:
            for revision in known.revisions:
                server = servers.get(revision.name)
                if bool(known.replicas) != (server is not None and server.running):
                    await self._parts.servers.run_server(namespace, uid, revision, bool(known.replicas), peers)
        draining = frozenset(name for space, name in self._parts.router.draining if space == namespace)
        ended = st.due(record, draining, now)
        for name in (ended | set(servers)) - (st.names(record) - ended):
            await self._parts.servers.remove(f"{namespace}/{name}")
        self._keep(uid, st.forget(record, ended))

    def _show(self, service: Document, wish: StandardWish) -> None:
        uid = service["metadata"]["uid"]
        record = self._known[uid]
        told = self._parts.servers.told_of(uid)
        found = StandardFound(service, wish, record, told, self._release, self._parts.home)
        self._parts.mirror.show(uid, found.documents)


def _of_route(before: Sequence[Backend], after: Sequence[Backend]) -> list[story.Event]:
    shares = {backend.deployment: backend.weight for backend in after}
    if shares == {backend.deployment: backend.weight for backend in before}:
        return []
    text = ", ".join(f"{name} {weight} %" for name, weight in shares.items()) or "led nowhere"
    return [story.Event("TrafficChanged", f"Traffic is now {text}")]


def _text(now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
