"""The monitor's connection: made in the background, so that the first picture waits for no import and no network."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, TypeVar

from kanary import kfp
from kanary.config import Config
from kanary.operations import Operation

if TYPE_CHECKING:
    from kanary.api import AsyncClient

T = TypeVar("T")


class Source:
    """The Kubeflow Pipelines API of one configuration. All calls raise what kanary.api.AsyncClient's do."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._client: AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def client(self) -> AsyncClient:
        """The client, opened by the first who asks."""
        async with self._opening:
            if self._client is None:
                api = await asyncio.to_thread(importlib.import_module, "kanary.api")
                self._client = api.AsyncClient(kfp.server(self.config))
        return self._client

    async def call(self, operation: Operation[T]) -> T:
        return await (await self.client()).call(operation)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
