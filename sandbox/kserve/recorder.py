"""Writes Events beside the work: a reconcile never waits for them, repeated ones are counted as Kubernetes counts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from dataclasses import dataclass

from sandbox.errors import SandboxError
from sandbox.kserve.client import EVENTS, Kubernetes, Refused
from sandbox.kserve.knative import Document
from sandbox.kserve.story import SERVICE, Event

_COMPONENT = "v1beta1Controllers"
_QUEUED, _REMEMBERED = 10_000, 4096

_logger = logging.getLogger(__name__)
_Series = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class _Written:
    name: str
    count: int


class Recorder:
    """A queue of events and the one task that writes them."""

    def __init__(self, client: Kubernetes) -> None:
        self._client = client
        self._queue: asyncio.Queue[tuple[Document, Event] | str] = asyncio.Queue(_QUEUED)
        self._written: dict[_Series, _Written] = {}

    def record(self, service: Document, event: Event) -> None:
        """Write `event` about `service`, or about one of its Knative objects, soon; dropped where too many wait."""
        try:
            self._queue.put_nowait((service, event))
        except asyncio.QueueFull:
            _logger.warning("too many events: %s %s", event.reason, event.message)

    def forget(self, uid: str) -> None:
        """A service is gone: once its last events are written, they are not counted any further."""
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(uid)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            asked = await self._queue.get()
            if isinstance(asked, str):
                self._written = {series: known for series, known in self._written.items() if series[0] != asked}
                continue
            service, event = asked
            try:
                await self._write(service["metadata"], event)
            except SandboxError as error:
                _logger.warning("event %s is lost: %s", event.reason, error.message)

    async def _write(self, metadata: Document, event: Event) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        name = metadata["name"] if event.kind == SERVICE else event.name
        series = (metadata["uid"], event.kind, name, event.reason, event.message)
        known = self._written.pop(series, None)
        namespace = metadata["namespace"]
        if known is not None:
            known = await self._again(namespace, _Written(known.name, known.count + 1), now)
        if known is None:
            body = _event(metadata, event, name, now)
            known = _Written(body["metadata"]["name"], 1)
            await self._client.create(EVENTS, namespace, body)
        self._written[series] = known
        if len(self._written) > _REMEMBERED:
            self._written.pop(next(iter(self._written)))

    async def _again(self, namespace: str, known: _Written, now: str) -> _Written | None:
        """Count an event that was written before; None where it has expired meanwhile."""
        try:
            await self._client.patch(EVENTS, namespace, known.name, {"count": known.count, "lastTimestamp": now})
        except Refused as refused:
            if refused.code != 404:
                raise
            return None
        return known


def _event(metadata: Document, event: Event, name: str, now: str) -> Document:
    involved: Document = {
        "apiVersion": event.api_version,
        "kind": event.kind,
        "name": name,
        "namespace": metadata["namespace"],
    }
    if event.kind == SERVICE:
        involved["uid"] = metadata["uid"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
        "involvedObject": involved,
        "reason": event.reason,
        "message": event.message[:1024],
        "type": "Warning" if event.warning else "Normal",
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
    }
