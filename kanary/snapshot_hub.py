"""All sources of the monitor side by side: each is asked by a task of its own, and holds its newest snapshot.

Headless: knows no terminal, changes no server. Whoever displays reads the attributes, and is told when one is new.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kanary.errors import KanaryError
from kanary.snapshot import Snapshot, poll, succeeded
from kanary.snapshot_connections import Connections, matches

if TYPE_CHECKING:
    from kanary.kubernetes_async import AsyncKubernetes
    from kanary.snapshot_alerts import Alerts, Stretch
    from kanary.snapshot_details import Details
    from kanary.snapshot_drift import Drift
    from kanary.snapshot_metrics import Metrics
    from kanary.snapshot_rights import Rights
    from kanary.snapshot_runs import Runs
    from kanary.snapshot_services import Service

RUNS, SERVICES, METRICS, EVENTS, RIGHTS = "runs", "services", "metrics", "events", "rights"
DRIFT, ALERTS = "drift", "alerts"
_EVENTS_KEPT = 1000
_METRICS = 2.5  # polls of the metrics take so many times the interval: five queries each, and rates move slowly
_DRIFT = 5.0  # the same of drift, whose windows take minutes; and ten times as long where no detector is
_ALERTS = 15.0  # the same of alerts, looked back for hours


@dataclass(frozen=True)
class Scope:
    """What is looked at: a namespace, "" for all (services), and how often servers are polled, in seconds."""

    namespace: str = ""
    everywhere: bool = False
    interval: float = 2.0


class Hub:
    """The newest snapshots. `on_change(name)` is called in the event loop after each new one.

    `without`: sources that nobody looks at; they are not asked. `documents`, `config_maps`, `routes` and `pods` are
    what the services are read from. Times of snapshots are those of `seconds()`.
    """

    recorded = False  # whether all of this is a recording
    rewound = 0  # how often it was set back: what was shown of later is wrong

    def __init__(self, connections: Connections, scope: Scope, without: Collection[str] = ()) -> None:
        self.connections = connections
        self.scope = scope
        self._without = frozenset(without)
        self.runs: Snapshot[Runs] = Snapshot()
        self.services: Snapshot[Mapping[str, Service]] = Snapshot()
        self.metrics: Snapshot[Metrics] = Snapshot()
        self.events: Snapshot[Mapping[str, dict[str, Any]]] = Snapshot()
        self.rights: Snapshot[Rights] = Snapshot()
        self.alerts: Snapshot[Alerts] = Snapshot()
        self.drift: Snapshot[Drift] = Snapshot()
        self.on_change: Callable[[str], None] = lambda name: None
        self.archived = False
        self.drift_span: float | None = None  # seconds of the past that are wanted; None: nobody looks at it
        self._more = False
        self.documents: Snapshot[Mapping[str, dict[str, Any]]] = Snapshot()
        self.config_maps: Snapshot[Mapping[str, dict[str, Any]]] = Snapshot()
        # Of services in Standard mode, once one has a canary: where its traffic goes, and why it does not start.
        self.routes: Snapshot[Mapping[str, dict[str, Any]]] = Snapshot()
        self.pods: Snapshot[Mapping[str, dict[str, Any]]] = Snapshot()
        self._standard = asyncio.Event()
        self._wakes: dict[str, list[asyncio.Event]] = {}
        self._details: Details | None = None

    def now(self) -> datetime:
        """The moment that is looked at."""
        return datetime.now(UTC)

    def seconds(self) -> float:
        """The same on the clock of the snapshots."""
        return time.monotonic()

    @property
    def details(self) -> Details:
        """Where opened screens find what the snapshots leave out."""
        if self._details is None:
            from kanary.snapshot_details import LiveDetails  # not before the first picture

            self._details = LiveDetails(self.connections, self.scope.namespace)
        return self._details

    @property
    def server(self) -> str:
        """Where Kubeflow Pipelines is, for a person; empty while that is not known."""
        return self.connections.kfp_place

    @property
    def entered(self) -> str:
        """The context of the Kubernetes API, once its kubeconfig was read."""
        return self.connections.access.context if self.connections.access else ""

    @property
    def namespace(self) -> str:
        """The namespace that is looked at, as far as is known by now; "all" for all."""
        access = self.connections.access
        named = self.connections.config.namespace or (access.namespace if access else "")
        return "all" if self.scope.everywhere else self.scope.namespace or named

    @property
    def context(self) -> str:
        """The context of the kubeconfig, as far as is known by now."""
        entered = self.connections.access
        return entered.context if entered else self.connections.config.context

    @property
    def readonly(self) -> bool:
        """Whether nothing may be changed here: everywhere, or in contexts like this one."""
        config = self.connections.config
        return config.readonly or matches(self.context, config.readonly_contexts)

    @property
    def protected(self) -> bool:
        """Whether whoever changes something here has to type its name."""
        return matches(self.context, self.connections.config.protected_contexts)

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """Alerts and drift of the last hours, as far as they are known."""
        return self.alerts.value.stretches if self.alerts.value else ()

    def snapshot(self, name: str) -> Snapshot[Any]:
        found: Snapshot[Any] = getattr(self, name)
        return found

    async def run(self) -> None:
        """Asks all sources until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, source in (
                (RUNS, self._poll_runs),
                (METRICS, self._poll_metrics),
                (DRIFT, self._poll_drift),
                (ALERTS, self._poll_alerts),
                (SERVICES, self._watch_cluster),
                (RIGHTS, self._ask_rights),
            ):
                if name not in self._without:
                    group.create_task(source())

    def wake(self, *names: str) -> None:
        """Asks these sources now, all of them without names."""
        for name in names or tuple(self._wakes):
            for event in self._wakes.get(name, ()):
                event.set()

    def page_on(self) -> None:
        """Asks for older runs than are known, if there are any."""
        if self.runs.value is not None and self.runs.value.older:
            self._more = True
            self.wake(RUNS)

    def show_archived(self, archived: bool) -> None:
        """With the archived runs, or without: a list of its own, read anew."""
        self.archived = archived
        self.runs = Snapshot()
        self.wake(RUNS)

    def look_at_drift(self, span: float) -> None:
        """Asks for so many seconds of drift's past, from now on."""
        if span != self.drift_span:
            self.drift_span = span
            self.wake(DRIFT)

    def _tell(self, name: str, snapshot: Snapshot[Any]) -> None:
        setattr(self, name, snapshot)
        self.on_change(name)

    def _wake_of(self, name: str) -> asyncio.Event:
        event = asyncio.Event()
        self._wakes.setdefault(name, []).append(event)
        return event

    async def _poll_runs(self) -> None:
        from kanary.snapshot_runs import Runs, refresh

        async def fetch() -> Runs:
            known, archived, more = self.runs.value or Runs(), self.archived, self._more
            namespace = self.connections.config.namespace
            found = await self.connections.call(refresh(known, namespace=namespace, archived=archived, more=more))
            if archived != self.archived:
                self.wake(RUNS)  # asked for before the list became another one
                return Runs()
            self._more = self._more and not more
            return found

        def step(found: Runs) -> float:
            # Where nothing is under way, nothing but a new run can happen.
            return self.scope.interval * (1 if any(not run.final for run in found.by_id.values()) else 2)

        await poll(fetch, lambda s: self._tell(RUNS, s), self._wake_of(RUNS), step)

    async def _poll_metrics(self) -> None:
        async def fetch() -> Metrics:
            client = await self.connections.prometheus()
            from kanary import snapshot_metrics

            known = self.metrics.value or snapshot_metrics.Metrics()
            selectors = self.connections.config.prometheus_selectors
            return await client.call(snapshot_metrics.refresh(known, self._metrics_step(known), selectors))

        def step(found: Metrics) -> float:
            return self._metrics_step(found) if found.profile else 15.0

        await poll(fetch, lambda s: self._tell(METRICS, s), self._wake_of(METRICS), step)

    def _metrics_step(self, known: Metrics) -> float:
        return max(self.scope.interval * _METRICS, known.interval if known.profile else 0.0)

    async def _poll_alerts(self) -> None:
        async def fetch() -> Alerts:
            client = await self.connections.prometheus()
            from kanary import snapshot_alerts

            selectors = self.connections.config.prometheus_selectors
            return await client.call(snapshot_alerts.refresh(await self._asked_namespace(), selectors))

        await poll(
            fetch, lambda s: self._tell(ALERTS, s), self._wake_of(ALERTS), lambda found: self.scope.interval * _ALERTS
        )

    async def _poll_drift(self) -> None:
        async def fetch() -> Drift:
            client = await self.connections.prometheus()
            from kanary import snapshot_drift

            known = self.drift.value or snapshot_drift.Drift()
            namespace, selectors = await self._asked_namespace(), self.connections.config.prometheus_selectors
            return await client.call(snapshot_drift.refresh(known, namespace, self.drift_span, selectors))

        def step(found: Drift) -> float:
            return self.scope.interval * _DRIFT * (1 if found.detectors else 10)

        await poll(fetch, lambda s: self._tell(DRIFT, s), self._wake_of(DRIFT), step)

    async def _ask_rights(self) -> None:
        async def fetch() -> Rights:
            api = await self.connections.kubernetes()
            from kanary.snapshot_rights import rights

            return await api.call(rights(self._namespace(api)))

        await poll(fetch, lambda s: self._tell(RIGHTS, s), self._wake_of(RIGHTS), lambda found: 600.0)

    async def _watch_cluster(self) -> None:
        """The three watched collections, once there is a client for them."""
        opened: Snapshot[AsyncKubernetes] = Snapshot()
        wake, done = self._wake_of(SERVICES), asyncio.Event()

        def show(snapshot: Snapshot[AsyncKubernetes]) -> None:
            nonlocal opened
            opened = snapshot
            if snapshot.error:
                for name in (SERVICES, EVENTS):
                    self._tell(name, Snapshot(None, None, snapshot.error, snapshot.hint, 1, snapshot.retry_at))
            else:
                done.set()

        asking = asyncio.ensure_future(poll(self.connections.kubernetes, show, wake, lambda api: 3600.0))
        try:
            await done.wait()
        finally:
            asking.cancel()
        assert opened.value is not None
        await self._follow(opened.value)

    async def _follow(self, api: AsyncKubernetes) -> None:
        from kanary import kubernetes as k8s
        from kanary.snapshot_services import CONFIG_MAPS, PODS
        from kanary.snapshot_watch import Follower

        self._wakes.pop(SERVICES, None)
        namespace = self._namespace(api)
        followers = [
            Follower(
                k8s.inference_services(namespace), lambda s: self._joined(documents=s), wake=self._wake_of(SERVICES)
            ),
            Follower(
                k8s.config_maps(namespace),
                lambda s: self._joined(config_maps=s),
                selector=CONFIG_MAPS,
                wake=self._wake_of(SERVICES),
            ),
        ]
        if EVENTS not in self._without:
            wake = self._wake_of(EVENTS)
            followers.append(
                Follower(k8s.events(namespace), lambda s: self._tell(EVENTS, s), keep=_EVENTS_KEPT, wake=wake)
            )
        async with asyncio.TaskGroup() as group:
            for follower in followers:
                group.create_task(follower.run(api))
            await self._standard.wait()
            routes, wake = k8s.http_routes(namespace), self._wake_of(SERVICES)
            group.create_task(Follower(routes, lambda s: self._joined(routes=s), wake=wake).run(api))
            pods, wake = k8s.pods(namespace), self._wake_of(SERVICES)
            group.create_task(Follower(pods, lambda s: self._joined(pods=s), selector=PODS, wake=wake).run(api))

    async def _asked_namespace(self) -> str:
        """The same for Prometheus, which may answer where no cluster does."""
        try:
            return self._namespace(await self.connections.kubernetes())
        except KanaryError:
            return "" if self.scope.everywhere else self.scope.namespace

    def _namespace(self, api: AsyncKubernetes) -> str:
        """The namespace that is looked at; "" for all."""
        return "" if self.scope.everywhere else self.scope.namespace or api.access.namespace

    def _joined(
        self,
        documents: Snapshot[Mapping[str, dict[str, Any]]] | None = None,
        config_maps: Snapshot[Mapping[str, dict[str, Any]]] | None = None,
        routes: Snapshot[Mapping[str, dict[str, Any]]] | None = None,
        pods: Snapshot[Mapping[str, dict[str, Any]]] | None = None,
    ) -> None:
        from kanary.snapshot_services import joined, splits_by_route

        self.documents = documents or self.documents
        self.config_maps = config_maps or self.config_maps
        self.routes, self.pods = routes or self.routes, pods or self.pods
        if self.documents.value is None:
            self._tell(SERVICES, self.documents)
            return
        if self.config_maps.value is None and not self.config_maps.error:
            return  # a moment later both are there: versions and canaries do not jump
        if any(map(splits_by_route, self.documents.value.values())):
            self._standard.set()
            if self.routes.value is None and not self.routes.error:
                return  # the same of their traffic
        beside = self.routes.value or {}, self.pods.value or {}
        found = MappingProxyType(joined(self.documents, self.config_maps, self.services.value or {}, *beside))
        worse = self.documents if self.documents.error else self.config_maps
        if worse.error:
            at, live = self.documents.at, self.documents.live
            snapshot: Snapshot[Any] = Snapshot(found, at, worse.error, worse.hint, worse.failures, worse.retry_at, live)
        else:
            snapshot = succeeded(found, self.documents.at or 0.0, live=True)
        self._tell(SERVICES, snapshot)
