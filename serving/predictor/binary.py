"""The binary half of V2's answers: which outputs a request wants as raw bytes, and the bytes. Reads no tensors.

Source: the binary tensor data extension of the Open Inference Protocol, and its gRPC raw_output_contents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from serving.predictor.refusal import Refused, shown
from serving.predictor.v2 import OUTPUTS


@dataclass(frozen=True)
class Body:
    """A response's body. `json_length` bytes of it are JSON, binary tensors follow; None: all of it is JSON."""

    content: bytes
    json_length: int | None = None


def asked(document: Any) -> frozenset[str]:
    """The outputs that the request wants as binary: what an output says of itself counts, else what the request says.

    Raises Refused where it says neither true nor false; whatever else is wrong with `document` is not for here.
    """
    if not isinstance(document, dict):
        return frozenset()
    every = _flag(document, "binary_data_output", "parameters")
    wanted = set(OUTPUTS) if every else set()
    outputs = document.get("outputs")
    for index, entry in enumerate(outputs if isinstance(outputs, list) else ()):
        if not isinstance(entry, dict) or entry.get("name") not in OUTPUTS:
            continue
        if not isinstance(entry.get("parameters"), dict | None):
            found = shown(entry["parameters"])
            raise Refused("malformed", f"outputs[{index}].parameters is {found}; an object is needed")
        said = _flag(entry, "binary_data", f"outputs[{index}].parameters")
        if said is not None:
            (wanted.add if said else wanted.discard)(entry["name"])
    return frozenset(wanted)


def body(answer: Mapping[str, Any], names: frozenset[str]) -> Body:
    """`answer`, a V2 response, as a body in which the outputs `names` are binary."""
    if not names:
        return Body(orjson.dumps(answer))
    outputs, parts = [], []
    for output in answer["outputs"]:
        if output["name"] in names:
            parts.append(raw(output["datatype"], output["data"]))
            size = {"binary_data_size": len(parts[-1])}
            output = output | {"parameters": output.get("parameters", {}) | size}
            del output["data"]
        outputs.append(output)
    head = orjson.dumps({**answer, "outputs": outputs})
    return Body(head + b"".join(parts), len(head) if parts else None)


def raw(datatype: str, data: Sequence[Any]) -> bytes:
    """The values of an output: FP64 little-endian; BYTES as 4 bytes of length, little-endian, and UTF-8."""
    if datatype == "BYTES":
        texts = [text.encode() for text in data]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return np.asarray(data, "<f8").tobytes()


def _flag(owner: Mapping[str, Any], name: str, where: str) -> bool | None:
    parameters = owner.get("parameters")
    said = parameters.get(name) if isinstance(parameters, dict) else None
    if not isinstance(said, bool | None):
        raise Refused("malformed", f"{where}.{name} is {shown(said)}; true or false is needed")
    return said
