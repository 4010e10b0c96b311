"""Creating and updating: the order of checks is the API server's, so that the first complaint is the same.

Nothing here awaits: between reading an object and writing it nobody else runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes import builtins, events, managed, metadata, rules, schema, validation
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
from sandbox.kubernetes.validation import quote

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
    return Outcome(201, body, taken.warnings(options.validation, None))


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
        cluster.admission.validate(resource, body, None, _beside(cluster, target))
    name = body["metadata"]["name"]
    if given_version.isdigit() and given_version != "0":
        raise internal("resourceVersion should not be set on objects to be created")
    existing = cluster.store.get(resource.id, target.namespace, name)
    if existing:
        going = "object is being deleted: " if existing.body["metadata"].get("deletionTimestamp") else ""
        raise already_exists(resource.group, resource.plural, name, going)
    if claims is None:
        claims = _first_claims(cluster, resource, body, managed.decode(given_fields), options)
    if entries := managed.encode(list(claims)):
        body["metadata"]["managedFields"] = entries
    if options.dry_run:
        return body
    return cluster.store.put(resource.id, target.namespace, name, body).body


def _first_claims(
    cluster: Cluster, resource: Resource, body: Body, given: list[Claim], options: WriteOptions
) -> list[Claim]:
    manager = Manager(options.manager, "Update", resource.api_version)
    blank, node = builtins.blank(resource), schema.load(resource.definition, not resource.custom)
    if resource.stored_as:
        blank, body = events.to_view(blank), events.to_view(body)
    return managed.after_update(given, blank, body, node, manager, cluster.now())


def _beside(cluster: Cluster, target: Target) -> Iterator[Body]:
    return (stored.body for stored in cluster.store.objects(target.resource.id, target.namespace))


def replace_object(cluster: Cluster, target: Target, decoded: Decoded, options: WriteOptions) -> Outcome:
    """PUT. Raises ApiError."""
    resource = target.resource
    taken = take_strictly(decoded.value, decoded.duplicates, resource, options.validation)
    metadata.check_place(taken.body, resource, target.namespace, target.name)
    if resource.put_creates and not cluster.store.get(resource.id, target.namespace, target.name):
        body = create_object(cluster, target, taken, options)
        return Outcome(201, body, taken.warnings(options.validation, None))
    current = current_object(cluster, target)
    given = taken.body["metadata"].get("resourceVersion", "")
    if given and not given.isdigit():
        raise metadata.version_garbage(given)
    require_version(taken.body, target)
    old = current.body
    uid = taken.body["metadata"].get("uid", old["metadata"]["uid"])
    if uid != old["metadata"]["uid"]:
        raise _uid_mismatch(target, uid, old["metadata"]["uid"])
    body = update_object(cluster, target, current, taken, options)
    return Outcome(200, body, taken.warnings(options.validation, old))


def require_version(body: Body, target: Target) -> None:
    """Refuses an update that names no version, of a kind that is not updated unconditionally. Raises ApiError 422."""
    resource = target.resource
    if body["metadata"].get("resourceVersion", "") in ("", "0") and not resource.unconditional:
        why = "Invalid value: 0: must be specified for an update"
        cause = Cause("metadata.resourceVersion", "FieldValueInvalid", why)
        raise invalid(resource.group, resource.plural, target.name, [cause])


def check_version_in_body(body: Body, resource: Resource, name: str) -> None:
    """Refuses a patch that makes another API version of a custom object. Raises ApiError 422."""
    given = body.get("apiVersion", "")
    if resource.custom and given != resource.api_version:
        message = f"Invalid value: {quote(given)}: must be {resource.api_version}"
        cause = Cause("apiVersion", "FieldValueInvalid", message)
        raise invalid(resource.group, str(body.get("kind")), name, [cause])


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
    _validate(resource, body, old, taken.kind, target.subresource)
    if cluster.admission and not target.subresource:
        cluster.admission.validate(resource, body, old, _beside(cluster, target))
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
        # Watchers are told of the object as it was; the answer is the update, which was never stored.
        cluster.store.delete(*place)
        return {**body, "metadata": body["metadata"] | {"resourceVersion": old["metadata"]["resourceVersion"]}}
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


def _validate(resource: Resource, body: Body, old: Body | None, kind: str, subresource: str = "") -> None:
    name = body["metadata"].get("name", "")
    if resource.custom and kind != resource.kind:
        wrong = Cause("kind", "FieldValueInvalid", f'Invalid value: "{kind}": must be {resource.kind}')
        raise invalid(resource.group, kind, name, [wrong])
    causes = metadata.faults(body["metadata"], resource)
    if resource.custom and old is not None:
        causes *= 3  # as many of the real server's layers look at it
    if old is not None:
        update = metadata.update_faults(body["metadata"], old["metadata"])
        # The generic registry and the custom resource's strategy both check it, and both complain.
        causes += update * 2 if resource.custom else update
    if resource.custom:
        found = validation.faults(body, node_of(resource))
        causes += [_of_status(cause) for cause in found] if subresource == "status" else found
        causes += rules.faults(resource, body, causes)
    else:
        causes += builtins.faults(resource, body, old)
    if causes:
        group = "" if resource.stored_as else resource.group
        raise invalid(group, resource.kind, name, causes)


def _of_status(cause: Cause) -> Cause:
    """The status is validated by itself: messages tell the field's path below it."""
    below = cause.field.removeprefix("status").removeprefix(".")
    return Cause(cause.field, cause.reason, cause.message.replace(f"{cause.field} in body", f"{below} in body"))


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
    before, after = _bare(old), _bare(body)
    if resource.stored_as:
        before, after = events.to_view(before), events.to_view(after)
    node = schema.load(resource.definition, not resource.custom)
    return managed.after_update(claims, before, after, node, manager, now, ignored)


def _bare(body: Body) -> Body:
    meta = {k: v for k, v in body["metadata"].items() if k not in ("managedFields", "resourceVersion")}
    return {**body, "metadata": meta}


def _timeless(entries: list[Body]) -> list[Body]:
    return [{key: value for key, value in entry.items() if key != "time"} for entry in entries]
