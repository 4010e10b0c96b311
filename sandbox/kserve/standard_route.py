"""What the gateway is told of a service in Standard mode: hosts of the HTTPRoute, and of every Deployment's Service."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sandbox.gateway.description import DOMAIN, Revision, Service
from sandbox.kserve.following import Key
from sandbox.kserve.knative import Server, Servers
from sandbox.kserve.standard import Backend, Standard
from sandbox.kserve.status import Urls

# The HTTPRoute's own, where the predictor gives none.
TIMEOUT_S = 60.0


def describe(
    key: Key, record: Standard, route: Sequence[Backend], servers: Servers, timeout_s: float | None
) -> Service:
    """The gateway's description for `route`. A Deployment without a server that was ever ready has no endpoint."""
    namespace, name = key
    # With a transformer the whole service's route is another than the predictor's, which has a host of its own then.
    exposed = f"{name}-predictor" if record.transformer is None else ""
    revisions = []
    for backend in route:
        hosts = tuple(_hosts(backend.deployment, namespace, public=backend.deployment != exposed))
        revisions.append(_revision(backend, record, servers.get(backend.server), hosts))
    shared = (f"{exposed}.{namespace}.{DOMAIN}",) if exposed else ()
    return Service(namespace, name, tuple(revisions), shared, timeout_s or TIMEOUT_S)


def urls(common: Urls, stable: str) -> Urls:
    """Where a service in Standard mode is reached; `common` says it for one in Knative mode, `stable` is its Service.

    The address is the Service's, so it changes its name with a promotion.
    """
    return replace(common, address=common.direct.format(name=stable), tagged="")


def _revision(backend: Backend, record: Standard, server: Server | None, hosts: tuple[str, ...]) -> Revision:
    """One that is killed keeps its endpoint while it is restarted: its failures are its own."""
    known = next((one for d in record.deployments for one in d.revisions if one.name == backend.server), None)
    return Revision(
        backend.deployment,
        port=server.port if server is not None else 0,
        ready=known is not None and known.ready and server is not None and server.running and server.port > 0,
        weight=backend.weight,
        http2=known is not None and known.template.http2,
        metrics_port=server.metrics_port if server is not None else 0,
        hosts=hosts,
    )


def _hosts(deployment: str, namespace: str, public: bool) -> Iterable[str]:
    """A Service's names in a cluster; `public`: and its name at the gateway, where that is not the HTTPRoute's."""
    if public:
        yield f"{deployment}.{namespace}.{DOMAIN}"
    for suffix in ("svc.cluster.local", "svc"):
        yield f"{deployment}.{namespace}.{suffix}"
    yield f"{deployment}.{namespace}"
