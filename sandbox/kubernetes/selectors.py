"""Label and field selectors: parsing with the API server's complaints, and matching."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes import names
from sandbox.kubernetes.registry import METADATA_FIELDS, Resource
from sandbox.kubernetes.status import ApiError, bad_request

Body = Mapping[str, Any]
Matcher = Callable[[Body], bool]
TOKEN = re.compile(r"\s*(==|!=|[=,()!<>]|[^\s=,()!<>]+|$)")
END = "end of string"
# The events.k8s.io view's names of fields, which are stored under core v1's.
STORED = {"regarding": "involvedObject", "reportingController": "reportingComponent"}


@dataclass(frozen=True)
class Requirement:
    """One term of a label selector; `operator` is one of in, notin, exists, absent, lt, gt."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "exists":
                return value is not None
            case "absent":
                return value is None
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
        try:
            number, bound = int(value or ""), int(next(iter(self.values)))
        except ValueError:
            return False
        return number > bound if self.operator == "gt" else number < bound


def matcher(label_selector: str, field_selector: str, resource: Resource) -> Matcher:
    """Whether an object (without apiVersion and kind) is selected. Raises ApiError 400."""
    requirements = parse_labels(label_selector)
    fields = parse_fields(field_selector, resource)
    if not requirements and not fields:
        return lambda body: True

    def matches(body: Body) -> bool:
        labels = body["metadata"].get("labels") or {}
        return all(requirement.matches(labels) for requirement in requirements) and all(
            (field_value(body, path) == value) == equal for path, equal, value in fields
        )

    return matches


def exact_name(field_selector: str) -> str:
    """The name that a field selector pins, empty if it pins none."""
    for term in field_selector.split(","):
        found = re.fullmatch(r"metadata\.name==?([^=!]+)", term.strip())
        if found:
            return found[1]
    return ""


def parse_fields(text: str, resource: Resource) -> list[tuple[str, bool, str]]:
    """(path, equal or not, value) of each term. Raises ApiError 400."""
    terms = []
    escape = re.search(r"\\(.?)", re.sub(r"\\[,=\\]", "", text))
    if escape:
        raise bad_request(f"invalid field selector: invalid escape sequence: {escape[0]}")
    for part in (part for part in re.split(r"(?<!\\),", text) if part):
        found = re.match(r"([^=!]*)(!=|==|=)(.*)", part)
        if not found:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        if "=" in re.sub(r"\\.", "", found[3]):
            raise bad_request(f"invalid field selector: unescaped character in value: {ord('=')}")
        path = found[1]
        supported = (
            resource.fields if resource.namespaced else [f for f in resource.fields if f != "metadata.namespace"]
        )
        if path not in supported:
            raise bad_request(_unsupported(path, resource))
        terms.append((path, found[2] != "!=", re.sub(r"\\([,=\\])", r"\1", found[3])))
    return terms


def _unsupported(path: str, resource: Resource) -> str:
    if resource.custom or resource.fields != METADATA_FIELDS:
        return f"field label not supported: {path}"
    return f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"'


def field_value(body: Body, path: str) -> str:
    if path == "name":
        path = "metadata.name"
    value: Any = body
    first, dot, rest = path.partition(".")
    path = f"{STORED.get(first, first)}{dot}{rest}"
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if path == "source" and isinstance(value, Mapping):
        value = value.get("component") or body.get("reportingComponent")
    return "" if value is None else str(value)


def parse_labels(text: str) -> list[Requirement]:
    """The requirements of a selector, all of which must hold. Raises ApiError 400."""
    tokens = [token for token in TOKEN.findall(text) if token]
    parser = _Parser(tokens)
    requirements = []
    while parser.peek() != "":
        requirements.append(parser.requirement())
        following = parser.take()
        if following == "":
            break
        if following != ",":
            raise bad_request(f"found '{following}', expected: ',' or '{END}'")
        if parser.peek() in ("", ","):
            raise bad_request(f"found '{parser.peek()}', expected: identifier after ','")
    return requirements


class _Parser:
    """A cursor over the tokens of one selector."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def requirement(self) -> Requirement:
        absent = self.peek() == "!"
        if absent:
            self.take()
        key = self.take()
        if not re.fullmatch(r"[^=,()!<>]+", key):
            if absent:
                raise unparsable(f"found '{key}', expected: identifier")
            raise bad_request(f"found '{key}', expected: !, identifier, or '{END}'")
        _check(names.qualified_name(key, label=True), key, "<nil>")
        if absent:
            return Requirement(key, "absent")
        if self.peek() in ("", ","):
            return Requirement(key, "exists")
        operator = self.take()
        if operator in ("in", "notin"):
            return Requirement(key, operator, self._set(key))
        if operator in ("=", "==", "!="):
            value = "" if self.peek() in ("", ",") else self.take()
            if value and not re.fullmatch(r"[^=,()!<>]+", value):
                raise unparsable(f"found '{value}', expected: identifier")
            _check(names.label_value(value), value, f"values[0][{key}]")
            return Requirement(key, "notin" if operator == "!=" else "in", frozenset({value}))
        if operator in ("<", ">"):
            if not re.fullmatch(r"[+-]?[0-9]+", self.peek()):
                why = "for 'Gt', 'Lt' operators, the value must be an integer"
                raise unparsable(f'values[0]: Invalid value: "{self.peek()}": {why}')
            return Requirement(key, "lt" if operator == "<" else "gt", frozenset({self.take()}))
        raise unparsable(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")

    def _set(self, key: str) -> frozenset[str]:
        opening = self.take()
        if opening != "(":
            raise unparsable(f"found '{opening}' expected: '('")
        values: list[str] = []
        while True:
            token = self.take()
            if token == ")":
                break
            if token == "":
                raise unparsable("found '', expected: ',' or ')'")
            if token != ",":
                values.append(token)
        for index, value in enumerate(values):
            _check(names.label_value(value), value, f"values[{index}][{key}]")
        return frozenset(values or [""])


def unparsable(why: str) -> ApiError:
    return bad_request(f"unable to parse requirement: {why}")


def _check(faults: list[str], value: str, field: str) -> None:
    if faults:
        raise unparsable(f'{field}: Invalid value: "{value}": {"; ".join(faults)}')
