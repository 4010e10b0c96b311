"""Brings traffic into force: one description of all services, one writer of it, asked for by many at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from sandbox.errors import NotFound, SandboxError
from sandbox.gateway.description import DOMAIN, Revision, RevisionKey, Service, check, host, path
from sandbox.gateway.gateway import Gateway
from sandbox.gateway.process import ports
from sandbox.kserve.following import Key
from sandbox.kserve.knative import Components, Knative, Servers, Target
from sandbox.kserve.status import Urls
from sandbox.kserve.traffic import shares, tags
from sandbox.prometheus.config import Target as Scraped
from sandbox.prometheus.config import write_targets

# Knative's own, where the predictor gives none.
_TIMEOUT_S = 300.0
_SWEEP_S = 0.5

_logger = logging.getLogger(__name__)


class Router:
    """The gateway's descriptions by service.

    `draining`: revisions, as namespace and name, that may have requests. `trouble`: why a service is not served as
    described, until it is.
    """

    def __init__(self, home: Path) -> None:
        self.draining: frozenset[tuple[str, str]] = frozenset()
        self.trouble: dict[Key, str] = {}
        self._home = home
        self._gateway: Gateway | None = None
        self._ports = (0, 0)
        self._services: dict[Key, tuple[Service, ...]] = {}
        self._in_force: dict[Key, tuple[Service, ...]] = {}
        self._running = asyncio.Lock()

    def preset(self, key: Key, described: tuple[Service, ...]) -> None:
        """Describe a service as it was routed before this process; it comes into force with the first `put`."""
        self._services[key] = described

    async def put(self, key: Key, described: tuple[Service, ...]) -> bool:
        """Describe a service; whether the gateway obeys. It is tried again by whoever asks again."""
        try:
            check(described)  # by itself: what is wrong with one service must not hold up the others
        except SandboxError as error:
            _logger.error("the gateway cannot serve %s/%s: %s", *key, error)
            self.trouble[key] = f"the gateway cannot serve it: {error.message}"
            return False
        self._services[key] = described
        return await self._apply(key)

    async def remove(self, key: Key) -> bool:
        """Lead nothing to a service any more; whether the gateway obeys."""
        self._services.pop(key, None)
        obeys = await self._apply(key)
        if obeys:
            self.trouble.pop(key, None)
        return obeys

    def urls(self, key: Key) -> Urls:
        """Where a service is reached. NotFound where the gateway has not been prepared."""
        namespace, name = key
        port, _ = ports(self._home)
        return Urls(
            service=f"http://{host(namespace, name)}:{port}",
            address=f"http://127.0.0.1:{port}{path(namespace, name)}",
            component="http://{name}." + f"{namespace}.{DOMAIN}:{port}",
            tagged="http://{tag}-{name}." + f"{namespace}.{DOMAIN}:{port}",
            direct=f"http://127.0.0.1:{port}{path(namespace, '{name}')}",
        )

    async def activity(self, keys: Sequence[RevisionKey]) -> dict[RevisionKey, tuple[int, int]]:
        """How many requests revisions have had and have in flight; nothing of those that Envoy says nothing of."""
        return await asyncio.to_thread(self._gateway.activity, keys) if keys and self._gateway is not None else {}

    async def sweep(self) -> None:
        """Let go of drained revisions, for ever."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            async with self._running:  # what drains is told in the order in which it came about
                if self.draining and self._gateway is not None:
                    self._drains(await asyncio.to_thread(self._gateway.sweep))

    def close(self) -> None:
        """Close the connections to Envoy; it goes on as it is."""
        if self._gateway is not None:
            self._gateway.close()

    async def _apply(self, key: Key) -> bool:
        """Apply all descriptions. Whoever waits for the lock finds its own applied by then, mostly."""
        async with self._running:
            wanted = self._services.get(key)
            if wanted == self._in_force.get(key):
                return True
            described = dict(self._services)
            services = [service for entries in described.values() for service in entries]
            try:
                applied = await asyncio.to_thread(self._connected().apply, services)
            except NotFound as error:
                _logger.warning("traffic is not in force: %s", error)
                self.trouble[key] = error.message
                return False
            self._drains(applied.draining)
            if applied.in_force:
                self.trouble.clear()
                await asyncio.to_thread(write_targets, self._home, scraped(services))
                self._in_force = described  # last: what could not be written is written the next time
                return True
            _logger.warning("traffic is not in force: %s", applied.reason)
            self.trouble[key] = applied.reason
            return False

    def _connected(self) -> Gateway:
        """The gateway; another one where Envoy was started anew with other ports."""
        found = ports(self._home)
        if self._gateway is None or found != self._ports:
            self.close()
            self._gateway, self._ports = Gateway(self._home), found
        return self._gateway

    def _drains(self, keys: Sequence[RevisionKey]) -> None:
        self.draining = frozenset((key.namespace, key.revision) for key in keys)


def scraped(services: Iterable[Service]) -> list[Scraped]:
    """Where Prometheus finds the numbers of every revision's own server; to ask one at zero would wake it."""
    return [
        Scraped(
            service.namespace, service.name, revision.name, revision.metrics_port or revision.port, revision.address
        )
        for service in services
        for revision in service.revisions
        if revision.port and not revision.stand_in
    ]


def describe(
    key: Key,
    components: Components,
    routes: Mapping[str, tuple[Target, ...]],
    servers: Servers,
    entry: str,
    held: Mapping[str, int] = MappingProxyType({}),
) -> tuple[Service, ...] | None:
    """What the gateway is told for `routes`; None while a revision in them has no port.

    The service's own host and path lead to the component `entry`; each answers to the name of its Knative Service.
    `held`: ports where requests wait for revisions whose servers are scaled to zero.
    """
    described: list[Service] = []
    for kind, knative in components.items():
        route = routes.get(kind, ())
        revisions = _revisions(knative, route, servers, held)
        if revisions is None:
            return None
        hosts = tuple(f"{knative.name}.{key[0]}.{domain}" for domain in (DOMAIN, "svc.cluster.local"))
        if revisions:
            described.append(Service(*key, revisions, hosts, component="" if kind == entry else kind))
    return tuple(described)


def _revisions(
    knative: Knative, route: Sequence[Target], servers: Servers, held: Mapping[str, int]
) -> tuple[Revision, ...] | None:
    weights, tagged = shares(route), tags(route)
    found: list[Revision] = []
    for name, weight in weights.items():
        server = servers.get(name)
        port = held.get(name) or (server.port if server is not None else 0)
        if not port:
            if weight or name in tagged:
                return None
            continue
        made = _revision(name, knative, port, weight, tagged.get(name, ()))
        metrics_port = server.metrics_port if server is not None else 0
        found.append(replace(made, metrics_port=metrics_port, stand_in=name in held))
    return tuple(found)


def _revision(name: str, knative: Knative, port: int, weight: int, tagged: tuple[str, ...]) -> Revision:
    record = knative.revision(name)
    spec = record.template.document["spec"] if record is not None else {}
    return Revision(
        name,
        port,
        weight=weight,
        tags=tagged,
        timeout_s=float(spec.get("timeout") or _TIMEOUT_S),
        http2=record is not None and record.template.http2,
        concurrency=int(spec.get("containerConcurrency") or 0),
    )
