"""Request bodies to objects: JSON or YAML, duplicate keys noticed, refusals in the API server's words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes import gojson, protobuf
from sandbox.kubernetes.registry import Resource
from sandbox.kubernetes.status import ApiError, bad_request, unsupported_media_type

Body = dict[str, Any]
MAX_BODY = 3 * 1024 * 1024
OBJECT_TYPES = ("application/json", "application/yaml")


@dataclass(frozen=True)
class Decoded:
    """A parsed document and the paths of keys that it gives twice (the last one counts)."""

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


def parse_yaml(raw: bytes) -> Any:
    """Parses YAML or JSON to JSON values; dates stay strings. Raises gojson.Malformed."""
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML without timestamps, which JSON has no place for."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        value = yaml.load(raw, Loader)
        return json.loads(json.dumps(value), parse_float=_number)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise gojson.Malformed(f"error converting YAML to JSON: {' '.join(str(error).split())}") from error


def decode_object(raw: bytes, content_type: str, resource: Resource) -> Decoded:
    """The object of a POST or PUT. A built-in kind may leave out apiVersion and kind, a custom one must name them."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == protobuf.MEDIA and not resource.custom:
        return Decoded(decode_protobuf(raw))
    if kind not in ("", *OBJECT_TYPES):
        raise unsupported_media_type([*OBJECT_TYPES, protobuf.MEDIA])
    try:
        decoded = Decoded(parse_yaml(raw)) if kind == "application/yaml" else parse_json(raw)
    except gojson.Malformed as error:
        why = f"couldn't get version/kind; json parse error: {error}"
        raise bad_request(_unrecognized(resource, why, raw)) from error
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
    for field, title in (("kind", "Kind"), ("apiVersion", "apiVersion")):
        if not value.get(field):
            text = raw.decode("utf-8", "replace").strip()
            raise bad_request(_unrecognized(resource, f"Object '{title}' is missing in '{text}'", raw))


def _unrecognized(resource: Resource, why: str, raw: bytes) -> str:
    return f"the object provided is unrecognized (must be of type {resource.kind}): {why} ({_summary(raw)})"


def _summary(raw: bytes) -> str:
    if not raw:
        return "<empty>"
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
