"""Messages between the service and the process that runs alibi-detect: JSON and arrays, never a pickle.

A frame is 8 bytes of length of the JSON, the JSON, and the arrays that its `arrays` describes, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson

Array = npt.NDArray[Any]
_HEAD = 8
_KINDS = frozenset({"float64", "float32", "int64", "bool"})


class Reads(Protocol):
    """Reads exactly so many bytes; fewer only at the end."""

    def __call__(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Message:
    """`told` is any JSON, `arrays` are named."""

    told: Mapping[str, Any]
    arrays: Mapping[str, Array] = field(default_factory=dict)


def pack(message: Message) -> list[bytes | memoryview]:
    """The frame of a message, in parts."""
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    described = [[name, str(array.dtype), array.shape] for name, array in arrays.items()]
    head = orjson.dumps({"told": message.told, "arrays": described}, option=orjson.OPT_SERIALIZE_NUMPY)
    return [
        len(head).to_bytes(_HEAD, "little"),
        head,
        *(array.data.cast("B") for array in arrays.values() if array.size),
    ]


def read(reads: Reads) -> Message | None:
    """The next message; None at the end. ValueError for what is no message."""
    size = reads(_HEAD)
    if len(size) < _HEAD:
        return None
    head = orjson.loads(reads(int.from_bytes(size, "little")))
    arrays = {}
    for name, kind, shape in head["arrays"]:
        if kind not in _KINDS:
            raise ValueError(f"an array of {kind}")
        size_bytes = prod(shape) * np.dtype(kind).itemsize
        arrays[name] = np.frombuffer(reads(size_bytes) if size_bytes else b"", kind).reshape(shape)
    return Message(head["told"], arrays)
