"""Who owns which field: managedFields on every write, and server-side apply with its conflicts.

Source: apimachinery managedfields and structured-merge-diff; recordings of a 1.36 server.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from sandbox.kubernetes import fieldset
from sandbox.kubernetes.fieldset import Fields
from sandbox.kubernetes.pruning import drop_nulls
from sandbox.kubernetes.schema import Node
from sandbox.kubernetes.status import ApiError

Body = dict[str, Any]
MAX_UPDATERS = 10
ANCIENT = "ancient-changes"


@dataclass(frozen=True)
class Manager:
    """The identity of an owner. An applier is the same whatever version it applies in."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""

    def describe(self) -> str:
        about = f'"{self.name}"'
        if self.subresource:
            about += f' with subresource "{self.subresource}"'
        return about if self.operation == "Apply" else f"{about} using {self.api_version}"

    def same(self, other: Manager) -> bool:
        mine = replace(self, api_version="") if self.operation == "Apply" else self
        theirs = replace(other, api_version="") if other.operation == "Apply" else other
        return mine == theirs


@dataclass(frozen=True)
class Claim:
    """The fields of one manager and when it last changed something (empty: never)."""

    manager: Manager
    fields: Fields
    time: str = ""


def decode(entries: list[Body] | None) -> list[Claim]:
    """Claims from managedFields; entries that say nothing are left out."""
    claims = []
    for entry in entries or ():
        if entry.get("manager") and entry.get("operation"):
            subresource = entry.get("subresource", "")
            manager = Manager(entry["manager"], entry["operation"], entry.get("apiVersion", ""), subresource)
            claims.append(Claim(manager, fieldset.decode(entry.get("fieldsV1") or {}), entry.get("time") or ""))
    return claims


def encode(claims: list[Claim]) -> list[Body]:
    """managedFields: appliers first, then by time, then by name; owners of nothing are dropped."""
    entries = []
    for claim in sorted(claims, key=lambda c: (c.manager.operation, c.time, c.manager.name, c.manager.subresource)):
        if not claim.fields:
            continue
        manager = claim.manager
        entry: Body = {"apiVersion": manager.api_version, "fieldsType": "FieldsV1"}
        entry |= {"fieldsV1": fieldset.encode(claim.fields), "manager": manager.name, "operation": manager.operation}
        if manager.subresource:
            entry["subresource"] = manager.subresource
        if claim.time:
            entry["time"] = claim.time
        entries.append(entry)
    return entries


def after_update(
    claims: list[Claim], old: Body, new: Body, node: Node, manager: Manager, now: str, ignored: tuple[str, ...] = ()
) -> list[Claim]:
    """Claims once `manager` has turned `old` into `new`: it owns what it changed, others lose that and what went."""
    change = fieldset.compare(old, new, node)
    taken = _without(change.added | change.modified, ignored)
    kept = [
        claim if claim.manager.same(manager) else replace(claim, fields=claim.fields - change.removed - taken)
        for claim in claims
    ]
    kept = [replace(c, fields=c.fields - change.removed) if c.manager.same(manager) else c for c in kept]
    if taken:
        mine = next((claim for claim in kept if claim.manager.same(manager)), None)
        kept = [claim for claim in kept if claim is not mine]
        kept.append(Claim(manager, taken | (mine.fields if mine else fieldset.EMPTY), now))
    return _capped(kept)


@dataclass(frozen=True)
class Application:
    """A server-side apply: who applies what; `ignored` names top-level fields it may not touch.

    With `force` every field is taken from other managers, else those in `yielded` only.
    """

    manager: Manager
    applied: Body
    force: bool
    ignored: tuple[str, ...] = ()
    yielded: Fields = fieldset.EMPTY


def apply(claims: list[Claim], live: Body, node: Node, wish: Application) -> tuple[Body, list[Claim]]:
    """The object with the application merged in and what its manager gave up removed; the claims without new times.

    Raises ApiError 409 for fields that other managers own and do not yield.
    """
    manager, applied, ignored = wish.manager, wish.applied, wish.ignored
    fields = _without(fieldset.of_object(applied, node) - fieldset.STRIPPED, ignored)
    last = next((claim for claim in claims if claim.manager.same(manager)), None)
    others = [claim for claim in claims if claim is not last]
    merged = _merge(live, applied, node)
    if last is not None:
        owned = fieldset.ancestors(frozenset().union(fields, *(claim.fields for claim in others)))
        merged = drop_nulls(_removed(merged, node, fieldset.ancestors(last.fields) - owned - fieldset.STRIPPED))
    change = fieldset.compare(live, merged, node)
    touched = _without(change.added | change.modified, ignored)
    conflicts = [
        (claim.manager, path)
        for claim in sorted(others, key=lambda claim: claim.manager.describe())
        for path in sorted((claim.fields & touched) - wish.yielded, key=fieldset.text)
    ]
    if conflicts and not wish.force:
        raise _conflict(conflicts)
    others = [replace(claim, fields=claim.fields - touched - change.removed) for claim in others]
    mine = Claim(manager, fields, last.time if last else "")
    return merged, [*others, mine]


