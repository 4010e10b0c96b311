"""PATCH: which formats a kind takes, what they make of the stored object, and server-side apply."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from sandbox.kubernetes import fieldset, gojson, managed, metadata, patch
from sandbox.kubernetes.cluster import Cluster
from sandbox.kubernetes.decode import parse_json, parse_yaml
from sandbox.kubernetes.intake import node_of, take, typed
from sandbox.kubernetes.managed import Manager
from sandbox.kubernetes.options import WriteOptions
from sandbox.kubernetes.registry import Resource
from sandbox.kubernetes.schema import Node
from sandbox.kubernetes.status import (
    MODIFIED,
    Cause,
    bad_request,
    conflict,
    internal,
    invalid,
    unsupported_media_type,
)
from sandbox.kubernetes.storage import Stored
from sandbox.kubernetes.validation import quote
from sandbox.kubernetes.writes import Outcome, Target, create_object, current_object, update_object

Body = dict[str, Any]
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def accepted(resource: Resource) -> list[str]:
    """The patch formats of a kind: strategic merge needs Go types, which custom kinds have none of."""
    strategic = [] if resource.custom else [STRATEGIC_PATCH]
    return [JSON_PATCH, MERGE_PATCH, *strategic, APPLY_PATCH]


def patch_object(
    cluster: Cluster, target: Target, raw: bytes, content_type: str, options: WriteOptions, given_manager: str
) -> Outcome:
    """Any PATCH. `given_manager` is the fieldManager parameter, which apply insists on. Raises ApiError."""
    form = content_type.partition(";")[0].strip().lower()
    if form not in accepted(target.resource):
        raise unsupported_media_type(accepted(target.resource))
    if form == APPLY_PATCH:
        return _apply(cluster, target, raw, options, given_manager)
    current = current_object(cluster, target)
    before = typed(target.resource, current.body)
    duplicates: tuple[str, ...] = ()
    if form == JSON_PATCH:
        after = patch.apply_operations(before, patch.parse_operations(raw))
    else:
        change, duplicates = patch.parse_merge(raw)
        node = node_of(target.resource)
        after = patch.merge(before, change) if form == MERGE_PATCH else patch.strategic(before, change, node)
    return _patched(cluster, target, current, after, duplicates, options)


def _patched(
    cluster: Cluster, target: Target, current: Stored, after: Any, duplicates: tuple[str, ...], options: WriteOptions
) -> Outcome:
    if not isinstance(after, dict):
        raise patch.rejected()
    taken = take(after, duplicates, target.resource)
    if taken.complaints and options.validation == "Strict":
        text = json.dumps(after, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        message = f"Invalid value: {quote(text)}: {taken.strict_error}"
        raise invalid("", "", "", [Cause("patch", "FieldValueInvalid", message)])
    metadata.check_place(taken.body, target.resource, target.namespace, target.name)
    body = update_object(cluster, target, current, taken, options)
    return Outcome(200, body, taken.warnings(options.validation))


def _apply(cluster: Cluster, target: Target, raw: bytes, options: WriteOptions, given_manager: str) -> Outcome:
    resource = target.resource
    if not given_manager:
        cause = Cause("fieldManager", "FieldValueRequired", "Required value: is required for apply patch")
        raise invalid("meta.k8s.io", "PatchOptions", "", [cause])
    applied = _applied(raw, resource)
    _check_applied(applied, target)
    manager = Manager(given_manager, "Apply", resource.api_version, target.subresource)
    found = cluster.store.get(resource.id, target.namespace, target.name)
    if found is None and target.subresource:
        current_object(cluster, target)
    live: Body = _live(found.body) if found else {"metadata": {}}
    claims = managed.decode(found.body["metadata"].get("managedFields")) if found else []
    _check_applied_version(applied, target, found)
    configuration = {key: value for key, value in applied.items() if key not in ("apiVersion", "kind")}
    ignored = _ignored(target, configuration)
    by_kubectl = given_manager == "kubectl" and not target.subresource
    yielded = _yielded_to_kubectl(live, node_of(resource)) if by_kubectl else fieldset.EMPTY
    wish = managed.Application(manager, configuration, options.force, ignored, yielded)
    merged, claims = managed.apply(claims, live, node_of(resource), wish)
    if by_kubectl:
        merged = _with_last_applied(merged, applied)
    taken = take(typed(resource, merged), (), resource)
    taken.body["metadata"] |= {"name": target.name}
    metadata.check_place(taken.body, resource, target.namespace, target.name)
    if found is None:
        claims = managed.stamped(claims, manager, cluster.now())
        return Outcome(201, create_object(cluster, target, taken, options, claims))
    taken.body["metadata"].pop("resourceVersion", None)
    body = update_object(cluster, target, found, replace(taken, complaints=()), options, claims, manager)
    return Outcome(200, body)


def _yielded_to_kubectl(live: Body, node: Node) -> fieldset.Fields:
    """What kubectl applied from the client and nobody changed since is kubectl's to apply from the server."""
    text = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    try:
        last = json.loads(text or "")
    except ValueError:
        return fieldset.EMPTY
    if not isinstance(last, dict):
        return fieldset.EMPTY
    last = {key: value for key, value in last.items() if key not in ("apiVersion", "kind")}
    change = fieldset.compare(last, live, node)
    return fieldset.of_object(last, node) - change.added - change.modified - change.removed


