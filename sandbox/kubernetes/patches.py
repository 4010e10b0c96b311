"""PATCH: which formats a kind takes, what they make of the stored object, and server-side apply."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from sandbox.kubernetes import fieldset, gojson, managed, metadata, patch
from sandbox.kubernetes.cluster import Cluster
from sandbox.kubernetes.decode import go_kind, parse_yaml
from sandbox.kubernetes.intake import in_gos_order, node_of, take, typed
from sandbox.kubernetes.managed import Manager
from sandbox.kubernetes.options import WriteOptions
from sandbox.kubernetes.registry import Resource
from sandbox.kubernetes.schema import Node
from sandbox.kubernetes.status import (
    MODIFIED,
    ApiError,
    Cause,
    bad_request,
    conflict,
    internal,
    invalid,
    unsupported_media_type,
)
from sandbox.kubernetes.storage import Stored
from sandbox.kubernetes.validation import null_faults, quote
from sandbox.kubernetes.writes import (
    Outcome,
    Target,
    check_version_in_body,
    create_object,
    current_object,
    require_version,
    update_object,
)

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


def is_apply(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == APPLY_PATCH


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
        operations, duplicates = patch.parse_operations(raw)
        after = patch.apply_operations(before, operations)
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
    resource = target.resource
    if not after.get("kind"):
        raise _unfit(after, resource, f"Object 'Kind' is missing in '{_shown(after, resource)}'")
    check_version_in_body(after, resource, target.name)
    try:
        taken = take(after, (), resource)
    except ApiError as error:
        raise _unfit(after, resource, error.message.partition(f"handled as a {resource.kind}: ")[2]) from error
    taken = replace(taken, complaints=(*_spoken(duplicates), *sorted(taken.complaints)))
    if taken.complaints and options.validation == "Strict":
        raise _unfit(after, resource, taken.strict_error)
    metadata.check_place(taken.body, resource, target.namespace, target.name)
    require_version(taken.body, target)
    old = current.body  # read again after the update it would be parsed anew, and stay so
    body = update_object(cluster, target, current, taken, options)
    return Outcome(200, body, taken.warnings(options.validation, old))


def _spoken(duplicates: tuple[str, ...]) -> list[str]:
    return [text if text.startswith("json patch ") else f'duplicate field "{text}"' for text in duplicates]


def _unfit(after: Body, resource: Resource, why: str) -> ApiError:
    """What a patch makes of an object is no object of its kind."""
    message = f"Invalid value: {quote(_shown(after, resource))}: {why}"
    return invalid("", "", "", [Cause("patch", "FieldValueInvalid", message)])


def _shown(after: Body, resource: Resource) -> str:
    if not resource.custom and isinstance(after.get("metadata"), dict):
        after = {**after, "metadata": in_gos_order(after["metadata"])}
        return json.dumps({key: after[key] for key in sorted(after)}, separators=(",", ":"), ensure_ascii=False)
    return json.dumps(after, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def _apply(cluster: Cluster, target: Target, raw: bytes, options: WriteOptions, given_manager: str) -> Outcome:
    resource = target.resource
    if not given_manager:
        cause = Cause("fieldManager", "FieldValueRequired", "Required value: is required for apply patch")
        raise invalid("meta.k8s.io", "PatchOptions", "", [cause])
    applied, duplicates = _applied(raw, resource)
    if duplicates and options.validation == "Strict":
        listed = "\n".join(f"  {text}" for text in duplicates)
        raise bad_request(
            f"error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n{listed}"
        )
    _check_applied(applied, target)
    manager = Manager(given_manager, "Apply", resource.api_version, target.subresource)
    spoken = tuple(duplicates) if options.validation == "Warn" else ()
    found = cluster.store.get(resource.id, target.namespace, target.name)
    if found is None and target.subresource:
        current_object(cluster, target)
    if found is None and (uid := (applied.get("metadata") or {}).get("uid")):
        why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        raise conflict(resource.group, resource.plural, target.name, why)
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
    if faults := null_faults(configuration, node_of(resource)) if resource.custom else []:
        raise invalid(resource.group, resource.kind, target.name, faults)
    taken = take(typed(resource, merged), (), resource)
    taken.body["metadata"] |= {"name": target.name}
    metadata.check_place(taken.body, resource, target.namespace, target.name)
    if found is None:
        claims = managed.stamped(claims, manager, cluster.now())
        taken.body["metadata"].pop("resourceVersion", None)
        body = create_object(cluster, target, taken, options, claims)
        return Outcome(201, body, (*spoken, *taken.warnings("", None)))
    taken.body["metadata"].pop("resourceVersion", None)
    taken = replace(taken, complaints=())
    body = update_object(cluster, target, found, taken, options, claims, manager)
    return Outcome(200, body, (*spoken, *taken.warnings("", found.body)))


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
    kept = {k: v for k, v in (meta.pop("annotations", None) or {}).items() if k != LAST_APPLIED}
    meta |= {"annotations": kept} if kept else {}
    text = json.dumps(applied | {"metadata": meta}, separators=(",", ":"), sort_keys=True, ensure_ascii=False) + "\n"
    return {**merged, "metadata": merged["metadata"] | {"annotations": annotations | {LAST_APPLIED: text}}}


def _live(body: Body) -> Body:
    meta = {k: v for k, v in body["metadata"].items() if k not in ("managedFields", "resourceVersion")}
    return {**body, "metadata": meta}


def _ignored(target: Target, configuration: Body) -> tuple[str, ...]:
    if target.subresource:
        return tuple(f"f:{name}" for name in {*configuration, "spec", "metadata"} if name != "status")
    return ("f:status",) if target.resource.status else ()


def _applied(raw: bytes, resource: Resource) -> tuple[Body, list[str]]:
    """The document, and the keys that it gives twice. JSON is read as the YAML that it is."""
    duplicates: list[str] = []
    try:
        value = parse_yaml(raw, duplicates)
    except gojson.Malformed as error:
        raise bad_request(f"error decoding YAML: {error}") from error
    value = {} if value is None else value
    if not isinstance(value, dict):
        why = f"json: cannot unmarshal {go_kind(value)} into Go value of type map[string]interface {{}}"
        raise bad_request(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {why}")
    api_version, kind = str(value.get("apiVersion", "")), str(value.get("kind", ""))
    if kind != resource.kind or api_version != resource.api_version:
        raise bad_request(f"invalid object type: {_grouped(api_version)}, Kind={kind}")
    return value | {"metadata": value.get("metadata") or {}}, duplicates


def _grouped(api_version: str) -> str:
    """A version as Go prints it, with the group even where that is empty."""
    return api_version if "/" in api_version else f"/{api_version}"


def _check_applied(applied: Body, target: Target) -> None:
    given = applied.get("metadata")
    given = given if isinstance(given, dict) else {}
    name = given.get("name", "")
    if not name:
        raise bad_request(
            f"the name of the object ({target.name} based on URL) was undeterminable: name must be provided"
        )
    if name != target.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({target.name})")
    if given.get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    faults = managed.untyped(applied, node_of(target.resource))
    if faults:
        version = _grouped(target.resource.api_version)
        place = f"{given.get('namespace', '')}/{name}; {version}, Kind={target.resource.kind}"
        listed = faults[0] if len(faults) == 1 else "errors:\n" + "\n".join(f"  {fault}" for fault in faults)
        raise internal(f"failed to create typed patch object ({place}): {listed}")


def _check_applied_version(applied: Body, target: Target, found: Stored | None) -> None:
    given = (applied.get("metadata") or {}).get("resourceVersion", "")
    if given and found is not None and given != str(found.version):
        raise conflict(target.resource.group, target.resource.plural, target.name, MODIFIED)
