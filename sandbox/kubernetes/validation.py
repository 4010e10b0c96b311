"""Faults of a custom object against its schema, worded as kube-openapi words them, each with the path of its field."""

from __future__ import annotations

import json
import re
from typing import Any

from sandbox.kubernetes.schema import Node
from sandbox.kubernetes.status import Cause

INT_BOUNDS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
DATE_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})")


def faults(value: Any, node: Node, path: str = "") -> list[Cause]:
    """Every fault, in a fixed order (the API server's own varies from call to call)."""
    if value is None:
        return []
    found = _int_or_string(value, node, path) if node.int_or_string else _type(value, node, path)
    if found:
        return found
    found = [*_enum(value, node, path), *_number(value, node, path), *_string(value, node, path)]
    if isinstance(value, dict):
        found += _object(value, node, path)
    elif isinstance(value, list):
        found += _list(value, node, path)
    return found


def null_faults(value: Any, node: Node, path: str = "") -> list[Cause]:
    """Nulls where the schema wants a value: server-side apply does not drop them as other writes do."""
    found = []
    if isinstance(value, dict):
        for name, item in value.items():
            inner, at = node.field(name), f"{path}.{name}" if path else name
            if inner is None or path == "metadata":
                continue
            found += _type(None, inner, at) if item is None and inner.raw.get("type") else null_faults(item, inner, at)
    elif isinstance(value, list) and node.shape == "list":
        for index, item in enumerate(value):
            found += null_faults(item, node.items, f"{path}[{index}]")
    return found


def quote(value: Any) -> str:
    """A value as it stands in `Invalid value: ...`."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _invalid(path: str, value: Any, why: str) -> Cause:
    return Cause(path, "FieldValueInvalid", f"Invalid value: {quote(value)}: {path} in body {why}")


def _wrong_type(path: str, wanted: str, got: str) -> Cause:
    message = f'Invalid value: "{got}": {path} in body must be of type {wanted}: "{got}"'
    return Cause(path, "FieldValueTypeInvalid", message)


def type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    return {float: "number", str: "string", list: "array", dict: "object"}.get(type(value), "null")


def _type(value: Any, node: Node, path: str) -> list[Cause]:
    wanted = node.raw.get("type")
    got = type_name(value)
    if wanted is None or wanted == got or (wanted == "number" and got == "integer"):
        return []
    shape = node.raw.get("format")
    # The library compares formats before types, but not for strings and lists.
    if shape and got not in ("string", "array", "null"):
        found = [_wrong_type(path, shape, "float64" if got == "number" else "")]
        return [*found, _out_of_format(node, path)] if got == "number" else found
    return [_wrong_type(path, wanted, got)]


def _out_of_format(node: Node, path: str) -> Cause:
    message = f'Invalid value: "": Checked value must be of type {node.raw["type"]} with format {node.raw["format"]}'
    return Cause("<nil>", "FieldValueInvalid", f"{message} in {path}")


def _int_or_string(value: Any, node: Node, path: str) -> list[Cause]:
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return _string(value, node, path)
    message = f'Invalid value: "": "{path}" must validate at least one schema (anyOf)'
    got = type_name(value)
    return [
        _wrong_type(path, "integer,string", got),
        Cause("<nil>", "FieldValueInvalid", message),
        _wrong_type(path, "integer", got),
    ]


def _enum(value: Any, node: Node, path: str) -> list[Cause]:
    allowed = node.raw.get("enum")
    if allowed is None or value in allowed:
        return []
    listed = ", ".join(quote(item) for item in allowed)
    return [Cause(path, "FieldValueNotSupported", f"Unsupported value: {quote(value)}: supported values: {listed}")]


def _number(value: Any, node: Node, path: str) -> list[Cause]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return []
    low, high = INT_BOUNDS.get(node.raw.get("format", ""), (None, None))
    if low is not None and high is not None and not low <= value <= high:
        # Beyond 64 bits Go has no integer for it.
        beyond = not INT_BOUNDS["int64"][0] <= value <= INT_BOUNDS["int64"][1]
        wrong = [_wrong_type(path, node.raw["format"], "float64")] if beyond else []
        return [*wrong, _out_of_format(node, path)]
    if (minimum := node.raw.get("minimum")) is not None and value < minimum:
        return [_invalid(path, value, f"should be greater than or equal to {minimum}")]
    if (maximum := node.raw.get("maximum")) is not None and value > maximum:
        return [_invalid(path, value, f"should be less than or equal to {maximum}")]
    return []


def _string(value: Any, node: Node, path: str) -> list[Cause]:
    if not isinstance(value, str):
        return []
    found = []
    if len(value) > node.raw.get("maxLength", len(value)):
        message = f"Too long: may not be more than {node.raw['maxLength']} bytes"
        found.append(Cause(path, "FieldValueTooLong", message))
    if len(value) < (least := node.raw.get("minLength", 0)):
        found.append(_invalid(path, value, f"should be at least {least} chars long"))
    if (pattern := node.raw.get("pattern")) and not re.search(pattern, value):
        found.append(_invalid(path, value, f"should match '{pattern}'"))
    if node.raw.get("format") == "date-time" and not DATE_TIME.fullmatch(value):
        message = f"Invalid value: {quote(value)}: {path} in body must be of type date-time: {quote(value)}"
        found.append(Cause(path, "FieldValueInvalid", message))
    return found


def _object(value: dict[str, Any], node: Node, path: str) -> list[Cause]:
    prefix = f"{path}." if path else ""
    found = [
        Cause(prefix + name, "FieldValueRequired", "Required value")
        for name in node.raw.get("required", ())
        if name not in value
    ]
    for name, item in value.items():
        field = node.field(name)
        # Metadata is checked by rules of its own.
        if field is not None and (path or name != "metadata"):
            found += faults(item, field, prefix + name)
    return found


def _list(value: list[Any], node: Node, path: str) -> list[Cause]:
    found = []
    if len(value) < (least := node.raw.get("minItems", 0)):
        message = f"Invalid value: {len(value)}: {path} in body should have at least {least} items"
        found.append(Cause(path, "FieldValueInvalid", message))
    if len(value) > (most := node.raw.get("maxItems", len(value))):
        message = f"Too many: {len(value)}: must have at most {most} items"
        found.append(Cause(path, "FieldValueTooMany", message))
    for index, item in enumerate(value):
        at = f"{path}[{index}]"
        found += faults(item, node.items, at) if item is not None else _type(item, node.items, at)
    return found + _duplicates(value, node, path)


def _duplicates(value: list[Any], node: Node, path: str) -> list[Cause]:
    seen: list[Any] = []
    found = []
    for index, item in enumerate(value):
        if node.is_set:
            key = item
        elif node.keys and isinstance(item, dict):
            key = {name: item.get(name, node.items.default_of(name)) for name in node.keys}
        else:
            continue
        if key in seen:
            found.append(Cause(f"{path}[{index}]", "FieldValueDuplicate", f"Duplicate value: {quote(key)}"))
        seen.append(key)
    return found