def _with_last_applied(merged: Body, applied: Body) -> Body:
    """kubectl's server-side apply keeps the annotation of its client-side apply up to date, where there is one."""
    annotations = merged["metadata"].get("annotations")
    if not isinstance(annotations, dict) or LAST_APPLIED not in annotations:
        return merged
    meta = dict(applied.get("metadata") or {})
    meta["annotations"] = {k: v for k, v in (meta.get("annotations") or {}).items() if k != LAST_APPLIED}
    text = json.dumps(applied | {"metadata": meta}, separators=(",", ":"), sort_keys=True, ensure_ascii=False) + "\n"
    return {**merged, "metadata": merged["metadata"] | {"annotations": annotations | {LAST_APPLIED: text}}}


def _live(body: Body) -> Body:
    meta = {k: v for k, v in body["metadata"].items() if k not in ("managedFields", "resourceVersion")}
    return {**body, "metadata": meta}


def _ignored(target: Target, configuration: Body) -> tuple[str, ...]:
    if target.subresource:
        return tuple(f"f:{name}" for name in {*configuration, "spec", "metadata"} if name != "status")
    return ("f:status",) if target.resource.status else ()


def _applied(raw: bytes, resource: Resource) -> Body:
    try:
        value = parse_json(raw).value if raw.lstrip()[:1] == b"{" else parse_yaml(raw)
    except gojson.Malformed as error:
        raise bad_request(f"error decoding YAML: {error}") from error
    if not isinstance(value, dict):
        raise bad_request("error decoding YAML: the document is not an object")
    api_version, kind = str(value.get("apiVersion", "")), str(value.get("kind", ""))
    if kind != resource.kind or api_version != resource.api_version:
        raise bad_request(f"invalid object type: {api_version}, Kind={kind}")
    return value | {"metadata": value.get("metadata") or {}}


def _check_applied(applied: Body, target: Target) -> None:
    given = applied.get("metadata")
    given = given if isinstance(given, dict) else {}
    name = given.get("name", target.name)
    if name != target.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({target.name})")
    if given.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    faults = managed.untyped(applied, node_of(target.resource))
    if faults:
        place = f"{given.get('namespace', '')}/{name}; {target.resource.api_version}, Kind={target.resource.kind}"
        listed = faults[0] if len(faults) == 1 else "errors:\n" + "\n".join(f"  {fault}" for fault in faults)
        raise internal(f"failed to create typed patch object ({place}): {listed}")


def _check_applied_version(applied: Body, target: Target, found: Stored | None) -> None:
    given = (applied.get("metadata") or {}).get("resourceVersion", "")
    if given and (found is None or given != str(found.version)):
        raise conflict(target.resource.group, target.resource.plural, target.name, MODIFIED)
