"""What a cluster's own controllers do with stored objects: namespaces end, dependents follow owners, events expire."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sandbox.kubernetes import registry
from sandbox.kubernetes.cluster import Cluster, timestamp
from sandbox.kubernetes.deletion import FOREGROUND, ORPHAN, DeleteOptions, delete
from sandbox.kubernetes.registry import EVENTS, NAMESPACES
from sandbox.kubernetes.status import ApiError
from sandbox.kubernetes.storage import Change, StorageFailed, Stored
from sandbox.kubernetes.writes import Target

Body = dict[str, Any]
HOUSEKEEPING_SECONDS = 30.0
# Several changes in a row are looked at once.
SETTLE_SECONDS = 0.01
BACKGROUND = DeleteOptions("Background", "", "", dry_run=False)
INITIAL_NAMESPACES = ("default", "kube-system")

log = logging.getLogger(__name__)


async def run(cluster: Cluster) -> None:
    """Reacts to changes until cancelled."""
    wake = asyncio.Event()

    def heed(change: Change) -> None:
        if _matters(change):
            wake.set()

    cluster.store.listeners.append(heed)
    wake.set()
    while True:
        try:
            async with asyncio.timeout(HOUSEKEEPING_SECONDS):
                await wake.wait()
        except TimeoutError:
            pass
        await asyncio.sleep(SETTLE_SECONDS)
        wake.clear()
        try:
            sweep(cluster)
        except (ApiError, StorageFailed) as error:
            log.warning("controllers: %s", error)


def ensure_namespaces(cluster: Cluster, names: tuple[str, ...]) -> None:
    """Creates the namespaces that are not there."""
    from sandbox.kubernetes.decode import Decoded
    from sandbox.kubernetes.options import WriteOptions
    from sandbox.kubernetes.writes import create

    options = WriteOptions(dry_run=False, manager="kube-apiserver", validation="Ignore")
    for name in names:
        if cluster.store.get(NAMESPACES.id, "", name) is None:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            create(cluster, Target(NAMESPACES, "", name), Decoded(body), options)


def sweep(cluster: Cluster) -> None:
    """One look at everything. Cheap enough for the few thousand objects of a sandbox."""
    _finish_deletions(cluster)
    _collect_garbage(cluster)
    _end_namespaces(cluster)
    _expire_events(cluster)
    cluster.store.compact()


def _matters(change: Change) -> bool:
    metadata = change.after.body["metadata"]
    return change.type == "DELETED" or bool(metadata.get("deletionTimestamp") or metadata.get("ownerReferences"))


def _everything(cluster: Cluster) -> list[tuple[str, Stored]]:
    return [(resource, stored) for resource in cluster.store.resources() for stored in cluster.store.objects(resource)]


def _owners(stored: Stored) -> set[str]:
    return {owner.get("uid", "") for owner in stored.body["metadata"].get("ownerReferences", ())}


def _finish_deletions(cluster: Cluster) -> None:
    for resource, listed in _everything(cluster):
        stored = _now(cluster, resource, listed)
        if stored is None:  # it went with its owner, a moment ago
            continue
        metadata = stored.body["metadata"]
        held = [name for name in metadata.get("finalizers", ()) if name in (ORPHAN, FOREGROUND)]
        if not held or not metadata.get("deletionTimestamp"):
            continue
        others = [(name, other) for name, other in _everything(cluster) if other is not stored]
        dependents = [(name, other) for name, other in others if metadata["uid"] in _owners(other)]
        if ORPHAN in held:
            for name, dependent in dependents:
                _disown(cluster, name, dependent, metadata["uid"])
        else:
            for name, dependent in dependents:
                _delete(cluster, name, dependent)
            if any(_still_there(cluster, name, dependent) for name, dependent in dependents):
                continue
        _release(cluster, resource, stored, held)


def _now(cluster: Cluster, resource: str, stored: Stored) -> Stored | None:
    return cluster.store.get(resource, stored.namespace, stored.name)


def _still_there(cluster: Cluster, resource: str, stored: Stored) -> bool:
    return _now(cluster, resource, stored) is not None


def _disown(cluster: Cluster, resource: str, stored: Stored, uid: str) -> None:
    metadata = stored.body["metadata"]
    owners = [owner for owner in metadata["ownerReferences"] if owner.get("uid") != uid]
    kept = {key: value for key, value in metadata.items() if key != "ownerReferences"}
    kept |= {"ownerReferences": owners} if owners else {}
    cluster.store.put(resource, stored.namespace, stored.name, {**stored.body, "metadata": kept})


def _release(cluster: Cluster, resource: str, stored: Stored, held: list[str]) -> None:
    metadata = stored.body["metadata"]
    left = [name for name in metadata["finalizers"] if name not in held]
    kept = {key: value for key, value in metadata.items() if key != "finalizers"}
    if left:
        body = {**stored.body, "metadata": kept | {"finalizers": left}}
        cluster.store.put(resource, stored.namespace, stored.name, body)
    else:
        cluster.store.delete(resource, stored.namespace, stored.name, {**stored.body, "metadata": kept})


def _delete(cluster: Cluster, resource: str, stored: Stored) -> None:
    if _still_there(cluster, resource, stored):
        delete(cluster, Target(registry.by_id(resource), stored.namespace, stored.name), BACKGROUND)


def _collect_garbage(cluster: Cluster) -> None:
    # A dependent may itself own something: until nothing goes any more.
    while True:
        everything = _everything(cluster)
        alive = {stored.body["metadata"]["uid"] for _, stored in everything}
        orphans = [
            (resource, stored)
            for resource, stored in everything
            if (owners := _owners(stored))
            and not owners & alive
            and not stored.body["metadata"].get("deletionTimestamp")
        ]
        for resource, stored in orphans:
            _delete(cluster, resource, stored)
        if not orphans:
            return


def _end_namespaces(cluster: Cluster) -> None:
    for namespace in list(cluster.store.objects(NAMESPACES.id)):
        if not namespace.body["metadata"].get("deletionTimestamp"):
            continue
        inside = [(r, s) for r in cluster.store.resources() for s in cluster.store.objects(r, namespace.name)]
        for resource, stored in inside:
            _delete(cluster, resource, stored)
        if not any(_still_there(cluster, resource, stored) for resource, stored in inside):
            last = {**namespace.body, "spec": {}}
            cluster.store.delete(NAMESPACES.id, "", namespace.name, last)


def _expire_events(cluster: Cluster) -> None:
    # Times in this form are in the order of their texts; reading thousands of them at every change would be slow.
    oldest = timestamp(cluster.clock() - cluster.event_seconds)
    for event in list(cluster.store.objects(EVENTS.id)):
        created = event.body["metadata"]["creationTimestamp"]
        if max(created[:19], str(event.body.get("lastTimestamp") or "")[:19]) < oldest[:19]:
            cluster.store.delete(EVENTS.id, event.namespace, event.name)
