"""Watches: every change fans out to bounded queues, one a client; a client that does not read is cut off."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes import representation
from sandbox.kubernetes.cluster import Cluster
from sandbox.kubernetes.negotiation import Wanted
from sandbox.kubernetes.options import ListOptions
from sandbox.kubernetes.registry import Resource
from sandbox.kubernetes.selectors import Matcher, matcher
from sandbox.kubernetes.status import expired
from sandbox.kubernetes.storage import Change, Stored
from sandbox.kubernetes.writes import Target

Body = dict[str, Any]
QUEUE_LENGTH = 1000
DEFAULT_TIMEOUT = 1800.0
# The API server bookmarks shortly before a watch times out, unless the watch is too short for that.
PRE_TIMEOUT, SHORTEST = 2.0, 3.5


@dataclass(frozen=True, eq=False)
class Seen:
    """What one watcher is told of one change."""

    type: str
    stored: Stored


class Watcher:
    """One client's queue. `cut` is called, once, when it is full."""

    def __init__(self, resource: str, view: Callable[[Change], Seen | None], cut: Callable[[], None]) -> None:
        self.resource = resource
        self._view = view
        self._cut = cut
        self._queue: deque[Seen] = deque()
        self._wake = asyncio.Event()
        self.closed = False

    def offer(self, change: Change) -> None:
        seen = None if self.closed else self._view(change)
        if seen is None:
            return
        if len(self._queue) >= QUEUE_LENGTH:
            self.close()
            self._cut()
            return
        self._queue.append(seen)
        self._wake.set()

    def close(self) -> None:
        """Ends the stream; what is queued is dropped."""
        self.closed = True
        self._queue.clear()
        self._wake.set()

    async def take(self, seconds: float) -> list[Seen]:
        """What has come, waiting up to `seconds` for it."""
        if not self._queue and not self.closed and seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return []
        self._wake.clear()
        taken = list(self._queue)
        self._queue.clear()
        return taken


class Hub:
    """All open watches of a store."""

    def __init__(self, cluster: Cluster) -> None:
        self._watchers: dict[str, set[Watcher]] = {}
        self._closed = False
        cluster.store.listeners.append(self._publish)

    def _publish(self, change: Change) -> None:
        for watcher in list(self._watchers.get(change.resource, ())):
            watcher.offer(change)

    def add(self, watcher: Watcher) -> None:
        self._watchers.setdefault(watcher.resource, set()).add(watcher)
        if self._closed:
            watcher.close()

    def remove(self, watcher: Watcher) -> None:
        self._watchers.get(watcher.resource, set()).discard(watcher)

    def close(self) -> None:
        """Ends every watch, those to come too."""
        self._closed = True
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.close()

    def __len__(self) -> int:
        return sum(len(watchers) for watchers in self._watchers.values())


def view(change: Change, namespace: str, matches: Matcher, after: int) -> Seen | None:
    """What a watch with a selector is told: an object that enters is ADDED to it, one that leaves DELETED from it."""
    if change.version <= after or (namespace and change.after.namespace != namespace):
        return None
    was = change.before is not None and matches(change.before.body)
    if change.type == "DELETED":
        return Seen("DELETED", change.after) if was else None
    now = matches(change.after.body)
    if now:
        return Seen("MODIFIED" if was else "ADDED", change.after)
    if was and change.before is not None:
        return Seen("DELETED", _as_of(change.before, change.version))
    return None


def _as_of(stored: Stored, version: int) -> Stored:
    body = {**stored.body, "metadata": stored.body["metadata"] | {"resourceVersion": str(version)}}
    return Stored(stored.namespace, stored.name, version, representation.dump(body))


