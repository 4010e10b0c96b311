"""Keeps a copy of all objects of one kind: list, then watch, then list again where the watch has expired."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sandbox.errors import SandboxError
from sandbox.kserve.client import Expired, Kind, Kubernetes
from sandbox.kserve.knative import Document

_PAUSE_FIRST_S, _PAUSE_LAST_S = 0.05, 2.0

_logger = logging.getLogger(__name__)
Key = tuple[str, str]


def key_of(document: Document) -> Key:
    """Namespace and name."""
    return document["metadata"].get("namespace", ""), document["metadata"]["name"]


def version_of(document: Document) -> int:
    """The resource version; the API server counts them."""
    return int(document["metadata"].get("resourceVersion") or 0)


class Followed:
    """The objects of one kind by namespace and name. `changed` is called with the key of everything that changes.

    `synced` is set once all there was has been seen. What `learn` is told by a write need not come from the watch.
    """

    def __init__(self, client: Kubernetes, kind: Kind, changed: Callable[[Key], None]) -> None:
        self.objects: dict[Key, Document] = {}
        self.synced = asyncio.Event()
        self._client = client
        self._kind = kind
        self._changed = changed
        self._version = ""

    async def run(self) -> None:
        """Follow until cancelled; an API server that is away is waited for."""
        pause = _PAUSE_FIRST_S
        while True:
            try:
                if not self._version:
                    await self._list()
                pause = _PAUSE_FIRST_S
                async for what, document in self._client.watch(self._kind, self._version):
                    self._see(what, document)
            except Expired:
                self._version = ""
            except SandboxError as error:
                _logger.warning("%s: %s; again in %.2f s", self._kind.plural, error.message, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSE_LAST_S)

    def learn(self, document: Document) -> None:
        """Take in an object as a write has left it."""
        key = key_of(document)
        known = self.objects.get(key)
        if known is not None and version_of(known) < version_of(document):
            self.objects[key] = document

    async def _list(self) -> None:
        documents, self._version = await self._client.list(self._kind)
        found = {key_of(document): document for document in documents}
        changed = {key for key in {*found, *self.objects} if found.get(key) != self.objects.get(key)}
        self.objects = found
        self.synced.set()
        for key in changed:
            self._changed(key)

    def _see(self, what: str, document: Document) -> None:
        self._version = document["metadata"]["resourceVersion"]
        if what == "BOOKMARK":
            return
        key = key_of(document)
        if what == "DELETED":
            self.objects.pop(key, None)
        else:
            known = self.objects.get(key)
            if known is not None and version_of(known) >= version_of(document):
                return
            self.objects[key] = document
        self._changed(key)
