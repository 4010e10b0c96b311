"""Creating and updating: the order of checks is the API server's, so that the first complaint is the same.

Nothing here awaits: between reading an object and writing it nobody else runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes import builtins, managed, metadata, validation
from sandbox.kubernetes.cluster import Cluster
from sandbox.kubernetes.decode import Decoded
from sandbox.kubernetes.intake import Taken, node_of, take_strictly, tidy_metadata
from sandbox.kubernetes.managed import Claim, Manager
from sandbox.kubernetes.options import WriteOptions
from sandbox.kubernetes.registry import Resource
from sandbox.kubernetes.status import (
    MODIFIED,
    ApiError,
    Cause,
    already_exists,
    conflict,
    internal,
    invalid,
    not_found,
)
from sandbox.kubernetes.storage import Stored

Body = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """What a request is about. `subresource` is empty, "status" or, of a namespace, "finalize"."""

    resource: Resource
    namespace: str
    name: str
    subresource: str = ""


@dataclass(frozen=True)
class Outcome:
    """An answer: an object without apiVersion and kind, unless `whole` (a Status, which has its own)."""

    code: int
    body: Body
    warnings: tuple[str, ...] = ()
    whole: bool = False


def create(cluster: Cluster, target: Target, decoded: Decoded, options: WriteOptions) -> Outcome:
    """POST. Raises ApiError."""
    resource = target.resource
    taken = take_strictly(decoded.value, decoded.duplicates, resource, options.validation)
    metadata.check_place(
        taken.body, resource, target.namespace, target.name if taken.body["metadata"].get("name") else ""
    )
    body = create_object(cluster, target, taken, options)
    return Outcome(201, body, taken.warnings(options.validation))


def create_object(
    cluster: Cluster, target: Target, taken: Taken, options: WriteOptions, claims: Sequence[Claim] | None = None
) -> Body:
    """Stores a new object; `claims` are given by server-side apply. Raises ApiError."""
    resource, body = target.resource, taken.body
    metadata.check_namespace(cluster, resource, target.namespace, body["metadata"].get("name", ""))
    given_version = body["metadata"].pop("resourceVersion", "")
    given_fields = body["metadata"].pop("managedFields", None)
    if cluster.admission:
        body = cluster.admission.mutate(resource, body, None)
    body["metadata"] = metadata.fresh(body["metadata"], resource, cluster.now())
    if resource.status:
        body.pop("status", None)
    if not resource.custom:
        builtins.complete(resource, body, None)
    _validate(resource, body, None, taken.kind)
    if cluster.admission:
        cluster.admission.validate(resource, body, None)
    name = body["metadata"]["name"]
    if given_version not in ("", "0"):
        raise internal("resourceVersion should not be set on objects to be created")
    existing = cluster.store.get(resource.id, target.namespace, name)
    if existing:
        going = "object is being deleted: " if existing.body["metadata"].get("deletionTimestamp") else ""
        raise already_exists(resource.group, resource.plural, name, going)
    if claims is None:
        manager = Manager(options.manager, "Update", resource.api_version)
        blank: Body = {"metadata": {}}
        claims = managed.after_update(
            managed.decode(given_fields), blank, body, node_of(resource), manager, cluster.now()
        )
    if entries := managed.encode(list(claims)):
        body["metadata"]["managedFields"] = entries
    if options.dry_run:
        return body
    return cluster.store.put(resource.id, target.namespace, name, body).body


def replace_object(cluster: Cluster, target: Target, decoded: Decoded, options: WriteOptions) -> Outcome:
    """PUT. Raises ApiError."""
    resource = target.resource
    taken = take_strictly(decoded.value, decoded.duplicates, resource, options.validation)
    metadata.check_place(taken.body, resource, target.namespace, target.name)
    current = current_object(cluster, target)
    given = taken.body["metadata"].get("resourceVersion", "")
    if given and not given.isdigit():
        raise metadata.version_garbage(given)
    if given in ("", "0") and resource.custom:
        cause = Cause(
            "metadata.resourceVersion", "FieldValueInvalid", "Invalid value: 0: must be specified for an update"
        )
        raise invalid(resource.group, resource.plural, target.name, [cause])
    old = current.body["metadata"]
    uid = taken.body["metadata"].get("uid", old["uid"])
    if uid != old["uid"]:
        raise _uid_mismatch(target, uid, old["uid"])
    body = update_object(cluster, target, current, taken, options)
    return Outcome(200, body, taken.warnings(options.validation))


def update_object(
    cluster: Cluster,
    target: Target,
    current: Stored,
    taken: Taken,
    options: WriteOptions,
    claims: Sequence[Claim] | None = None,
    applier: Manager | None = None,
) -> Body:
    """Stores what `current` is to become, if that is a change; the stored object. Raises ApiError."""
    resource, old = target.resource, current.body
    body = dict(taken.body)
    _check_version(target, body, current)
    given_fields = body["metadata"].get("managedFields")
    if target.subresource:
        body = _only(body, old, "spec" if target.subresource == "finalize" else "status")
    elif resource.status:
        body = {key: value for key, value in body.items() if key != "status"}
        body |= {"status": old["status"]} if "status" in old else {}
    new_metadata = tidy_metadata(metadata.carried(body["metadata"], old["metadata"]))
    body["metadata"] = {k: v for k, v in new_metadata.items() if k not in ("managedFields", "resourceVersion")}
    if not resource.custom and not target.subresource:
        builtins.complete(resource, body, old)
    if cluster.admission and not target.subresource:
        body = cluster.admission.mutate(resource, body, old)
    _bump_generation(resource, body, old)
    _validate(resource, body, old, taken.kind)
    if cluster.admission and not target.subresource:
        cluster.admission.validate(resource, body, old)
    if claims is None:
        given = None if target.subresource else given_fields
        claims = _updated_claims(target, body, old, given, options, cluster.now())
    return _store(cluster, target, current, body, list(claims), options, applier)


def _store(
    cluster: Cluster,
    target: Target,
    current: Stored,
    body: Body,
    claims: list[Claim],
    options: WriteOptions,
    applier: Manager | None,
) -> Body:
    old = current.body
    same = _bare(body) == _bare(old)
    if applier and not same:
        claims = managed.stamped(claims, applier, cluster.now())
    entries = managed.encode(claims)
    if same and _timeless(entries) == _timeless(old["metadata"].get("managedFields", [])):
        return old
    if entries:
        body["metadata"]["managedFields"] = entries
    if options.dry_run:
        version = old["metadata"]["resourceVersion"]
        return {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
    place = (target.resource.id, target.namespace, target.name)
    holders = body.get("spec", {}) if target.resource.kind == "Namespace" else body["metadata"]
    if old["metadata"].get("deletionTimestamp") and not holders.get("finalizers"):
        return cluster.store.delete(*place, body).body
    return cluster.store.put(*place, body).body


def current_object(cluster: Cluster, target: Target) -> Stored:
    """The stored object. Raises ApiError 404."""
    found = cluster.store.get(target.resource.id, target.namespace, target.name)
    if found is None:
        raise not_found(target.resource.group, target.resource.plural, target.name)
    return found


def _check_version(target: Target, body: Body, current: Stored) -> None:
    given = body["metadata"].get("resourceVersion", "")
    if given and not given.isdigit():
        raise metadata.version_garbage(given)
    if given not in ("", "0", str(current.version)):
        raise conflict(target.resource.group, target.resource.plural, target.name, MODIFIED)


def _uid_mismatch(target: Target, given: str, actual: str) -> ApiError:
    resource = target.resource
    folder = resource.group or ""
    key = "/".join(part for part in ("/registry", folder, resource.plural, target.namespace, target.name) if part)
    why = (
        f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition "
        f"failed: UID in precondition: {given}, UID in object meta: {actual}"
    )
    return conflict(resource.group, resource.plural, target.name, why)


def _only(body: Body, old: Body, field: str) -> Body:
    kept = {key: value for key, value in old.items() if key != field}
    return kept | ({field: body[field]} if field in body else {})


def _bump_generation(resource: Resource, body: Body, old: Body) -> None:
    if not resource.generation:
        return
    # A custom object counts every change beside metadata and status, a built-in one changes of its spec.
    ignored = {"metadata", "status"} if resource.status else {"metadata"}
    fields = (body.keys() | old.keys()) - ignored if resource.custom else {"spec"}
    if any(body.get(field) != old.get(field) for field in fields):
        body["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1


def _validate(resource: Resource, body: Body, old: Body | None, kind: str) -> None:
    causes = metadata.faults(body["metadata"], resource)
    if resource.custom and kind != resource.kind:
        causes.append(Cause("kind", "FieldValueInvalid", f'Invalid value: "{kind}": must be {resource.kind}'))
    if old is not None:
        update = metadata.update_faults(body["metadata"], old["metadata"])
        # The generic registry and the custom resource's strategy both check it, and both complain.
        causes += update * 2 if resource.custom else update
    if resource.custom:
        causes += validation.faults(body, node_of(resource))
    else:
        causes += builtins.faults(resource, body, old)
    if causes:
        raise invalid(resource.group, resource.kind, body["metadata"].get("name", ""), causes)


def _updated_claims(
    target: Target, body: Body, old: Body, given: list[Body] | None, options: WriteOptions, now: str
) -> list[Claim]:
    claims = managed.decode(old["metadata"].get("managedFields"))
    if given == [{}]:
        claims = []
    elif given and managed.decode(given):
        claims = managed.decode(given)
    resource = target.resource
    manager = Manager(options.manager, "Update", resource.api_version, target.subresource)
    ignored = () if target.subresource or not resource.status else ("f:status",)
    return managed.after_update(claims, _bare(old), _bare(body), node_of(resource), manager, now, ignored)


def _bare(body: Body) -> Body:
    meta = {k: v for k, v in body["metadata"].items() if k not in ("managedFields", "resourceVersion")}
    return {**body, "metadata": meta}


def _timeless(entries: list[Body]) -> list[Body]:
    return [{key: value for key, value in entry.items() if key != "time"} for entry in entries]
