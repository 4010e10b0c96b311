"""Structural schemas as nodes that know what the API server asks of them: fields, lists, atoms, defaults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Literal

Raw = dict[str, Any]
REFERENCE = "#/components/schemas/"
Shape = Literal["struct", "map", "list", "scalar", "open"]


@cache
def definitions() -> dict[str, Raw]:
    """Every schema by name, as OpenAPI v3 components."""
    found: dict[str, Raw] = {}
    for name in ("models.json", "extra.json"):
        found |= json.loads(files("sandbox.kubernetes.schemas").joinpath(name).read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True, eq=False)
class Node:
    """One place in a schema. `name` is the definition it comes from; `builtin`: Go's list types, not a CRD's, hold."""

    raw: Raw
    name: str
    builtin: bool

    @cached_property
    def properties(self) -> dict[str, Node]:
        return {key: _node(raw, self.builtin) for key, raw in self.raw.get("properties", {}).items()}

    @cached_property
    def items(self) -> Node:
        return _node(self.raw.get("items", {"x-kubernetes-preserve-unknown-fields": True}), self.builtin)

    @cached_property
    def values(self) -> Node | None:
        """The schema of the values of a map; None for a struct."""
        raw = self.raw.get("additionalProperties")
        return _node(raw, self.builtin) if isinstance(raw, dict) else None

    @cached_property
    def open(self) -> bool:
        """Whether unknown fields are kept."""
        return bool(self.raw.get("x-kubernetes-preserve-unknown-fields"))

    @cached_property
    def shape(self) -> Shape:
        if self.raw.get("type") == "array":
            return "list"
        if self.raw.get("type") != "object":
            return "scalar"
        if self.values is not None:
            return "map"
        return "struct" if self.raw.get("properties") else "open"

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The fields that identify an item of an associative list."""
        keys = self.raw.get("x-kubernetes-list-map-keys") or (
            self.raw.get("x-builtin-list-map-keys", ()) if self.builtin else ()
        )
        return tuple(keys)

    @cached_property
    def is_set(self) -> bool:
        return self.raw.get("x-kubernetes-list-type") == "set"

    @cached_property
    def atomic(self) -> bool:
        """Owned and replaced as a whole."""
        if self.shape == "list":
            return not self.keys and not self.is_set
        return self.raw.get("x-kubernetes-map-type") == "atomic"

    @property
    def int_or_string(self) -> bool:
        return bool(self.raw.get("x-kubernetes-int-or-string"))

    def field(self, name: str) -> Node | None:
        """The schema of a field or key, None if it is not declared."""
        return self.properties.get(name) or self.values

    def default_of(self, field: str) -> Any:
        """The default of a declared field, None without one."""
        node = self.properties.get(field)
        return node.raw.get("default") if node else None


@cache
def load(name: str, builtin: bool) -> Node:
    """The node of a definition. Raises KeyError."""
    return Node(definitions()[name], name, builtin)


def _node(raw: Raw, builtin: bool) -> Node:
    if "$ref" not in raw:
        return Node(raw, "", builtin)
    name = raw["$ref"].removeprefix(REFERENCE)
    if len(raw) == 1:
        return load(name, builtin)
    siblings = {key: value for key, value in raw.items() if key != "$ref"}
    return Node(definitions()[name] | siblings, name, builtin)