def stamped(claims: list[Claim], manager: Manager, now: str) -> list[Claim]:
    """The claims with `manager`'s time set."""
    return [replace(claim, time=now) if claim.manager.same(manager) else claim for claim in claims]


def _without(fields: Fields, tops: tuple[str, ...]) -> Fields:
    return frozenset(path for path in fields if path and path[0] not in tops)


def _capped(claims: list[Claim]) -> list[Claim]:
    # As the API server does: beyond ten updaters the oldest are merged into one.
    updaters = sorted((c for c in claims if c.manager.operation == "Update" and c.fields), key=lambda c: c.time)
    if len(updaters) <= MAX_UPDATERS:
        return claims
    surplus = [c for c in updaters if not c.manager.subresource][: len(updaters) - MAX_UPDATERS + 1]
    if len(surplus) < 2:
        return claims
    ancient = Manager(ANCIENT, "Update", surplus[-1].manager.api_version)
    together = Claim(ancient, frozenset().union(*(c.fields for c in surplus)), surplus[-1].time)
    return [claim for claim in claims if claim not in surplus] + [together]


def _merge(live: Any, applied: Any, node: Node) -> Any:
    if isinstance(live, dict) and isinstance(applied, dict) and not node.atomic:
        merged = dict(live)
        for name, value in applied.items():
            merged[name] = _merge(live.get(name), value, node.field(name) or fieldset.UNKNOWN)
        return merged
    if isinstance(live, list) and isinstance(applied, list) and node.shape == "list" and not node.atomic:
        left = {fieldset.element(item, node): item for item in live}
        right = {fieldset.element(item, node): item for item in applied}
        both = {key: _merge(left.get(key), item, node.items) for key, item in right.items()}
        return [both.get(key, item) for key, item in left.items()] + [both[key] for key in right if key not in left]
    return applied


def _removed(value: Any, node: Node, gone: Fields) -> Any:
    if not gone:
        return value
    below: dict[str, set[fieldset.Path]] = {}
    for path in gone:
        below.setdefault(path[0], set()).add(path[1:])
    if isinstance(value, dict) and not node.atomic:
        kept: Body = {}
        for name, item in value.items():
            inner = below.get(f"f:{name}", set())
            if () not in inner:
                kept[name] = _removed(item, node.field(name) or fieldset.UNKNOWN, frozenset(inner)) if inner else item
        return kept
    if isinstance(value, list) and node.shape == "list" and not node.atomic:
        items = []
        for item in value:
            inner = below.get(fieldset.element(item, node), set())
            if () not in inner:
                items.append(_removed(item, node.items, frozenset(inner)))
        return items
    return value


def _conflict(conflicts: list[tuple[Manager, fieldset.Path]]) -> ApiError:
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {m.describe()}", "field": fieldset.text(path)}
        for m, path in conflicts
    ]
    if len(conflicts) == 1:
        manager, path = conflicts[0]
        listed = f"Apply failed with 1 conflict: conflict with {manager.describe()}: {fieldset.text(path)}"
    else:
        lines = []
        for about in sorted({manager.describe() for manager, _ in conflicts}):
            lines.append(f"conflicts with {about}:")
            lines += [f"- {fieldset.text(path)}" for manager, path in conflicts if manager.describe() == about]
        listed = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
    return ApiError(409, "Conflict", listed, {"causes": causes})


def untyped(applied: Any, node: Node, path: str = "") -> list[str]:
    """Why a typed patch cannot be made of an applied object: fields not declared, values of another type."""
    found: list[str] = []
    wrong = _wrong_scalar(applied, node)
    if wrong:
        return [f"{path}: {wrong}"]
    if isinstance(applied, dict):
        for name, value in sorted(applied.items()):
            inner = node.field(name)
            if inner is not None:
                found += untyped(value, inner, f"{path}.{name}")
            elif node.shape == "struct" and not node.open:
                found.append(f"{path}.{name}: field not declared in schema")
    elif isinstance(applied, list) and node.shape == "list":
        for item in applied:
            at = fieldset.element(item, node) if not node.atomic else ""
            found += untyped(item, node.items, path + (fieldset.text((at,)) if at else "[]"))
    return found


def _wrong_scalar(value: Any, node: Node) -> str:
    got = {bool: "bool", str: "string", list: "[]interface {}", dict: "map[string]interface {}"}.get(type(value), "")
    match node.raw.get("type"):
        case "integer" | "number" if got:
            return f"expected numeric (int or float), got {got}"
        case "boolean" if value is not None and not isinstance(value, bool):
            return f"expected boolean, got {_spoken(value)}"
        case "string" if value is not None and not isinstance(value, str):
            return f"expected string, got {_spoken(value)}"
        case "object" if value is not None and not isinstance(value, dict):
            return f"expected map, got {_spoken(value)}"
        case "array" if value is not None and not isinstance(value, list):
            return f"expected list, got {_spoken(value)}"
    return ""


def _spoken(value: Any) -> str:
    """A value as Go's %v prints the library's wrapper of it."""
    return f"&value.valueUnstructured{{Value:{json.dumps(value)}}}"
