"""A Kubernetes collection held by list and watch: every change is known at once, a cut watch goes on where it was.

Asks for nothing but lists and watches.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from kanary.errors import ApiError, KanaryError
from kanary.kubernetes import Document
from kanary.kubernetes_async import AsyncKubernetes
from kanary.operations import Request
from kanary.snapshot import FAULT, Snapshot, back_off, failed, sleep, succeeded

Objects = Mapping[str, Document]  # by namespace/name
_WATCH_SECONDS = 45.0  # a connection that died without a word is found out after so long
_PAGE = "500"
_TOGETHER = 0.05  # seconds in which changes that come close together are shown as one

log = logging.getLogger("kanary.snapshot")


@dataclass
class Follower:
    """One collection, its path, and what to tell of it. `keep`: hold only so many, those of the newest version."""

    collection: str
    show: Callable[[Snapshot[Objects]], None]
    selector: str = ""
    keep: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)  # set: list anew, now
    clock: Callable[[], float] = time.monotonic
    _held: dict[str, Document] = field(default_factory=dict)
    _flush: asyncio.TimerHandle | None = None

    async def run(self, api: AsyncKubernetes) -> None:
        """Lists, shows, watches, shows each change; for ever."""
        snapshot: Snapshot[Objects] = Snapshot()
        version = ""
        while True:
            self.wake.clear()
            try:
                if not version:
                    version = await self._list(api)
                    snapshot = self._tell()
                version = await self._watch(api, version)
                continue
            except KanaryError as error:
                pause = back_off(1.0, snapshot.failures, random.random())
                snapshot = failed(self._known(snapshot), error, self.clock(), pause)
            except Exception:  # the worker's outermost loop: a fault of ours must not end the monitor
                log.exception("watching %s failed in a way nobody foresaw", self.collection)
                pause = back_off(1.0, snapshot.failures, random.random())
                snapshot = failed(self._known(snapshot), FAULT, self.clock(), pause)
            version = ""  # that the server is back is known once it has given a whole list
            self.show(snapshot)
            await sleep(self.wake, pause)

    def _known(self, snapshot: Snapshot[Objects]) -> Snapshot[Objects]:
        """`snapshot` with what the watch has told since."""
        if snapshot.live:
            return succeeded(self._frozen(), self.clock(), live=True)
        return snapshot

    async def _list(self, api: AsyncKubernetes) -> str:
        found: dict[str, Document] = {}
        params = {"limit": _PAGE} | ({"labelSelector": self.selector} if self.selector else {})
        while True:
            page = await api.send(Request("GET", self.collection, params))
            items, metadata = page.get("items") or [], page.get("metadata") or {}
            if not isinstance(items, list) or not isinstance(metadata, dict):
                raise ApiError(f"The Kubernetes API answered no list of {self.collection}.")
            found.update((key_of(item), item) for item in items)
            if not metadata.get("continue"):
                self._held = _newest(found, self.keep)
                return str(metadata.get("resourceVersion") or "0")
            params = params | {"continue": str(metadata["continue"])}

    async def _watch(self, api: AsyncKubernetes, version: str) -> str:
        """The version to go on watching from; empty where the collection must be listed anew."""
        consume = asyncio.ensure_future(self._consume(api, version))
        woken = asyncio.ensure_future(self.wake.wait())
        try:
            await asyncio.wait({consume, woken}, return_when=asyncio.FIRST_COMPLETED)
            return consume.result() if consume.done() else ""
        finally:
            consume.cancel()
            woken.cancel()
            await asyncio.gather(consume, woken, return_exceptions=True)
            if self._flush is not None:
                self._flush.cancel()
                self._flush = None

    async def _consume(self, api: AsyncKubernetes, version: str) -> str:
        try:
            async for event in api.watch(self.collection, version, _WATCH_SECONDS, selector=self.selector):
                kind, changed = event.get("type"), event["object"]
                if kind == "ERROR":
                    if changed.get("code") == 410:
                        return ""
                    raise ApiError(f"The watch of {self.collection} ended: {changed.get('message')}")
                version = str(_metadata(changed).get("resourceVersion") or version)
                if kind != "BOOKMARK":
                    self._apply(kind, changed)
        except ApiError as error:
            if error.status == 410:
                return ""
            raise
        if self._flush is not None:
            self._tell()
        return version

    def _apply(self, kind: Any, changed: Document) -> None:
        if kind == "DELETED":
            self._held.pop(key_of(changed), None)
        else:
            self._held[key_of(changed)] = changed
            if self.keep and len(self._held) > self.keep + self.keep // 4:
                self._held = _newest(self._held, self.keep)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(_TOGETHER, self._tell)

    def _tell(self) -> Snapshot[Objects]:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        snapshot = succeeded(self._frozen(), self.clock(), live=True)
        self.show(snapshot)
        return snapshot

    def _frozen(self) -> Objects:
        return MappingProxyType(dict(self._held))


def key_of(item: Any) -> str:
    """`namespace/name` of an object. Raises ApiError where it has no name."""
    metadata = _metadata(item)
    if not isinstance(metadata.get("name"), str):
        raise ApiError("The Kubernetes API described an object without a name.")
    return f"{metadata.get('namespace') or ''}/{metadata['name']}"


def _metadata(item: Any) -> Mapping[str, Any]:
    metadata = item.get("metadata") if isinstance(item, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _newest(found: dict[str, Document], keep: int) -> dict[str, Document]:
    if not keep or len(found) <= keep:
        return found
    newest = sorted(found.items(), key=lambda item: _number(_metadata(item[1]).get("resourceVersion")))
    return dict(newest[-keep:])


def _number(version: Any) -> int:
    return int(version) if isinstance(version, str) and version.isdecimal() else 0
