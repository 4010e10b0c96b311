"""Objects, lists and watch events as bytes, in the form that was negotiated."""

from __future__ import annotations

import json
from typing import Any

from sandbox.kubernetes import events, tables
from sandbox.kubernetes.intake import typed
from sandbox.kubernetes.negotiation import YAML, Wanted
from sandbox.kubernetes.reads import Page
from sandbox.kubernetes.registry import Resource
from sandbox.kubernetes.storage import Stored

Body = dict[str, Any]
YAML_STRING = "tag:yaml.org,2002:str"


def dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def encode(value: Body, wanted: Wanted) -> bytes:
    if wanted.media == YAML:
        return _yaml(value)
    if wanted.pretty:
        return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
    return dump(value) + b"\n"


def _yaml(value: Body) -> bytes:
    import yaml

    class Dumper(yaml.SafeDumper):
        """YAML as Go writes it: what would read as another type is quoted with double quotes, nothing is an alias."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, item: str) -> yaml.ScalarNode:
        read_as = dumper.resolve(yaml.ScalarNode, item, (True, False))  # type: ignore[no-untyped-call]
        return dumper.represent_scalar(YAML_STRING, item, style=None if read_as == YAML_STRING else '"')

    Dumper.add_representer(str, text)
    return yaml.dump(value, Dumper=Dumper, sort_keys=True, allow_unicode=True, width=80).encode()


def one(resource: Resource, body: Body, wanted: Wanted, include: str, now: float) -> bytes:
    """One object."""
    if wanted.form == "object":
        return encode(typed(resource, body), wanted)
    if wanted.form == "PartialObjectMetadata":
        return encode(partial(body, wanted.version), wanted)
    version = body["metadata"].get("resourceVersion", "")
    return encode(table(resource, [body], {"resourceVersion": version}, wanted, include, now), wanted)


def listed(resource: Resource, page: Page, wanted: Wanted, include: str, now: float) -> bytes:
    """A list."""
    metadata: Body = {"resourceVersion": str(page.version)}
    if page.next:
        metadata["continue"] = page.next
    if page.remaining is not None:
        metadata["remainingItemCount"] = page.remaining
    if wanted.form == "Table":
        return encode(table(resource, [s.body for s in page.items], metadata, wanted, include, now), wanted)
    if wanted.form == "PartialObjectMetadataList":
        items = [partial(stored.body, wanted.version) for stored in page.items]
        head = {"kind": "PartialObjectMetadataList", "apiVersion": f"meta.k8s.io/{wanted.version}"}
        return encode(head | {"metadata": metadata, "items": items}, wanted)
    if wanted.media == YAML or wanted.pretty:
        items = [_item(resource, stored.body) for stored in page.items]
        return encode(_list_head(resource) | {"metadata": _list_metadata(resource, metadata), "items": items}, wanted)
    # The objects are kept as JSON: a list is a matter of joining them.
    opening = dump(_list_head(resource) | {"metadata": _list_metadata(resource, metadata)})[:-1]
    joined = b",".join(_raw_item(resource, stored) for stored in page.items)
    return opening + b',"items":[' + joined + b"]}\n"


def table(
    resource: Resource,
    bodies: list[Body],
    metadata: Body,
    wanted: Wanted,
    include: str,
    now: float,
    *,
    head: bool = True,
) -> Body:
    """A Table; `include` is the includeObject parameter."""
    definitions = [column.definition() for column in tables.columns(resource)] if head else None
    rows = []
    for body in bodies:
        shown: Body = {"cells": tables.row(resource, body, now)}
        if include == "Object":
            shown["object"] = typed(resource, body)
        elif include != "None":
            shown["object"] = partial(body, wanted.version)
        else:
            shown["object"] = None
        rows.append(shown)
    made: Body = {"kind": "Table", "apiVersion": f"meta.k8s.io/{wanted.version}", "metadata": metadata}
    return made | {"columnDefinitions": definitions, "rows": rows}


def partial(body: Body, version: str) -> Body:
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": body["metadata"]}


def raw_object(resource: Resource, stored: Stored) -> bytes:
    """An object with apiVersion and kind, from its stored bytes."""
    if resource.stored_as:
        return dump(typed(resource, stored.body))
    head = f'{{"apiVersion":"{resource.api_version}","kind":"{resource.kind}",'.encode()
    return head + stored.raw[1:]


def _raw_item(resource: Resource, stored: Stored) -> bytes:
    if resource.custom:
        return raw_object(resource, stored)
    return dump(events.to_view(stored.body)) if resource.stored_as else stored.raw


def _item(resource: Resource, body: Body) -> Body:
    if resource.custom:
        return typed(resource, body)
    return events.to_view(body) if resource.stored_as else body


def _list_head(resource: Resource) -> Body:
    return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}


def _list_metadata(resource: Resource, metadata: Body) -> Body:
    # Lists of custom objects always say "continue".
    return {"continue": ""} | metadata if resource.custom else metadata
