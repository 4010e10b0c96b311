"""A request's body without the values of sensitive columns. What it does not understand it refuses: nothing leaks.

The body is written anew from what the protocol knows, so that nothing else that a client put into it goes along: other
keys, parameters, a second value under one name. Binary tensors become JSON, where a value can be null.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import orjson

_FORMATS = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}


class Unredactable(Exception):
    """The body is not what the predictor answers."""


def redacted(
    protocol: str, body: bytes, json_length: int | None, features: Sequence[str], sensitive: frozenset[str]
) -> bytes:
    """The body as JSON, with null for every value of a column in `sensitive`. `features` are the model's, in order.

    Raises Unredactable for any body that cannot be a request for that model.
    """
    try:
        if protocol == "v1":
            return orjson.dumps(_v1(orjson.loads(body), features, sensitive))
        document = orjson.loads(body if json_length is None else body[:json_length])
        binary = b"" if json_length is None else body[json_length:]
        return orjson.dumps(_v2(document, binary, features, sensitive))
    except (ValueError, TypeError, KeyError, AttributeError, struct.error, RecursionError) as error:
        raise Unredactable(type(error).__name__) from error


def _v1(document: Any, features: Sequence[str], sensitive: frozenset[str]) -> dict[str, Any]:
    return {"instances": [_row(instance, features, sensitive) for instance in document["instances"]]}


def _row(instance: Any, features: Sequence[str], sensitive: frozenset[str]) -> Any:
    if len(instance) != len(features):
        raise Unredactable("width")
    if isinstance(instance, dict):
        return {name: None if name in sensitive else _plain(instance[name]) for name in features}
    return [None if name in sensitive else _plain(value) for name, value in zip(features, _list(instance), strict=True)]


def _v2(document: Any, binary: bytes, features: Sequence[str], sensitive: frozenset[str]) -> dict[str, Any]:
    inputs, offset, made = _list(document["inputs"]), 0, []
    for entry in inputs:
        size = (entry.get("parameters") or {}).get("binary_data_size")
        raw = None if size is None else binary[offset : offset + size]
        offset += size or 0
        made.append(_tensor(entry, raw, len(inputs) == 1, features, sensitive))
    result = {"id": _plain(document["id"])} if "id" in document else {}
    result["inputs"] = made
    if document.get("outputs"):
        result["outputs"] = [{"name": _plain(entry["name"])} for entry in _list(document["outputs"])]
    return result


def _tensor(
    entry: Mapping[str, Any], raw: bytes | None, only: bool, features: Sequence[str], sensitive: frozenset[str]
) -> dict[str, Any]:
    """One input. As in the predictor, an only tensor of two dimensions is [rows, features]."""
    name, datatype, shape = entry["name"], entry["datatype"], [int(size) for size in entry["shape"]]
    matrix = only and len(shape) == 2 and (len(features) > 1 or name not in features)
    if matrix and shape[1] != len(features):
        raise Unredactable("width")
    if not matrix and name not in features:
        raise Unredactable("column")
    columns = features if matrix else (name,)
    if not sensitive.isdisjoint(columns) and not matrix:
        data: list[Any] = [None] * prod(shape)
    else:
        data = _flat(entry["data"]) if raw is None else _values(raw, datatype)
        if len(data) != prod(shape):
            raise Unredactable("shape")
        width = len(columns)
        for at, column in enumerate(columns):
            if column in sensitive:
                data[at::width] = [None] * len(data[at::width])
    return {"name": _plain(name), "datatype": _plain(datatype), "shape": shape, "data": data}


def _flat(data: Any) -> list[Any]:
    flat: list[Any] = []
    for value in _list(data):
        if isinstance(value, list):
            flat.extend(map(_plain, value))
        else:
            flat.append(_plain(value))
    return flat


def _values(raw: bytes, datatype: str) -> list[Any]:
    if datatype != "BYTES":
        kind = struct.Struct("<" + _FORMATS[datatype])
        return [value for (value,) in kind.iter_unpack(raw)]
    texts, offset = [], 0
    while offset < len(raw):
        start = offset + 4
        offset = start + int.from_bytes(raw[offset:start], "little")
        if offset > len(raw):
            raise Unredactable("shape")
        texts.append(raw[start:offset].decode("utf-8"))
    return texts


def _plain(value: Any) -> Any:
    """A value that holds no others."""
    if isinstance(value, list | dict):
        raise Unredactable("nested")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Unredactable("list")
    return value
