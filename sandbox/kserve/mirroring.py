"""Writes the mirror of every service beside the work: the newest state of each, what did not change not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sandbox.errors import SandboxError
from sandbox.kserve.client import Kubernetes, Refused
from sandbox.kserve.knative import Document
from sandbox.kserve.mirror import KNATIVE_SERVICES, MIRRORED, SERVICE_LABEL, Name
from sandbox.kserve.standard_mirror import STANDARD_MIRRORED

# Several changes in a row are written once, after what matters has been.
_PAUSE_S = 0.1
_RETRY_S = 1.0

_MANAGER = "kserve-controller-manager"

_logger = logging.getLogger(__name__)
# The objects of one service, made when they are written.
Shown = Callable[[], dict[Name, Document]]


class Mirror:
    """The one writer of mirrored objects."""

    def __init__(self, client: Kubernetes) -> None:
        self._client = client
        self._wanted: dict[str, Shown | None] = {}
        self._written: dict[str, dict[Name, Document]] = {}
        self._wake = asyncio.Event()

    def show(self, uid: str, found: Shown | None) -> None:
        """Have one service mirrored as it is now; None where there is nothing of it any more."""
        if found is None and uid not in self._written and uid not in self._wanted:
            return
        self._wanted[uid] = found
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled. Starts from what an earlier process left."""
        known = False
        while True:
            try:
                if not known:
                    await self._learn()
                    known = True
                await self._wake.wait()
                await asyncio.sleep(_PAUSE_S)
                self._wake.clear()
                await self._write_all()
            except SandboxError as error:
                _logger.warning("mirror: %s", error.message)
                self._wake.set()
                await asyncio.sleep(_RETRY_S)

    async def _learn(self) -> None:
        """Objects of an earlier process count as written with unknown content, so that they are seen to."""
        for kind in dict.fromkeys((*MIRRORED, *STANDARD_MIRRORED)):
            for document in (await self._client.list(kind))[0]:
                metadata = document["metadata"]
                if SERVICE_LABEL in (metadata.get("labels") or {}) and metadata.get("ownerReferences"):
                    uid = metadata["ownerReferences"][0]["uid"]
                    name = (kind, metadata["namespace"], metadata["name"])
                    self._written.setdefault(uid, {}).setdefault(name, {})

    async def _write_all(self) -> None:
        """Write what is wanted. What is refused of one service holds up no other; it is raised once all are written."""
        refused: dict[str, Refused] = {}
        while (uid := next((one for one in self._wanted if one not in refused), None)) is not None:
            try:
                await self._write(uid, self._wanted[uid])
            except Refused as error:
                refused[uid] = error
        if refused:
            raise next(iter(refused.values()))

    async def _write(self, uid: str, found: Shown | None) -> None:
        wanted = found() if found is not None else {}
        written = self._written.setdefault(uid, {})
        for name in [name for name in written if name not in wanted]:
            await self._client.delete(*name)
            del written[name]
        for name, document in wanted.items():
            if written.get(name) != document:
                await self._put(name, document, name not in written)
                written[name] = document
        if self._wanted.get(uid) is found:
            del self._wanted[uid]
        if not written:
            del self._written[uid]

    async def _put(self, name: Name, document: Document, new: bool) -> None:
        kind, namespace, called = name
        content = {key: value for key, value in document.items() if key != "status"}
        try:
            if kind in STANDARD_MIRRORED:
                await self._client.apply(kind, namespace, called, content, _MANAGER)
            elif new:
                await self._client.create(kind, namespace, content)
            else:
                changing = ("metadata", "spec") if kind == KNATIVE_SERVICES else ("metadata",)
                await self._client.patch(kind, namespace, called, {key: content[key] for key in changing})
        except Refused as refused:
            if refused.code not in (404, 409):
                raise
        if "status" not in document:
            return
        status = {"status": document["status"]}
        try:
            await self._client.patch(kind, namespace, called, status, subresource="status")
        except Refused as refused:
            if refused.code != 404:
                raise
