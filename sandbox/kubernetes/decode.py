"""Request bodies to objects: JSON or YAML, duplicate keys noticed, refusals in the API server's words."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes import gojson, protobuf
from sandbox.kubernetes.registry import Resource
from sandbox.kubernetes.status import ApiError, bad_request, unsupported_media_type

Body = dict[str, Any]
MAX_BODY = 3 * 1024 * 1024
# What Go's scheme calls itself in messages.
SCHEME = "pkg/runtime/scheme.go:111"
OBJECT_TYPES = ("application/json", "application/yaml")


@dataclass(frozen=True)
class Decoded:
    """A parsed document and the keys that it gives twice (the last one counts): paths, in YAML Go's sentences."""

    value: Any
    duplicates: tuple[str, ...] = ()


def too_large() -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY}")


def parse_json(raw: bytes) -> Decoded:
    """Parses JSON as Go does; raises gojson.Malformed with Go's sentence."""
    twice: dict[int, list[str]] = {}

    def pairs(items: list[tuple[str, Any]]) -> Body:
        made = dict(items)
        if len(made) != len(items):
            names = [name for name, _ in items]
            twice[id(made)] = sorted({name for name in names if names.count(name) > 1})
        return made

    text = raw.decode("utf-8", "surrogateescape")
    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_float=_number, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise gojson.Malformed(gojson.syntax_error(text) or str(error)) from error
    return Decoded(value, tuple(_paths(value, twice, "")) if twice else ())


def parse_yaml(raw: bytes, duplicates: list[str] | None = None) -> Any:
    """Parses the first document of YAML or JSON to JSON values; dates stay strings. Raises gojson.Malformed.

    Keys that a map gives twice are told in `duplicates`, in Go's words.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML without timestamps, which JSON has no place for."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if key.value in seen and duplicates is not None:
                    duplicates.append(f'line {key.start_mark.line + 1}: key "{key.value}" already set in map')
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        value = next(iter(yaml.load_all(raw, Loader)), None)
        return json.loads(json.dumps(value), parse_float=_number)
    except yaml.MarkedYAMLError as error:
        raise gojson.Malformed(f"error converting YAML to JSON: {_yaml_fault(error)}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise gojson.Malformed(f"error converting YAML to JSON: {' '.join(str(error).split())}") from error


def _yaml_fault(error: Any) -> str:
    """A parser's complaint as Go's port of it words it: the same places, fewer words."""
    problem = str(error.problem or error.context or error)
    problem = re.sub(r"^expected (the )?(.+?),? but (found|got).*", r"did not find expected \2", problem)
    line = error.problem_mark.line if error.problem_mark else 0
    return f"yaml: line {max(1, line)}: {problem}"


def decode_object(raw: bytes, content_type: str, resource: Resource) -> Decoded:
    """The object of a POST or PUT. A built-in kind may leave out apiVersion and kind, a custom one must name them."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == protobuf.MEDIA and not resource.custom:
        return Decoded(decode_protobuf(raw))
    if kind not in ("", *OBJECT_TYPES):
        raise unsupported_media_type([*OBJECT_TYPES, protobuf.MEDIA])
    twice: list[str] = []
    try:
        decoded = Decoded(parse_yaml(raw, twice), tuple(twice)) if kind == "application/yaml" else parse_json(raw)
    except gojson.Malformed as error:
        why = f"couldn't get version/kind; json parse error: {error}"
        raise bad_request(_unrecognized(resource, why, raw)) from error
    if decoded.value is None:
        raise bad_request(_unrecognized(resource, "Object 'Kind' is missing in 'null'", raw))
    if not isinstance(decoded.value, dict):
        why = f"couldn't get version/kind; json parse error: {_wrong_go_type(decoded.value)}"
        raise bad_request(_unrecognized(resource, why, raw))
    _require_kind(decoded.value, resource, raw)
    return decoded


def decode_any(raw: bytes, content_type: str) -> Body:
    """A body of no stored kind (options, reviews) in any of the formats; empty if it is.

    Raises ApiError 400.
    """
    if not raw.strip():
        return {}
    kind = content_type.partition(";")[0].strip().lower()
    if kind == protobuf.MEDIA:
        return decode_protobuf(raw)
    try:
        value = parse_yaml(raw) if kind == "application/yaml" else parse_json(raw).value
    except gojson.Malformed as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from error
    if not isinstance(value, dict):
        raise bad_request(f"couldn't get version/kind; json parse error: {_wrong_go_type(value)}")
    return value


def decode_protobuf(raw: bytes) -> Body:
    """Raises ApiError 415 for a kind that is not served as protobuf, 400 for a broken body."""
    try:
        return protobuf.decode(raw)
    except protobuf.Undecodable as error:
        if "not served" in str(error):
            raise unsupported_media_type(OBJECT_TYPES) from error
        raise bad_request(str(error)) from error


def _require_kind(value: Body, resource: Resource, raw: bytes) -> None:
    if not resource.custom:
        value.setdefault("kind", resource.kind)
        value.setdefault("apiVersion", resource.api_version)
        return
    for field in ("kind", "apiVersion"):
        if not isinstance(value.get(field, ""), str):
            wrong = f"json: cannot unmarshal {go_kind(value[field])} into Go struct field .{field} of type string"
            raise bad_request(_unrecognized(resource, f"couldn't get version/kind; json parse error: {wrong}", raw))
    if not value.get("kind"):
        text = raw.decode("utf-8", "replace").strip()
        raise bad_request(_unrecognized(resource, f"Object 'Kind' is missing in '{text}'", raw))
    version = value.setdefault("apiVersion", "")
    if version.count("/") > 1:
        raise bad_request(_unrecognized(resource, f"unexpected GroupVersion string: {version}", raw))


def _unrecognized(resource: Resource, why: str, raw: bytes) -> str:
    return f"the object provided is unrecognized (must be of type {resource.kind}): {why} ({_summary(raw)})"


def _summary(raw: bytes) -> str:
    if not raw:
        return "<empty>"
    if not raw.startswith(b"{"):
        return raw.hex() if len(raw) <= 30 else f"{raw[:30].hex()} ..."
    text = raw.decode("utf-8", "replace")
    return text if len(text) <= 30 else f"{text[:30]} ..."


def _wrong_go_type(value: Any) -> str:
    return (
        f"json: cannot unmarshal {go_kind(value)} into Go value of type struct "
        '{ APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
    )


def go_kind(value: Any) -> str:
    """The name encoding/json gives a JSON value in its type errors."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    names: dict[type, str] = {str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**63 else value


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _paths(value: Any, twice: dict[int, list[str]], path: str) -> list[str]:
    found: list[str] = []
    if isinstance(value, dict):
        prefix = f"{path}." if path else ""
        found += [prefix + name for name in twice.get(id(value), ())]
        for name, item in value.items():
            found += _paths(item, twice, prefix + name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += _paths(item, twice, f"{path}[{index}]")
    return found
