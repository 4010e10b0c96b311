"""The three patch formats that say what to change: JSON merge, JSON patch and strategic merge. Pure functions."""

from __future__ import annotations

import copy
from typing import Any

from sandbox.kubernetes import gojson
from sandbox.kubernetes.decode import go_kind, parse_json
from sandbox.kubernetes.schema import Node
from sandbox.kubernetes.status import ApiError, bad_request

Body = dict[str, Any]


def rejected() -> ApiError:
    """A JSON patch whose operations do not apply; the API server does not say which."""
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {})


def parse_merge(raw: bytes) -> tuple[Body, tuple[str, ...]]:
    """A merge or strategic patch and the paths of its duplicate keys. Raises ApiError 400."""
    try:
        decoded = parse_json(raw)
    except gojson.Malformed as error:
        raise bad_request(f"error decoding patch: {error}") from error
    if decoded.value is None:
        raise bad_request("Invalid JSON Patch")
    if not isinstance(decoded.value, dict):
        kind = go_kind(decoded.value)
        raise bad_request(
            f"error decoding patch: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        )
    return decoded.value, decoded.duplicates


FIELDS = ("op", "path", "from", "value")


def parse_operations(raw: bytes) -> tuple[list[Body], tuple[str, ...]]:
    """The operations of a JSON patch, and what is odd about them. Raises ApiError 400."""
    try:
        decoded = parse_json(raw)
    except gojson.Malformed as error:
        raise bad_request(f"error decoding patch: {error}") from error
    operations = [] if decoded.value is None else decoded.value
    wrong = (
        operations
        if not isinstance(operations, list)
        else next((o for o in operations if not isinstance(o, dict)), None)
    )
    if wrong is not None:
        target = "[]handlers.jsonPatchOp" if wrong is operations else "handlers.jsonPatchOp"
        raise bad_request(
            f"error decoding patch: json: cannot unmarshal {go_kind(wrong)} into Go value of type {target}"
        )
    for operation in operations:
        for field in ("op", "path", "from"):
            value = operation.get(field)
            if value is not None and not isinstance(value, str):
                what = f"{go_kind(value)} into Go struct field jsonPatchOp.{field} of type string"
                raise bad_request(f"error decoding patch: json: cannot unmarshal {what}")
    odd = [f'json patch duplicate field "{path}"' for path in decoded.duplicates]
    for index, operation in enumerate(operations):
        odd += [f'json patch unknown field "[{index}].{name}"' for name in operation if name not in FIELDS]
    return list(operations), tuple(odd)


def merge(target: Any, change: Any) -> Any:
    """RFC 7386: objects merge, null removes, everything else replaces."""
    if not isinstance(change, dict):
        return change
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def apply_operations(target: Any, operations: list[Body]) -> Any:
    """RFC 6902, all or nothing. Raises ApiError 422."""
    document = copy.deepcopy(target)
    try:
        for operation in operations:
            document = _operate(document, operation)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise rejected() from error
    return document


def _operate(document: Any, operation: Body) -> Any:
    path = _pointer(operation["path"])
    match operation["op"]:
        case "add":
            return _add(document, path, copy.deepcopy(operation.get("value")))
        case "replace":
            return _replace(document, path, copy.deepcopy(operation.get("value")))
        case "remove":
            return _remove(document, path)
        case "move":
            source = _pointer(operation["from"])
            value = _get(document, source)
            return _add(_remove(document, source), path, value)
        case "copy":
            return _add(document, path, copy.deepcopy(_get(document, _pointer(operation["from"]))))
        case "test":
            if _same(_get_or_none(document, path), operation.get("value")):
                return document
    raise ValueError(operation["op"])


def _replace(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(document, path[:-1])
    if isinstance(parent, list):
        parent[_index(parent, path[-1])] = value
    else:
        # The API server's library asks of arrays alone that there is something to replace.
        parent[path[-1]] = value
    return document


def _pointer(text: Any) -> list[str]:
    if not isinstance(text, str):
        raise TypeError(text)
    if text == "":
        return []
    if not text.startswith("/"):
        raise ValueError(text)
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _get(document: Any, path: list[str]) -> Any:
    for part in path:
        document = document[_index(document, part)] if isinstance(document, list) else document[part]
    return document


def _get_or_none(document: Any, path: list[str]) -> Any:
    parent = _get(document, path[:-1]) if path else None
    if path and isinstance(parent, dict):
        return parent.get(path[-1])
    return _get(document, path)


def _index(items: list[Any], part: str) -> int:
    number = int(part)
    if not -len(items) <= number < len(items):
        raise IndexError(part)
    return number


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(document, path[:-1])
    if isinstance(parent, list):
        at = len(parent) if path[-1] == "-" else int(path[-1])
        if not -len(parent) - 1 <= at <= len(parent):
            raise IndexError(at)
        # A negative index counts from the end of the array that is to be.
        parent.insert(at if at >= 0 else len(parent) + 1 + at, value)
    else:
        parent[path[-1]] = value
    return document


def _remove(document: Any, path: list[str]) -> Any:
    if not path:
        raise ValueError("the whole document")
    parent = _get(document, path[:-1])
    if isinstance(parent, list):
        del parent[_index(parent, path[-1])]
    else:
        del parent[path[-1]]
    return document


def _same(left: Any, right: Any) -> bool:
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def strategic(target: Any, change: Any, node: Node) -> Any:
    """Strategic merge: as a merge patch, but lists with keys merge by key and `$patch` directives are obeyed."""
    if not isinstance(change, dict):
        return change
    if change.get("$patch") == "replace":
        return {key: value for key, value in change.items() if key != "$patch"}
    if change.get("$patch") == "delete":
        return {}
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in change.items():
        if key.startswith("$"):
            _directive(merged, key, value)
            continue
        field = node.field(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, list):
            merged[key] = _strategic_list(merged.get(key) or [], value, field)
        elif field is not None:
            merged[key] = strategic(merged.get(key), value, field)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def _directive(merged: Body, key: str, value: Any) -> None:
    name, _, field = key.partition("/")
    if name == "$deleteFromPrimitiveList" and isinstance(merged.get(field), list):
        merged[field] = [item for item in merged[field] if item not in value]
    elif name == "$retainKeys":
        for extra in set(merged) - set(value):
            del merged[extra]


def _strategic_list(target: list[Any], change: list[Any], node: Node | None) -> list[Any]:
    if node is None or any(isinstance(item, dict) and item.get("$patch") == "replace" for item in change):
        return [item for item in change if not (isinstance(item, dict) and "$patch" in item)]
    if node.is_set:
        return [*change, *(item for item in target if item not in change)]
    if not node.keys:
        return change
    # The merge key of Go's tags is the first of the list's map keys.
    key = node.keys[0]
    merged = list(target)
    order = {old.get(key): index for index, old in enumerate(target) if isinstance(old, dict)}
    for item in change:
        if not isinstance(item, dict) or key not in item or not all(isinstance(old, dict) for old in merged):
            raise rejected()
        at = next((i for i, old in enumerate(merged) if old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            merged = [old for old in merged if old.get(key) != item[key]]
        elif at is None:
            merged.append({k: v for k, v in item.items() if not k.startswith("$")})
        else:
            merged[at] = strategic(merged[at], item, node.items)
    named = [item.get(key) for item in change]
    ours = [item for name in named for item in merged if item.get(key) == name]
    return _in_order(ours, [item for item in merged if item.get(key) not in named], key, order)


def _in_order(ours: list[Body], others: list[Body], key: str, order: dict[Any, int]) -> list[Body]:
    """The patch's items in its order, the others in theirs; where both have a place, the list's old order decides.

    What is new goes first, as the API server has it.
    """
    made: list[Body] = []
    while ours and others:
        first = order.get(ours[0].get(key), -1) < order.get(others[0].get(key), -1)
        made.append(ours.pop(0) if first else others.pop(0))
    return [*made, *ours, *others]