async def stream(
    cluster: Cluster,
    hub: Hub,
    target: Target,
    options: ListOptions,
    wanted: Wanted,
    include: str,
    cut: Callable[[], None],
) -> AsyncIterator[bytes]:
    """The lines of a watch, several at a time where several are due. The selectors have been parsed without error."""
    encode = _Encoder(target.resource, wanted, include, cluster)
    store = cluster.store
    if options.version and options.version < store.compacted:
        error = expired(f"too old resource version: {options.version} ({store.compacted})")
        yield encode.error(error.body())
        return
    matches = matcher(options.labels, options.fields, target.resource)
    start = store.version if options.initial_events else options.version or store.version
    watcher = Watcher(target.resource.id, lambda change: view(change, target.namespace, matches, start), cut)
    backlog = _backlog(cluster, target, options, matches)
    hub.add(watcher)
    try:
        chunk = encode.many(backlog)
        if options.bookmarks and options.initial_events:
            chunk += encode.bookmark({"k8s.io/initial-events-end": "true"})
        # An empty first chunk sends the headers, which clients wait for.
        yield chunk
        async for chunk in _follow(cluster, watcher, options, encode):
            yield chunk
    finally:
        hub.remove(watcher)


def _backlog(cluster: Cluster, target: Target, options: ListOptions, matches: Matcher) -> list[Seen]:
    store = cluster.store
    if options.initial_events:
        listed = store.objects(target.resource.id, target.namespace)
        return [Seen("ADDED", stored) for stored in listed if matches(stored.body)]
    after = options.version or store.version
    changes = (change for change in store.since(after) if change.resource == target.resource.id)
    seen = (view(change, target.namespace, matches, after) for change in changes)
    return [item for item in seen if item is not None]


async def _follow(cluster: Cluster, watcher: Watcher, options: ListOptions, encode: _Encoder) -> AsyncIterator[bytes]:
    clock = asyncio.get_running_loop().time
    timeout = options.timeout or DEFAULT_TIMEOUT
    deadline = clock() + timeout
    last = deadline - PRE_TIMEOUT if timeout >= SHORTEST else float("inf")
    bookmark = min(clock() + cluster.bookmark_seconds, last) if options.bookmarks else float("inf")
    while not watcher.closed and (now := clock()) < deadline:
        seen = await watcher.take(min(deadline, bookmark) - now)
        if seen:
            yield encode.many(seen)
        if clock() >= bookmark:
            yield encode.bookmark({})
            bookmark = min(clock() + cluster.bookmark_seconds, last) if clock() < last else float("inf")


class _Encoder:
    """Turns what is seen into lines, in one watch's form; remembers whether the table's head was sent."""

    def __init__(self, resource: Resource, wanted: Wanted, include: str, cluster: Cluster) -> None:
        self._resource, self._wanted, self._include, self._cluster = resource, wanted, include, cluster
        self._head = True

    def many(self, seen: Iterable[Seen]) -> bytes:
        return b"".join(self._line(item.type, self._object(item.stored)) for item in seen)

    def error(self, status: Body) -> bytes:
        return self._line("ERROR", representation.dump(status))

    def bookmark(self, annotations: dict[str, str]) -> bytes:
        metadata: Body = {"resourceVersion": str(self._cluster.store.version)}
        if annotations:
            metadata["annotations"] = annotations
        resource, version = self._resource, self._wanted.version
        if self._wanted.form == "Table":
            value = representation.table(resource, [], metadata, self._wanted, self._include, 0.0, head=self._head)
            self._head = False
        elif self._wanted.form == "object":
            value = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        else:
            value = representation.partial({"metadata": metadata}, version)
        return self._line("BOOKMARK", representation.dump(value))

    def _object(self, stored: Stored) -> bytes:
        if self._wanted.form == "object":
            return representation.raw_object(self._resource, stored)
        if self._wanted.form != "Table":
            return representation.dump(representation.partial(stored.body, self._wanted.version))
        metadata = {"resourceVersion": str(stored.version)}
        now = self._cluster.clock()
        value = representation.table(
            self._resource, [stored.body], metadata, self._wanted, self._include, now, head=self._head
        )
        self._head = False
        return representation.dump(value)

    def _line(self, kind: str, value: bytes) -> bytes:
        return b'{"type":"%s","object":%s}\n' % (kind.encode(), value)
