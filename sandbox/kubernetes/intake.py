"""From a decoded body to an object of its kind: strictness, pruning, defaults. What is wrong here is a 400."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sandbox.kubernetes import events, schema
from sandbox.kubernetes.pruning import add_defaults, cannot_handle, check_go_types, drop_nulls, prune
from sandbox.kubernetes.registry import Resource
from sandbox.kubernetes.status import bad_request

Body = dict[str, Any]
TYPE_META = ("apiVersion", "kind")
MICRO_TIMES = ("acquireTime", "renewTime", "eventTime", "lastObservedTime")
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

    def warnings(self, validation: str) -> tuple[str, ...]:
        return self.complaints if validation == "Warn" else ()

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
    if api_version != resource.api_version:
        raise _wrong_version(value, resource, str(api_version))
    if not resource.custom and kind != resource.kind:
        raise bad_request(
            f'{kind} in version "{api_version}" cannot be handled as a {resource.kind}: no kind "{kind}" is registered'
        )
    node = schema.load(resource.definition, not resource.custom)
    body = {key: item for key, item in value.items() if key not in TYPE_META}
    if resource.custom:
        check_go_types(body.get("metadata"), schema.load("V1ObjectMeta", True), resource, "ObjectMeta")
    else:
        check_go_types(body, node, resource, resource.kind)
    unknown: list[str] = []
    body = prune(body, node, unknown)
    complaints = [f'duplicate field "{path}"' for path in duplicates] + [f'unknown field "{path}"' for path in unknown]
    body = drop_nulls(body)
    if resource.stored_as:
        body = events.from_view(body)
    if resource.custom:
        add_defaults(body, node)
    _normalise_times(body.get("metadata") or {}, schema.load("V1ObjectMeta", True), resource)
    if not resource.custom:
        _normalise_times(body, node_of(resource), resource)
    body["metadata"] = tidy_metadata(body.get("metadata") or {})
    return Taken(body, kind, tuple(complaints))


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
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError(text)
    except ValueError as error:
        why = f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{text}" as "2006"'
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
