"""V2 tensors as they come over HTTP, inside the JSON or as binary behind it, to flat columns of values.

Source: the Open Inference Protocol (open-inference-protocol/specification/protocol/inference_rest.md) and its
binary tensor data extension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.predictor.refusal import Refused, shown

_NUMPY = {
    "BOOL": "?",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
INTEGERS = frozenset(name for name in _NUMPY if "INT" in name)
FLOATS = frozenset({"FP16", "FP32", "FP64"})
DATATYPES = (*_NUMPY, "BYTES")


@dataclass(frozen=True)
class Tensor:
    """`data` is flat, in row-major order, and has as many values as `shape` says.

    Plain values with None for null, or, from binary, an array of numbers.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | npt.NDArray[Any]


def tensors(inputs: list[Any], binary: bytes) -> list[Tensor]:
    """The tensors that the JSON list `inputs` describes, `binary` being what follows the JSON.

    Raises Refused for a description, a datatype, a shape or data that contradict each other.
    """
    found, offset = [], 0
    for index, entry in enumerate(inputs):
        place = f"inputs[{index}]"
        name, datatype, shape = _description(entry, place)
        size = (entry.get("parameters") or {}).get("binary_data_size")
        if size is None:
            data: list[Any] | npt.NDArray[Any] = _from_json(entry.get("data"), datatype, shape, place)
        else:
            if type(size) is not int or not 0 <= size <= len(binary) - offset:
                raise Refused(
                    "shape", f"{place}: binary_data_size is {shown(size)}; {len(binary) - offset} bytes follow"
                )
            data = _from_binary(binary[offset : offset + size], datatype, place)
            offset += size
        if len(data) != math.prod(shape):
            raise Refused("shape", f"{place} has {len(data)} values; its shape {list(shape)} takes {math.prod(shape)}")
        found.append(Tensor(name, datatype, shape, data))
    if offset != len(binary):
        raise Refused("shape", f"{len(binary) - offset} bytes follow the last tensor")
    return found


def _description(entry: Any, place: str) -> tuple[str, str, tuple[int, ...]]:
    if not isinstance(entry, dict):
        raise Refused("malformed", f"{place} is {shown(entry)}; an object is needed")
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    if not isinstance(name, str):
        raise Refused("malformed", f"{place}.name is {shown(name)}; a text is needed")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise Refused("malformed", f"{place}.datatype is {shown(datatype)}, not one of {', '.join(DATATYPES)}")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise Refused("malformed", f"{place}.shape is no list of whole numbers")
    if not 1 <= len(shape) <= 2 or min(shape) < 1:
        raise Refused("shape", f"{place}.shape must be [rows] or [rows, columns], with at least one row")
    if not isinstance(entry.get("parameters"), dict | None):
        raise Refused("malformed", f"{place}.parameters is {shown(entry['parameters'])}; an object is needed")
    return name, datatype, tuple(shape)


def _from_json(data: Any, datatype: str, shape: tuple[int, ...], place: str) -> list[Any]:
    """`data`, flat or nested as `shape` says, made flat. null stays: whether it may be there is the model's to say."""
    if not isinstance(data, list):
        raise Refused("malformed", f"{place}.data is {shown(data)}; a list is needed")
    if len(shape) == 2 and len(data) == shape[0] and all(isinstance(row, list) for row in data):
        ragged = next((row for row in range(shape[0]) if len(data[row]) != shape[1]), None)
        if ragged is not None:
            raise Refused("shape", f"{place}.data[{ragged}] has {len(data[ragged])} values; its shape says {shape[1]}")
        data = [value for row in data for value in row]
    allowed = _python_types(datatype)
    if not set(map(type, data)) <= allowed:
        at = next(at for at, value in enumerate(data) if type(value) not in allowed)
        raise Refused("type", f"{place}.data[{at}] is {shown(data[at])}, which is no {datatype}")
    if datatype in INTEGERS:
        least, most = np.iinfo(_NUMPY[datatype]).min, np.iinfo(_NUMPY[datatype]).max
        for at, value in enumerate(data):
            if value is not None and not least <= value <= most:
                raise Refused("range", f"{place}.data[{at}] is {value}, which is no {datatype}")
    return list(data)


def _python_types(datatype: str) -> set[type]:
    """What JSON may give for a datatype; null, too, until the model's contract is asked."""
    if datatype in FLOATS:
        return {int, float, NoneType}
    if datatype in INTEGERS:
        return {int, NoneType}
    return {str if datatype == "BYTES" else bool, NoneType}


def _from_binary(raw: bytes, datatype: str, place: str) -> list[Any] | npt.NDArray[Any]:
    if datatype == "BYTES":
        return _texts(raw, place)
    kind = np.dtype(_NUMPY[datatype])
    if len(raw) % kind.itemsize:
        raise Refused("shape", f"{place}: {len(raw)} bytes are no whole number of {datatype}")
    values = np.frombuffer(raw, kind)
    return values.tolist() if datatype == "BOOL" else values


def _texts(raw: bytes, place: str) -> list[Any]:
    """Elements of 4 bytes of length, little-endian, and as many bytes of UTF-8."""
    texts, offset = [], 0
    while offset < len(raw):
        start = offset + 4
        offset = start + int.from_bytes(raw[offset:start], "little")
        if offset > len(raw) or start > len(raw):
            raise Refused("shape", f"{place}: the last element is longer than the data")
        try:
            texts.append(raw[start:offset].decode("utf-8"))
        except UnicodeDecodeError:
            raise Refused("type", f"{place}, element {len(texts)}, is not UTF-8") from None
    return texts
