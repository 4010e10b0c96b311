"""The part of an object that the server keeps: identity, generation, deletion, namespaces."""

from __future__ import annotations

import secrets
import uuid
from typing import Any

from sandbox.kubernetes import names
from sandbox.kubernetes.cluster import Cluster
from sandbox.kubernetes.names import invalid
from sandbox.kubernetes.registry import NAMESPACES, Resource
from sandbox.kubernetes.status import ApiError, Cause, bad_request, forbidden, not_found

Body = dict[str, Any]
# Go's rand.String leaves out vowels and what looks alike.
SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
SERVER_FIELDS = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")


def check_place(body: Body, resource: Resource, namespace: str, name: str) -> None:
    """Refuses a body whose namespace or name is not that of the URL (an empty `name` asks for none)."""
    metadata = body["metadata"]
    if resource.namespaced:
        given = metadata.setdefault("namespace", namespace)
        if given != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    else:
        metadata.pop("namespace", None)
    if name and not metadata.get("name"):
        raise bad_request(f"the name of the object ({name} based on URL) was undeterminable: name must be provided")
    if name and metadata["name"] != name:
        raise bad_request(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")


def check_namespace(cluster: Cluster, resource: Resource, namespace: str, name: str) -> None:
    """Refuses to create in a namespace that is not there or is going."""
    if not resource.namespaced:
        return
    found = cluster.store.get(NAMESPACES.id, "", namespace)
    if found is None:
        raise not_found("", "namespaces", namespace)
    if found.body["metadata"].get("deletionTimestamp"):
        plural = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        message = f"unable to create new content in namespace {namespace} because it is being terminated"
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {namespace} is being terminated",
            "field": "metadata.namespace",
        }
        about = {k: v for k, v in (("name", name), ("group", resource.group), ("kind", resource.plural)) if v}
        raise forbidden(f'{plural} "{name}" is forbidden: {message}', about | {"causes": [cause]})


def fresh(metadata: Body, resource: Resource, now: str) -> Body:
    """The metadata of an object that is being created."""
    made = {key: value for key, value in metadata.items() if key not in SERVER_FIELDS}
    if not made.get("name") and made.get("generateName"):
        suffix = "".join(secrets.choice(SUFFIX_LETTERS) for _ in range(5))
        made["name"] = made["generateName"][:58] + suffix
    made |= {"uid": str(uuid.uuid4()), "creationTimestamp": now}
    return made | {"generation": 1} if resource.generation else made


def carried(new: Body, old: Body) -> Body:
    """The metadata of an update: what only the server sets comes from the old object unless it is contradicted."""
    merged = dict(new)
    for field in ("uid", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if field in old:
            merged.setdefault(field, old[field])
    for field in ("generation", "creationTimestamp"):
        merged.pop(field, None)
        if field in old:
            merged[field] = old[field]
    if "generateName" in old:
        merged.setdefault("generateName", old["generateName"])
    return merged


def update_faults(new: Body, old: Body) -> list[Cause]:
    """What an update may not do to metadata."""
    found = [
        invalid(f"metadata.{field}", new.get(field), "field is immutable")
        for field in ("uid", "deletionTimestamp", "deletionGracePeriodSeconds")
        if new.get(field) != old.get(field)
    ]
    added = [f for f in new.get("finalizers", ()) if f not in old.get("finalizers", ())]
    if old.get("deletionTimestamp") and added:
        listed = ", ".join(f'"{name}"' for name in added)
        why = (
            "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers "
            f"[]string{{{listed}}}"
        )
        found.append(Cause("metadata.finalizers", "FieldValueForbidden", why))
    return found


def faults(metadata: Body, resource: Resource) -> list[Cause]:
    return names.faults(metadata, resource.kind)


def version_garbage(text: str) -> ApiError:
    return ApiError(500, "", f'strconv.ParseUint: parsing "{text}": invalid syntax')
