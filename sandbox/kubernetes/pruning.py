"""What decoding does to an object before anyone validates it: unknown fields and nulls go, defaults come."""

from __future__ import annotations

import base64
import binascii
import copy
import re
from typing import Any

from sandbox.kubernetes.decode import go_kind
from sandbox.kubernetes.registry import Resource
from sandbox.kubernetes.schema import Node
from sandbox.kubernetes.status import ApiError, bad_request


def prune(value: Any, node: Node, unknown: list[str], path: str = "") -> Any:
    """A copy without the fields that the schema does not know; their paths are added to `unknown`."""
    if isinstance(value, dict) and node.shape in ("struct", "map", "open"):
        kept: dict[str, Any] = {}
        for name, item in value.items():
            inner = f"{path}.{name}" if path else name
            field = node.field(name)
            if field is not None:
                kept[name] = prune(item, field, unknown, inner)
            elif node.open or (node.shape == "open" and not node.raw.get("properties")):
                kept[name] = copy.deepcopy(item)
            else:
                unknown.append(inner)
        return kept
    if isinstance(value, list) and node.shape == "list":
        return [prune(item, node.items, unknown, f"{path}[{index}]") for index, item in enumerate(value)]
    return copy.deepcopy(value)


def drop_nulls(value: Any) -> Any:
    """A copy without null fields, as an API server keeps no null that its schema does not call nullable."""
    if isinstance(value, dict):
        return {key: drop_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [drop_nulls(item) for item in value]
    return value


def add_defaults(value: Any, node: Node) -> None:
    """Fills in defaults, in place, wherever the object that holds the field is there."""
    if isinstance(value, dict):
        for name, field in node.properties.items():
            if name not in value and "default" in field.raw:
                value[name] = copy.deepcopy(field.raw["default"])
        for name, item in value.items():
            inner = node.field(name)
            if inner is not None:
                add_defaults(item, inner)
    elif isinstance(value, list) and node.shape == "list":
        for item in value:
            add_defaults(item, node.items)


def check_go_types(value: Any, node: Node, resource: Resource, struct: str) -> None:
    """Refuses, as decoding does, a value that does not fit a built-in kind's Go struct: 400, the first fault only."""
    fault = _go_fault(value, node, struct, "")
    if fault:
        raise cannot_handle(resource.kind, resource.version, fault)


def cannot_handle(kind: str, version: str, why: str) -> ApiError:
    return bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {why}')


def _go_fault(value: Any, node: Node, struct: str, path: str) -> str:
    if value is None or node.int_or_string:
        return ""
    wanted = _go_type(node)
    if not _fits(value, node):
        where = f"Go struct field {struct}.{path}" if path else "Go value"
        number = f" {value}" if node.raw.get("type") == "integer" and type(value) in (int, float) else ""
        return f"json: cannot unmarshal {go_kind(value)}{number} into {where} of type {wanted}"
    if node.raw.get("format") == "byte" and (fault := _base64_fault(value)):
        return fault
    if isinstance(value, dict):
        # What is in a struct is reported under that struct; a misfit itself under the one that holds it.
        own = (_go_struct(node) or struct) if node.shape == "struct" and path else struct
        for name, item in value.items():
            inner = node.field(name)
            if inner is None:
                continue
            # A map's values are reported under the map itself: encoding/json does not name keys.
            at = path if node.shape == "map" else f"{path}.{name}".lstrip(".")
            fault = _go_fault(item, inner, own, at)
            if fault:
                return fault
    if isinstance(value, list):
        if None in value:
            return f"json: cannot unmarshal null into Go struct field {struct}.{path} of type {_go_type(node.items)}"
        for item in value:
            fault = _go_fault(item, node.items, struct, path)
            if fault:
                return fault
    return ""


def _base64_fault(text: str) -> str:
    """Go's complaint; line breaks are no fault to it."""
    bare = text.replace("\n", "").replace("\r", "")
    try:
        base64.b64decode(bare, validate=True)
    except (binascii.Error, ValueError):
        bad = re.search(r"[^A-Za-z0-9+/]", text)
        at = bad.start() if bad else len(bare) // 4 * 4
        return f"illegal base64 data at input byte {at}"
    return ""


def _fits(value: Any, node: Node) -> bool:
    match node.raw.get("type"):
        case "string":
            return isinstance(value, str)
        case "integer":
            bits = 64 if node.raw.get("format") == "int64" else 32
            return (
                isinstance(value, int) and not isinstance(value, bool) and -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)
            )
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
    return True


def _go_struct(node: Node) -> str:
    name = node.name
    for prefix in ("CoreV1", "EventsV1", "V1alpha1", "V1beta1", "V2", "V1"):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _go_type(node: Node) -> str:
    match node.raw.get("type"):
        case "integer":
            return str(node.raw.get("format", "int32"))
        case "number":
            return "float64"
        case "boolean":
            return "bool"
        case "array":
            return f"[]{_go_type(node.items)}"
        case "object" if node.values is not None:
            return f"map[string]{_go_type(node.values)}"
        case "object":
            return f"v1.{_go_struct(node)}"
    return "[]uint8" if node.raw.get("format") == "byte" else "string"
