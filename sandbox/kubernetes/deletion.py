"""DELETE of one object or of a collection: preconditions, finalizers, propagation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes import protobuf
from sandbox.kubernetes.cluster import Cluster
from sandbox.kubernetes.decode import OBJECT_TYPES, SCHEME, decode_any, go_kind
from sandbox.kubernetes.options import META, dry_run_faults, integer
from sandbox.kubernetes.registry import NAMESPACES
from sandbox.kubernetes.status import (
    ApiError,
    Cause,
    bad_request,
    conflict,
    invalid,
    success,
    unsupported_media_type,
)
from sandbox.kubernetes.storage import Stored
from sandbox.kubernetes.writes import Outcome, Target, current_object

Body = dict[str, Any]
ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
POLICIES = ("Background", "Foreground", "Orphan")


@dataclass(frozen=True)
class DeleteOptions:
    """How to delete; `uid` and `version` are preconditions, empty if there are none."""

    policy: str
    uid: str
    version: str
    dry_run: bool


def parse_options(query: Mapping[str, str], raw: bytes, content_type: str) -> DeleteOptions:
    """DeleteOptions from the body, the query's filling in. Raises ApiError 400, 422."""
    body = _decoded(raw, content_type)
    _check_types(body)
    policy = body.get("propagationPolicy") or query.get("propagationPolicy", "")
    orphan = body.get("orphanDependents", query.get("orphanDependents"))
    if policy and policy not in POLICIES:
        listed = ", ".join(f'"{name}"' for name in ("Foreground", "Background", "Orphan", "nil"))
        message = f'Unsupported value: "{policy}": supported values: {listed}'
        cause = Cause("propagationPolicy", "FieldValueNotSupported", message)
        raise invalid(META, "DeleteOptions", "", [cause])
    if policy and orphan is not None:
        message = f'Invalid value: "{policy}": orphanDependents and deletionPropagation cannot be both set'
        raise invalid(META, "DeleteOptions", "", [Cause("propagationPolicy", "FieldValueInvalid", message)])
    if orphan is not None:
        policy = "Orphan" if orphan in (True, "true") else "Background"
    integer(query.get("gracePeriodSeconds", ""))
    conditions = body.get("preconditions") or {}
    dry_run = body.get("dryRun") or ([query["dryRun"]] if "dryRun" in query else [])
    if faults := dry_run_faults(dry_run):
        raise invalid(META, "DeleteOptions", "", faults)
    return DeleteOptions(policy, conditions.get("uid", ""), conditions.get("resourceVersion", ""), bool(dry_run))


def _decoded(raw: bytes, content_type: str) -> Body:
    """The body, if it is one of DeleteOptions."""
    if not raw.strip():
        return {}
    media = content_type.partition(";")[0].strip().lower()
    if media not in ("", *OBJECT_TYPES, protobuf.MEDIA):
        raise unsupported_media_type([*OBJECT_TYPES, protobuf.MEDIA])
    body = decode_any(raw, content_type)
    if (kind := body.get("kind", "DeleteOptions")) != "DeleteOptions":
        version = body.get("apiVersion", "")
        raise bad_request(f'no kind "{kind}" is registered for version "{version}" in scheme "{SCHEME}"')
    return body


def _check_types(body: Body) -> None:
    kinds = {"propagationPolicy": str, "preconditions": dict, "orphanDependents": bool, "dryRun": list}
    wrong = [name for name, kind in kinds.items() if body.get(name) is not None and not isinstance(body[name], kind)]
    conditions = body.get("preconditions")
    if not wrong and isinstance(conditions, dict):
        wrong = [name for name in ("uid", "resourceVersion") if not isinstance(conditions.get(name, ""), str)]
    if wrong:
        raise bad_request(f"json: cannot unmarshal into Go struct field DeleteOptions.{wrong[0]}")
    grace = body.get("gracePeriodSeconds")
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        got = go_kind(grace)
        raise bad_request(
            f"json: cannot unmarshal {got} into Go struct field DeleteOptions.gracePeriodSeconds of type int64"
        )


def delete(cluster: Cluster, target: Target, options: DeleteOptions) -> Outcome:
    """DELETE of one object. Raises ApiError 404, 409."""
    resource = target.resource
    stored = current_object(cluster, target)
    _check_preconditions(target, stored, options)
    if resource.kind == "Namespace":
        return Outcome(200, _terminate_namespace(cluster, stored, options))
    marked = _marked(cluster, target, stored, options.policy)
    if marked is not None:
        if options.dry_run or marked == stored.body:
            return Outcome(200, marked)
        return Outcome(200, cluster.store.put(resource.id, target.namespace, target.name, marked).body)
    uid, last = stored.body["metadata"]["uid"], stored
    if not options.dry_run:
        last = cluster.store.delete(resource.id, target.namespace, target.name)
    if resource.returns_deleted:
        return Outcome(200, last.body)
    return Outcome(200, success(resource.group, resource.plural, target.name, uid), whole=True)


def delete_collection(cluster: Cluster, target: Target, chosen: Iterable[Stored], options: DeleteOptions) -> None:
    """Deletes the objects of a list."""
    for stored in chosen:
        delete(cluster, Target(target.resource, stored.namespace, stored.name), options)


def _check_preconditions(target: Target, stored: Stored, options: DeleteOptions) -> None:
    resource, meta = target.resource, stored.body["metadata"]
    pairs = (
        ("UID", options.uid, meta["uid"], "deleted and then recreated"),
        ("ResourceVersion", options.version, meta["resourceVersion"], "modified"),
    )
    for word, wanted, actual, fate in pairs:
        if wanted and wanted != actual:
            if resource.kind == "Namespace":
                why = f"Precondition failed: {word} in precondition: {wanted}, {word} in object meta: {actual}"
                raise conflict(resource.group, resource.plural, target.name, why)
            why = (
                f"the {word} in the precondition ({wanted}) does not match the {word} in record ({actual}). "
                f"The object might have been {fate}"
            )
            raise conflict(resource.group, resource.kind, target.name, why)


def _marked(cluster: Cluster, target: Target, stored: Stored, policy: str) -> Body | None:
    """The object with its deletion marked, if finalizers hold it; None if it can go at once."""
    meta = stored.body["metadata"]
    finalizers = [name for name in meta.get("finalizers", ()) if policy == "" or name not in (ORPHAN, FOREGROUND)]
    finalizers += {"Orphan": [ORPHAN], "Foreground": [FOREGROUND]}.get(policy, [])
    if not finalizers:
        return None
    if meta.get("deletionTimestamp"):
        return {**stored.body, "metadata": {**meta, "finalizers": finalizers}}
    meta = meta | {"finalizers": finalizers, "deletionTimestamp": cluster.now(), "deletionGracePeriodSeconds": 0}
    if "generation" in meta:
        meta["generation"] += 1
    return {**stored.body, "metadata": meta}


def _terminate_namespace(cluster: Cluster, stored: Stored, options: DeleteOptions) -> Body:
    if stored.name in ("default", "kube-system"):
        message = f'namespaces "{stored.name}" is forbidden: this namespace may not be deleted'
        raise ApiError(403, "Forbidden", message, {"name": stored.name, "kind": "namespaces"})
    meta = stored.body["metadata"]
    if meta.get("deletionTimestamp"):
        return stored.body
    body = {**stored.body, "metadata": meta | {"deletionTimestamp": cluster.now()}, "status": {"phase": "Terminating"}}
    if options.dry_run:
        return body
    return cluster.store.put(NAMESPACES.id, "", stored.name, body).body
