"""The monitor's clients of Kubeflow Pipelines and Prometheus: where the settings say, else found in the cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kanary import discovery, kfp, snapshot_metrics
from kanary.api import AsyncClient
from kanary.config import Config
from kanary.errors import ConfigError
from kanary.kubernetes_async import AsyncKubernetes

Cluster = Callable[[], Awaitable[AsyncKubernetes]]


async def pipelines(config: Config, cluster: Cluster) -> AsyncClient:
    """Raises ConfigError and what the cluster's client raises; ApiError where none is found, nor at the default.

    What is raised holds for now: whoever asks again looks again.
    """
    server = kfp.server(config)
    if not discovery.wanted(config, "kfp_endpoint"):
        return AsyncClient(server)
    try:
        api = await cluster()
    except ConfigError:
        return AsyncClient(server)
    try:
        found = await api.call(discovery.pipelines())
    except ConfigError as error:  # the cluster's credentials
        found = discovery.Found(error.message)
    client = AsyncClient(discovery.pipelines_server(server, api.access, found))
    if found.path:
        return client
    try:
        await client.call(kfp.healthz())
    except BaseException:
        await client.close()
        raise
    return client


async def prometheus(config: Config, cluster: Cluster) -> AsyncClient:
    """Raises ConfigError where none is set and no cluster is known, ApiError where none is found in it."""
    if not discovery.wanted(config, "prometheus_url"):
        return AsyncClient(snapshot_metrics.server(config))
    try:
        api = await cluster()
    except ConfigError as error:
        raise ConfigError(discovery.NO_PROMETHEUS, discovery.NAME_PROMETHEUS) from error
    found = await api.call(discovery.prometheus())
    return AsyncClient(discovery.prometheus_server(snapshot_metrics.server(config), api.access, found))
