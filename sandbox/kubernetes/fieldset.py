"""Sets of fields as managedFields writes them (FieldsV1), and what two objects differ in.

A path is a tuple of FieldsV1's own words: "f:name" for a field, 'k:{...}' for an item with keys, "v:..." for a value.
Source: structured-merge-diff v6, whose rules of membership are followed: a field set of an *applied* object holds its
leaves and list items, a *comparison* also every struct that came or went.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes.schema import Node

Path = tuple[str, ...]
Fields = frozenset[Path]
Body = dict[str, Any]
EMPTY: Fields = frozenset()

IDENTITY = (
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "generation",
    "managedFields",
    "resourceVersion",
)
STRIPPED: Fields = frozenset(
    {("f:apiVersion",), ("f:kind",), ("f:metadata",), *(("f:metadata", f"f:{name}") for name in IDENTITY)}
)
# Which schema to assume where there is none: maps merge, lists are one value.
UNKNOWN = Node({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, "", False)
LEAF = Node({"type": "string"}, "", False)


@dataclass(frozen=True)
class Comparison:
    """The paths in which a second object differs from a first."""

    added: Fields
    modified: Fields
    removed: Fields


def encode(fields: Fields) -> Body:
    """FieldsV1."""
    tree: Body = {}
    for path in sorted(fields):
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node["."] = {}
    return _tidy(tree)


def _tidy(tree: Body) -> Body:
    # A member without children is written {}, one with children says so with ".".
    return {key: {} if set(inner) == {"."} else _tidy(inner) for key, inner in sorted(tree.items())}


def decode(tree: Body, path: Path = ()) -> Fields:
    """The paths of FieldsV1."""
    found: set[Path] = set()
    for key, inner in tree.items():
        if key == ".":
            found.add(path)
        elif isinstance(inner, dict) and inner:
            found |= decode(inner, (*path, key))
        else:
            found.add((*path, key))
    return frozenset(found)


def of_object(value: Any, node: Node, path: Path = ()) -> Fields:
    """The field set of an applied object: leaves, keys of maps, items of associative lists."""
    found: set[Path] = set()
    if isinstance(value, dict) and not _is_leaf(value, node):
        for name, item in value.items():
            inner = node.field(name) or (LEAF if not isinstance(item, dict) else UNKNOWN)
            at = (*path, f"f:{name}")
            found |= of_object(item, inner, at)
            if name not in node.properties or item in ({}, None):
                found.add(at)
    elif isinstance(value, list) and not _is_leaf(value, node):
        for item in value:
            at = (*path, element(item, node))
            found |= of_object(item, node.items, at) | {at}
    elif path:
        found.add(path)
    return frozenset(found)


def compare(old: Any, new: Any, node: Node) -> Comparison:
    """What changed from `old` to `new`, identity and version aside."""
    added: set[Path] = set()
    modified: set[Path] = set()
    removed: set[Path] = set()
    _compare(old, new, node, (), added, modified, removed)
    return Comparison(*(frozenset(paths) - STRIPPED for paths in (added, modified, removed)))


def element(item: Any, node: Node) -> str:
    """The word for an item of an associative list."""
    if node.keys and isinstance(item, dict):
        key = {name: item.get(name, node.items.default_of(name)) for name in sorted(node.keys)}
        return "k:" + json.dumps(key, separators=(",", ":"), ensure_ascii=False)
    return "v:" + json.dumps(item, separators=(",", ":"), ensure_ascii=False)


def ancestors(fields: Fields) -> Fields:
    """The set with every struct above a member: removing the last field of a struct removes the struct."""
    return fields | {path[:length] for path in fields for length in range(1, len(path))}


def text(path: Path) -> str:
    """A path for people: .spec.containers[name="x"].image"""
    words = []
    for part in path:
        kind, _, rest = part.partition(":")
        if kind == "f":
            words.append(f".{rest}")
        elif kind == "v":
            words.append(f"[={rest}]")
        else:
            key = json.loads(rest)
            words.append("[" + ",".join(f"{name}={json.dumps(value)}" for name, value in key.items()) + "]")
    return "".join(words)


def _is_leaf(value: Any, node: Node) -> bool:
    if isinstance(value, dict):
        return not value or node.atomic or node.shape == "scalar"
    return node.shape != "list" or node.atomic


def _children(value: Any, node: Node) -> dict[str, tuple[Any, Node]]:
    if isinstance(value, dict):
        return {
            f"f:{name}": (item, node.field(name) or (UNKNOWN if isinstance(item, dict) else LEAF))
            for name, item in value.items()
        }
    return {element(item, node): (item, node.items) for item in value or ()}


def _compare(
    old: Any, new: Any, node: Node, path: Path, added: set[Path], modified: set[Path], removed: set[Path]
) -> None:
    if old == new and isinstance(old, bool) == isinstance(new, bool):
        return
    sides = [side for side in (old, new) if side is not None]
    compound = all(isinstance(side, (dict, list)) for side in sides) and len({type(side) for side in sides}) == 1
    if (
        compound
        and not (node.atomic or node.shape == "scalar")
        and any(sides)
        and not all(_is_leaf(side, node) for side in sides)
    ):
        left, right = _children(old, node), _children(new, node)
        for part in [*left, *(part for part in right if part not in left)]:
            inner = (right.get(part) or left[part])[1]
            before, after = left.get(part, (None, inner))[0], right.get(part, (None, inner))[0]
            _compare(before, after, inner, (*path, part), added, modified, removed)
    elif old is not None and new is not None:
        modified.add(path)
        return
    if old is None:
        added.add(path)
    elif new is None:
        removed.add(path)
