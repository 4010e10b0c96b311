"""From a decoded body to an object of its kind: strictness, pruning, defaults. What is wrong here is a 400."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sandbox.kubernetes import events, names, registry, schema
from sandbox.kubernetes.decode import SCHEME
from sandbox.kubernetes.pruning import add_defaults, cannot_handle, check_go_types, drop_nulls, prune
from sandbox.kubernetes.registry import Resource
from sandbox.kubernetes.status import ApiError, bad_request

Body = dict[str, Any]
TYPE_META = ("apiVersion", "kind")
MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(.*)")
MICRO_TIMES = ("acquireTime", "renewTime", "eventTime", "lastObservedTime")
METADATA_ORDER = (
    *("name", "generateName", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp"),
    *("deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers"),
    "managedFields",
)
ENTRY_ORDER = ("manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1", "subresource")
# Fields of the metadata that Go omits when they are empty.
EMPTIES = (
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "generateName",
    "namespace",
    "uid",
)


@dataclass(frozen=True)
class Taken:
    """An object without apiVersion and kind, the kind it named, and the unknown and duplicate fields that went."""

    body: Body
    kind: str
    complaints: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    custom: bool = False

    def warnings(self, validation: str, old: Body | None) -> tuple[str, ...]:
        """What the answer warns of; `old` is what the object was."""
        complaints = self.complaints if validation == "Warn" else ()
        unwise = names.warnings(self.body["metadata"], old["metadata"] if old else None) if self.custom else ()
        return (*complaints, *self.notes, *unwise)

    @property
    def strict_error(self) -> str:
        return f"strict decoding error: {', '.join(self.complaints)}"


def node_of(resource: Resource) -> schema.Node:
    """The schema of the objects of a resource as they are stored."""
    name = "CoreV1Event" if resource.id == "events" else resource.definition
    return schema.load(name, not resource.custom)


def take_strictly(value: Body, duplicates: Sequence[str], resource: Resource, validation: str) -> Taken:
    """As `take`, and with Strict validation any complaint is a 400."""
    taken = take(value, duplicates, resource)
    if taken.complaints and validation == "Strict":
        raise cannot_handle(resource.kind, resource.version, taken.strict_error)
    return taken


def take(value: Body, duplicates: Sequence[str], resource: Resource) -> Taken:
    """Checks and normalises a body; unknown and duplicate fields are dropped and complained about.

    Raises ApiError 400.
    """
    api_version, kind = value.get("apiVersion"), str(value.get("kind", ""))
    if not resource.custom and (kind != resource.kind or registry.by_kind(str(api_version), kind) is None):
        raise _other_kind(resource, str(api_version), kind)
    if api_version != resource.api_version:
        raise _wrong_version(value, resource, str(api_version))
    node = schema.load(resource.definition, not resource.custom)
    body = {key: item for key, item in value.items() if key not in TYPE_META}
    if resource.custom:
        check_go_types(body.get("metadata"), schema.load("V1ObjectMeta", True), resource, "ObjectMeta")
    else:
        check_go_types(body, node, resource, resource.kind)
    unknown: list[str] = []
    body = prune(body, node, unknown)
    complaints = [_repeated(key) for key in duplicates] + [f'unknown field "{path}"' for path in unknown]
    body = drop_nulls(_with_empty_strings(body, node, resource))
    if resource.stored_as:
        body = events.from_view(body)
    if resource.custom:
        add_defaults(body, node)
    _normalise_times(body.get("metadata") or {}, schema.load("V1ObjectMeta", True), resource)
    if not resource.custom:
        _normalise_times(body, node_of(resource), resource)
    body["metadata"] = tidy_metadata(body.get("metadata") or {})
    return Taken(body, kind, tuple(complaints), _deduplicated_owners(body["metadata"]), resource.custom)


def _with_empty_strings(body: Body, node: schema.Node, resource: Resource) -> Body:
    """Go reads null in a map of strings as the empty string; this holds for all of a built-in kind's maps."""
    fields = {"metadata": schema.load("V1ObjectMeta", True)} if resource.custom else node.properties
    return {key: _nulls_to_empty(item, fields[key]) if key in fields else item for key, item in body.items()}


def _nulls_to_empty(value: Any, node: schema.Node) -> Any:
    if not isinstance(value, dict):
        return value
    strings = node.shape == "map" and node.values is not None and node.values.raw.get("type") == "string"
    made = {}
    for key, item in value.items():
        inner = node.field(key)
        made[key] = "" if item is None and strings else _nulls_to_empty(item, inner) if inner is not None else item
    return made


