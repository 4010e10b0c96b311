"""The controller: whatever changes, looks at one InferenceService and does what `decide` says, in its order.

Level-triggered and restartable at any point: it acts on what it finds, and keeps only revision history of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sandbox import steady
from sandbox.errors import SandboxError
from sandbox.gateway.description import path
from sandbox.kserve import collection, config, manifests, scaler, story
from sandbox.kserve.client import CLUSTER_RUNTIMES, CONFIG_MAPS, INFERENCE_SERVICES, RUNTIMES, Kubernetes, Unreachable
from sandbox.kserve.decide import KEEP, RUN, STOP, Decision, decide, entry, put_in_force, wake_at, wanted_servers
from sandbox.kserve.following import Followed, Key
from sandbox.kserve.knative import Components, Document, Servers
from sandbox.kserve.mirror import Found, documents
from sandbox.kserve.mirroring import Mirror
from sandbox.kserve.predictor import kinds, wish
from sandbox.kserve.recorder import Recorder
from sandbox.kserve.recovery import is_lost, recovered
from sandbox.kserve.router import Router, describe
from sandbox.kserve.runtimes import preload, runtimes
from sandbox.kserve.scaler import Rest, Scaler
from sandbox.kserve.servers import ModelServers, wanted_names
from sandbox.kserve.standard_control import Parts, StandardControl
from sandbox.kserve.standard_wish import NEXT_RELEASE
from sandbox.kserve.store import Store, components_from
from sandbox.kserve.turns import Turns
from sandbox.kserve.writes import FINALIZER, Writes

SCALE_DOWN_S = 30.0
_STEPS = 20
_RESYNC_S = 60.0
_DRAIN_S = 1.0
_RETRY_S = 0.2

_logger = logging.getLogger(__name__)


class Controller:
    """One home's controller. `run` is all there is to call."""

    def __init__(
        self,
        home: Path,
        scale_down_s: float = SCALE_DOWN_S,
        installed: Sequence[Document] = (),
        release: str = NEXT_RELEASE,
    ) -> None:
        self._installed = list(installed)
        self._home = home
        self._scale_down_s = scale_down_s
        self._kubernetes = Kubernetes(home / "kubeconfig")
        self._store = Store(home / "kserve" / "controller.sqlite", components_from)
        self._known = self._store.load()
        self._router = Router(home)
        self._servers = ModelServers(home, self._owner_changed)
        self._seen: dict[str, Servers] = {}
        self._told: dict[Key, str] = {}
        self._uids: dict[Key, str] = {}
        self._scaler = Scaler(self._router, self._look_at)
        self._recorder = Recorder(self._kubernetes)
        self._mirror = Mirror(self._kubernetes)
        self._services = Followed(self._kubernetes, INFERENCE_SERVICES, self._look_at)
        self._runtimes = Followed(self._kubernetes, RUNTIMES, self._runtime_changed)
        self._cluster_runtimes = Followed(self._kubernetes, CLUSTER_RUNTIMES, self._runtime_changed)
        self._config_maps = Followed(self._kubernetes, CONFIG_MAPS, self._config_changed)
        self._writes = Writes(self._kubernetes, self._services.learn)
        parts = Parts(home, self._router, self._servers, self._writes, self._recorder, self._mirror, self._overtaken)
        self._standard = StandardControl(parts, release)
        self._config = config.Config()
        self._retention = collection.Retention()
        self._turns = Turns(self._reconcile)
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False

    async def run(self) -> None:
        """Reconcile until cancelled."""
        followed = (self._services, self._runtimes, self._cluster_runtimes, self._config_maps)
        async with asyncio.TaskGroup() as group:
            for loop in (*(one.run() for one in followed), self._servers.run(), self._recorder.run()):
                group.create_task(loop)
            group.create_task(self._router.sweep())
            group.create_task(self._scaler.run())
            group.create_task(self._servers.note_times())
            group.create_task(self._mirror.run())
            for ready in (*(one.synced for one in followed), self._servers.synced):
                await ready.wait()
            self._preset()
            await self._install()
            self._started = True
            for key in (*self._runtimes.objects, *self._cluster_runtimes.objects):
                self._warm(key)
            _logger.info("reconciling %d InferenceServices", len(self._services.objects))
            while True:
                for key in list(self._services.objects):
                    self._look_at(key)
                self._background(self._remove_orphans)  # beside: a host that is away just now fails this round alone
                await asyncio.sleep(_RESYNC_S)

    async def close(self) -> None:
        """Let go of every file and connection; servers and traffic go on."""
        self._turns.close()
        await self._servers.close()
        await self._kubernetes.close()
        self._scaler.close()
        self._router.close()
        self._store.close()
        self._standard.close()

    async def _install(self) -> None:
        """Apply what comes with the installation; an API server that goes away meanwhile is waited for."""
        while self._installed:
            try:
                await manifests.apply(self._kubernetes, self._installed)
                self._installed = []
            except Unreachable as error:
                _logger.warning("%s", error.message)
                await asyncio.sleep(_RETRY_S)

    def _preset(self) -> None:
        """Describe to the gateway what it obeys already, so that the first change takes nothing from the others.

        Of services that went while no controller was there nothing is kept.
        """
        living = {service["metadata"]["uid"] for service in self._services.objects.values()}
        for uid in {*self._known, *self._standard.known} - living:
            self._forget(uid)
        for key, service in self._services.objects.items():
            if self._is_standard(service):
                self._standard.preset(key, service, self._available(key[0]), self._config)
                continue
            uid, status = service["metadata"]["uid"], service.get("status") or {}
            if uid not in self._known:
                self._keep(uid, recovered(service, self._servers.of(uid), steady.now()))
            known = self._known.get(uid, {})
            routes = {kind: knative.routed for kind, knative in known.items()}
            leads_to = entry(kinds(service), routes, status)
            described = describe(key, known, routes, self._servers.of(uid), leads_to)
            if described:
                self._router.preset(key, described)

    # What changes, and whom it concerns.

    def _look_at(self, key: Key) -> None:
        if self._started:
            self._turns.ask(key)

    def _owner_changed(self, owner: str) -> None:
        for key, service in self._services.objects.items():
            if service["metadata"]["uid"] == owner:
                self._look_at(key)

    def _runtime_changed(self, changed: Key) -> None:
        if self._started:
            self._warm(changed)
        for key in list(self._services.objects):
            if changed[0] in ("", key[0]):
                self._look_at(key)

    def _config_changed(self, changed: Key) -> None:
        found = self._config_maps.objects.get(changed)
        if changed == (config.NAMESPACE, config.NAME):
            self._config = config.read(found)
        elif changed == (collection.NAMESPACE, collection.NAME):
            self._retention = collection.read(found)
        elif changed == (scaler.NAMESPACE, scaler.NAME):
            self._scaler.scaling = scaler.read(found)
        else:
            return
        for key in list(self._services.objects):
            self._look_at(key)

    # One service's turn.

    async def _reconcile(self, key: Key) -> float | None:
        for _ in range(_STEPS):
            service = self._services.objects.get(key)
            if service is None or service["metadata"].get("deletionTimestamp"):
                await self._finish(key, service)
                return None
            self._is_now(key, service["metadata"]["uid"])
            if FINALIZER not in (service["metadata"].get("finalizers") or []):
                await self._writes.add_finalizer(service)
                continue
            changed, in_force = await self._step(key, service)
            if not changed:
                return self._next_look(service["metadata"]["uid"]) if in_force else Turns.SOON
        raise SandboxError("does not settle")

    def _is_now(self, key: Key, uid: str) -> None:
        """Another object of the name may have come before this controller saw the last one go."""
        last, self._uids[key] = self._uids.get(key, uid), uid
        if last != uid:
            self._forget(last)

    async def _step(self, key: Key, service: Document) -> tuple[bool, bool]:
        """Decide and act once; whether anything changed, and whether the gateway obeys."""
        if self._is_standard(service):
            return await self._standard.step(key, service, self._available(key[0]), self._config)
        uid, now = service["metadata"]["uid"], steady.now()
        servers, known = self._servers.of(uid), self._known.get(uid, {})
        wanted = wish(service, self._available(key[0]), self._config, self._router.urls(key))
        status, clock = service.get("status") or {}, _text(time.time())
        rest = await self._scaler.attend(key, known, servers)
        decision = decide(wanted, status, known, rest.as_ready(servers), now, clock, self._retention)
        events = [*story.of_servers(self._seen.get(uid, {}), servers, frozenset(rest.ports)), *decision.events]
        self._seen[uid] = servers
        self._keep(uid, decision.components)
        in_force = await self._bring_into_force(key, uid, decision, servers, rest)
        after = self._known.get(uid, {})
        await self._move_servers(key[0], uid, servers, now, rest)
        for document in decision.statuses:
            if self._overtaken(key, service):
                break  # what is asked for now goes before the story of how it came to what was asked for before
            await self._writes.status(service, document)
        for kind, knative in decision.components.items():
            events += story.of_route(knative, after.get(kind, knative))
        trouble = self._router.trouble.get(key, "")
        if trouble and trouble != self._told.get(key):
            events.append(story.of_gateway(trouble))
        self._told[key] = trouble
        for event in events:
            self._recorder.record(service, event)
        self._show(key, service)
        return after != known or bool(decision.statuses), in_force

    def _is_standard(self, service: Document) -> bool:
        return config.mode(service, self._config) == config.STANDARD

    def _overtaken(self, key: Key, service: Document) -> bool:
        """Whether the service has been changed or deleted since it was looked at."""
        newest = self._services.objects.get(key)
        return newest is None or newest["metadata"].get("generation") != service["metadata"].get("generation")

    def _keep(self, uid: str, components: Components) -> None:
        """The record is on disk before anything is done that follows from it."""
        if components == self._known.get(uid, {}):
            return
        self._store.save(uid, components)
        if components:
            self._known[uid] = components
        else:
            self._known.pop(uid, None)

    async def _bring_into_force(self, key: Key, uid: str, decision: Decision, servers: Servers, rest: Rest) -> bool:
        if not decision.components:
            return await self._router.remove(key)
        if not any(decision.routes.values()):
            return True
        described = describe(key, decision.components, decision.routes, servers, decision.entry, rest.ports)
        if described is None or not await self._router.put(key, described):
            return False
        self._keep(uid, put_in_force(decision.components, decision.routes))
        return True

    def _show(self, key: Key, service: Document) -> None:
        uid = service["metadata"]["uid"]
        known = self._known.get(uid, {})
        if not any(knative.revisions for knative in known.values()):
            self._mirror.show(uid, None)
        else:
            urls = self._router.urls(key)
            found = Found(service, known, self._servers.told_of(uid), urls, self._home)
            self._mirror.show(uid, partial(documents, found))

    async def _move_servers(self, namespace: str, uid: str, servers: Servers, now: float, rest: Rest) -> None:
        known = self._known.get(uid, {})
        draining = frozenset(name for space, name in self._router.draining if space == namespace)
        actions = wanted_servers(known, now, self._scale_down_s, draining, rest.asleep)
        revisions = {revision.name: revision for knative in known.values() for revision in knative.revisions}
        peers = {f"{knative.name}.{namespace}": path(namespace, knative.name) for knative in known.values()}
        for name, action in actions.items():
            server, revision = servers.get(name), revisions[name]
            running = server is not None and server.running
            if action == KEEP or running == (action == RUN):
                continue
            if not is_lost(revision):
                await self._servers.run_server(namespace, uid, revision, action == RUN, peers)
            elif action == STOP:
                await self._servers.remove(f"{namespace}/{name}")
        await self._remove_servers({f"{namespace}/{name}" for name in servers} - wanted_names(namespace, known))

    async def _finish(self, key: Key, service: Document | None) -> None:
        """Take a deleted service out of traffic, end its servers, let go of the object."""
        await self._router.remove(key)
        self._told.pop(key, None)
        await self._scaler.attend(key, {}, {})
        if (last := self._uids.pop(key, "")) and service is None:
            self._forget(last)  # it went without its finalizer's leave
        if service is None:
            await self._remove_orphans()
            return
        self._forget(service["metadata"]["uid"])
        await self._writes.remove_finalizer(service)

    def _forget(self, uid: str) -> None:
        """Keep nothing of a service that is gone."""
        self._keep(uid, {})
        self._standard.finish(uid)
        self._seen.pop(uid, None)
        self._mirror.show(uid, None)
        self._recorder.forget(uid)

    def _next_look(self, uid: str) -> float | None:
        moments = [wake_at(self._known.get(uid, {}), self._servers.of(uid), self._scale_down_s)]
        moments.append(self._standard.next_look(uid))
        moments.append(steady.now() + _DRAIN_S if self._router.draining else None)
        return min((moment for moment in moments if moment is not None), default=None)

    def _available(self, namespace: str) -> Any:
        own = [document for key, document in self._runtimes.objects.items() if key[0] == namespace]
        return runtimes(own, self._cluster_runtimes.objects.values())

    # Servers that are nobody's, and parents for those to come.

    async def _remove_orphans(self) -> None:
        wanted: set[str] = set()
        for key, service in self._services.objects.items():
            uid = service["metadata"]["uid"]
            wanted |= wanted_names(key[0], self._known.get(uid, {})) | self._standard.wanted(key[0], uid)
        await self._remove_servers(set(self._servers.statuses) - wanted)

    async def _remove_servers(self, names: set[str]) -> None:
        """End servers that no revision has any more, once nothing is in flight to them."""
        draining = {f"{namespace}/{name}" for namespace, name in self._router.draining}
        for name in names - draining:
            await self._servers.remove(name)
        if names & draining:
            self._background(self._remove_orphans, _DRAIN_S)

    def _warm(self, key: Key) -> None:
        for document in (self._runtimes.objects.get(key), self._cluster_runtimes.objects.get(key)):
            if document is not None and (modules := preload(document["metadata"].get("annotations") or {})):
                self._background(lambda modules=modules: self._servers.warm(modules))

    def _background(self, work: Any, delay_s: float = 0.0) -> None:
        async def guarded() -> None:
            await asyncio.sleep(delay_s)
            try:
                await work()
            except SandboxError as error:
                _logger.warning("%s", error.message)

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _text(now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
