"""Brings traffic into force: one description of all services, one writer of it, asked for by many at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from sandbox.errors import NotFound, SandboxError
from sandbox.gateway.description import DOMAIN, Revision, RevisionKey, Service, check, host, path
from sandbox.gateway.gateway import Gateway
from sandbox.gateway.process import ports
from sandbox.kserve.following import Key
from sandbox.kserve.knative import Knative, Server, Servers, Target
from sandbox.kserve.status import Urls
from sandbox.kserve.traffic import shares, tags
from sandbox.prometheus.config import Target as Scraped
from sandbox.prometheus.config import write_targets

# Knative's own, where the predictor gives none.
_TIMEOUT_S = 300.0
_SWEEP_S = 0.5

_logger = logging.getLogger(__name__)


class Router:
    """The gateway's descriptions by service. `draining`: revisions, as namespace and name, that may have requests."""

    def __init__(self, home: Path) -> None:
        self.draining: frozenset[tuple[str, str]] = frozenset()
        self._home = home
        self._gateway: Gateway | None = None
        self._ports = (0, 0)
        self._services: dict[Key, Service] = {}
        self._in_force: dict[Key, Service] = {}
        self._running = asyncio.Lock()

    def preset(self, service: Service) -> None:
        """Describe a service as it was routed before this process; it comes into force with the first `put`."""
        self._services[service.namespace, service.name] = service

    async def put(self, service: Service) -> bool:
        """Describe a service; whether the gateway obeys. It is tried again by whoever asks again."""
        key = (service.namespace, service.name)
        try:
            check([service])  # by itself: what is wrong with one service must not hold up the others
        except SandboxError as error:
            _logger.error("the gateway cannot serve %s/%s: %s", *key, error)
            return False
        self._services[key] = service
        return await self._apply(key)

    async def remove(self, key: Key) -> bool:
        """Lead nothing to a service any more; whether the gateway obeys."""
        self._services.pop(key, None)
        return await self._apply(key)

    def urls(self, key: Key) -> Urls:
        """Where a service is reached. NotFound where the gateway has not been prepared."""
        namespace, name = key
        port, _ = ports(self._home)
        predictor = f"{name}-predictor.{namespace}.{DOMAIN}:{port}"
        return Urls(
            service=f"http://{host(namespace, name)}:{port}",
            predictor=f"http://{predictor}",
            tagged="http://{}-" + predictor,
            address=f"http://127.0.0.1:{port}{path(namespace, name)}",
        )

    async def sweep(self) -> None:
        """Let go of drained revisions, for ever."""
        while True:
            await asyncio.sleep(_SWEEP_S)
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
            try:
                applied = await asyncio.to_thread(self._connected().apply, list(described.values()))
            except NotFound as error:
                _logger.warning("traffic is not in force: %s", error)
                return False
            self._drains(applied.draining)
            if applied.in_force:
                self._in_force = described
                await asyncio.to_thread(write_targets, self._home, scraped(described.values()))
                return True
            _logger.warning("traffic is not in force: %s", applied.reason)
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
    """Where Prometheus finds the numbers of every revision's own server."""
    return [
        Scraped(
            service.namespace, service.name, revision.name, revision.metrics_port or revision.port, revision.address
        )
        for service in services
        for revision in service.revisions
        if revision.port
    ]


def describe(key: Key, knative: Knative, route: Sequence[Target], servers: Servers) -> Service | None:
    """What the gateway is told for `route`; None while a revision in it has no port."""
    namespace, name = key
    weights, tagged = shares(route), tags(route)
    revisions: list[Revision] = []
    for revision, weight in weights.items():
        server = servers.get(revision)
        if server is None or not server.port:
            if weight or revision in tagged:
                return None
            continue
        revisions.append(
            _revision(revision, server, weight, tagged.get(revision, ()), _speaks_http2(knative, revision))
        )
    hosts = (f"{knative.name}.{namespace}.{DOMAIN}", f"{knative.name}.{namespace}.svc.cluster.local")
    return Service(namespace, name, tuple(revisions), hosts, _timeout(knative))


def _revision(name: str, server: Server, weight: int, tagged: tuple[str, ...], http2: bool) -> Revision:
    return Revision(name, server.port, weight=weight, tags=tagged, http2=http2, metrics_port=server.metrics_port)


def _speaks_http2(knative: Knative, name: str) -> bool:
    """Whether the container's port is named h2c: so Knative is told of a server that speaks HTTP/2 without TLS."""
    revision = knative.revision(name)
    container = revision.template.document["spec"]["containers"][0] if revision is not None else {}
    return any(port.get("name") == "h2c" for port in (container.get("ports") or ())[:1])


def _timeout(knative: Knative) -> float:
    if not knative.revisions:
        return _TIMEOUT_S
    return float(knative.revisions[-1].template.document["spec"].get("timeout") or _TIMEOUT_S)