def _deduplicated_owners(metadata: Body) -> tuple[str, ...]:
    """Drops owners that are named twice, in place; the warning that this happened."""
    owners = metadata.get("ownerReferences") or []
    kept = [owner for index, owner in enumerate(owners) if owner not in owners[:index]]
    uids = list(
        dict.fromkeys(o.get("uid") for i, o in enumerate(owners) if o.get("uid") in [p.get("uid") for p in owners[:i]])
    )
    if not uids:
        return ()
    metadata["ownerReferences"] = kept
    return (
        ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and "
        f"may reject such requests as early as 1.24; please fix your requests; "
        f"duplicate UID(s) observed: {', '.join(uids)}",
    )


def in_gos_order(metadata: Body) -> Body:
    """Metadata with its fields in the order of Go's struct, in which messages about built-in kinds show it."""
    made = {key: metadata[key] for key in METADATA_ORDER if key in metadata}
    made |= {key: item for key, item in metadata.items() if key not in made}
    if isinstance(entries := made.get("managedFields"), list):
        made["managedFields"] = [{key: entry[key] for key in ENTRY_ORDER if key in entry} for entry in entries]
    return made


def _repeated(key: str) -> str:
    """The complaint about a key given twice; YAML's comes as a whole sentence."""
    return f"yaml: unmarshal errors:\n  {key}" if key.startswith("line ") else f'duplicate field "{key}"'


def _normalise_times(value: Any, node: schema.Node, resource: Resource) -> None:
    """Turns times into Go's form, in place: UTC, whole seconds, or microseconds where the field is a MicroTime."""
    items = value.items() if isinstance(value, dict) else ()
    for name, item in list(items):
        field = node.field(name)
        if field is not None and field.raw.get("format") == "date-time":
            value[name] = _time(item, micro=name in MICRO_TIMES, resource=resource)
        elif field is not None:
            _normalise_times(item, field, resource)
    for item in value if isinstance(value, list) else ():
        _normalise_times(item, node.items, resource)


def _time(text: str, *, micro: bool, resource: Resource) -> str:
    layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
    rest, wanted = text, "2006"
    found = MICRO_TIME.fullmatch(text) if micro else None
    if found and not re.fullmatch(r"\.\d{6}(Z|[+-]\d\d:\d\d)", found[1]):
        # Go wants six digits, no fewer and no more.
        digits = re.match(r"\.\d{6}", found[1])
        rest, wanted = (found[1][7:], "Z07:00") if digits else (found[1], ".000000")
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None or rest != text:
            raise ValueError(text)
    except ValueError as error:
        why = f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as "{wanted}"'
        raise cannot_handle(resource.kind, resource.version, why) from error
    moment = moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def typed(resource: Resource, stored: Body) -> Body:
    """A stored object as clients of this resource see it: with apiVersion and kind, in the resource's own form."""
    shown = events.to_view(stored) if resource.stored_as else stored
    return {"apiVersion": resource.api_version, "kind": resource.kind, **shown}


def tidy_metadata(metadata: Body) -> Body:
    """Metadata without what Go would omit, and without selfLink."""
    return {k: v for k, v in metadata.items() if k != "selfLink" and not (k in EMPTIES and not v)}


def _other_kind(resource: Resource, api_version: str, kind: str) -> ApiError:
    version = api_version.rpartition("/")[2]
    if registry.by_kind(api_version, kind) is None:
        why = f'no kind "{kind}" is registered for version "{api_version}" in scheme "{SCHEME}"'
    else:
        package = resource.group.partition(".")[0] or "core"
        why = f"converting ({version}.{kind}) to ({package}.{resource.kind}): unknown conversion"
    return bad_request(f'{kind} in version "{version}" cannot be handled as a {resource.kind}: {why}')


def _wrong_version(value: Body, resource: Resource, given: str) -> Exception:
    if not resource.custom:
        return bad_request(
            f"the API version in the data ({given}) does not match the expected API version ({resource.api_version})"
        )
    # Recorded: pruned by the other version's schema, in which this kind has no fields.
    pruned = given.rpartition("/")[0] == resource.group
    unknown = [key for key in value if key not in (*TYPE_META, "metadata")] if pruned else []
    return bad_request(
        f"the API version in the data ({given}) does not match the expected API version ({resource.api_version})",
        [f'unknown field "{name}"' for name in unknown],
    )
