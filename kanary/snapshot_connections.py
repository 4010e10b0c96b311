"""The monitor's clients of its three servers, opened when they are first asked for."""

from __future__ import annotations

import asyncio
import importlib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeVar

from kanary.config import Config
from kanary.operations import Operation

if TYPE_CHECKING:
    from kanary.api import AsyncClient
    from kanary.kubeconfig import Access
    from kanary.kubernetes_async import AsyncKubernetes

T = TypeVar("T")


class Connections:
    """The clients of one configuration, each opened by the first who asks, its libraries loaded aside.

    Raises what reading the configuration's files raises, at each call anew: who mends them need not start again.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        # Finding one of the others asks the cluster.
        self._opening, self._finding_kfp, self._finding_prometheus = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        self._kfp: AsyncClient | None = None
        self._kubernetes: AsyncKubernetes | None = None
        self._prometheus: AsyncClient | None = None

    async def kfp(self) -> AsyncClient:
        async with self._finding_kfp:
            if self._kfp is None:
                servers = await asyncio.to_thread(importlib.import_module, "kanary.snapshot_servers")
                self._kfp = await servers.pipelines(self.config, self.kubernetes)
        return self._kfp

    async def kubernetes(self) -> AsyncKubernetes:
        async with self._opening:
            if self._kubernetes is None:
                module = await asyncio.to_thread(importlib.import_module, "kanary.kubernetes_async")
                self._kubernetes = await asyncio.to_thread(module.connect, self.config)
            opened = self._kubernetes
            assert opened is not None
            opened.readonly = opened.readonly or matches(opened.access.context, self.config.readonly_contexts)
        return opened

    async def prometheus(self) -> AsyncClient:
        async with self._finding_prometheus:
            if self._prometheus is None:
                servers = await asyncio.to_thread(importlib.import_module, "kanary.snapshot_servers")
                self._prometheus = await servers.prometheus(self.config, self.kubernetes)
        return self._prometheus

    @property
    def kfp_place(self) -> str:
        """Where Kubeflow Pipelines is, for a person; "" while that is not known."""
        if self._kfp is not None:
            return self._kfp.server.place or self._kfp.server.url.partition("://")[2]
        given = self.config.sources["kfp_endpoint"].kind != "default"
        return self.config.kfp_endpoint.partition("://")[2] if given else ""

    @property
    def access(self) -> Access | None:
        """The Kubernetes API as the kubeconfig names it, once that was read."""
        return self._kubernetes.access if self._kubernetes else None

    async def call(self, operation: Operation[T]) -> T:
        """An operation of Kubeflow Pipelines."""
        return await (await self.kfp()).call(operation)

    async def close(self) -> None:
        for client in (self._kfp, self._kubernetes, self._prometheus):
            if client is not None:
                await client.close()


def matches(context: str, patterns: str) -> bool:
    """Whether one of the patterns, commas between them, is the context's."""
    return bool(context) and any(fnmatchcase(context, pattern.strip()) for pattern in patterns.split(",") if pattern)
