"""The V2 protocol (Open Inference): tensors in, the tensors `label` and `probabilities` out.

In comes one tensor a feature, [rows] or [rows, 1], or one tensor [rows, features] whose datatype suits every feature.
Out go `label`, BYTES [rows], and `probabilities`, FP64 [rows, classes], whose parameter `classes` is the JSON list of
its columns. The response is JSON, whatever `binary_data_output` asks.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from kanary.modelspec import CategoricalFeature, Feature, ModelSpec
from serving.model.preprocess import Encoded
from serving.predictor.contract import Column, Contract
from serving.predictor.refusal import Refused, listed, shown
from serving.predictor.tensors import FLOATS, INTEGERS, Tensor, tensors

OUTPUTS = ("label", "probabilities")
_NATIVE = {"number": "FP64", "integer": "INT64", "string": "BYTES", "boolean": "BOOL"}


@dataclass(frozen=True)
class Request:
    """A decoded request: its rows, its id, and the outputs that it asks for."""

    rows: Encoded
    id: str
    outputs: tuple[str, ...]


def decode(document: Any, binary: bytes, contract: Contract) -> Request:
    """The request in a JSON document, with the bytes behind it. Raises Refused for what the model cannot take."""
    if not isinstance(document, dict):
        raise Refused("malformed", f'the body is {shown(document)}; an object with "inputs" is needed')
    request_id = document.get("id")
    if not isinstance(request_id, str | None):
        raise Refused("malformed", f'"id" is {shown(request_id)}; a text is needed')
    if not isinstance(document.get("parameters"), dict | None):
        raise Refused("malformed", f'"parameters" is {shown(document["parameters"])}; an object is needed')
    outputs = _outputs(document.get("outputs"))
    inputs = document.get("inputs")
    if not isinstance(inputs, list):
        found = shown(inputs) if "inputs" in document else "missing"
        raise Refused("malformed", f'"inputs" is {found}; a list is needed')
    if not inputs:
        raise Refused("shape", '"inputs" is empty; at least one tensor is needed')
    return Request(rows(tensors(inputs, binary), contract), request_id or str(uuid.uuid4()), outputs)


def rows(given: list[Tensor], contract: Contract) -> Encoded:
    """The rows in the tensors of a request. Raises Refused for what the model cannot take."""
    return contract.encode(_columns(given, contract))


def encode(
    request: Request, labels: Sequence[str], probabilities: Sequence[Sequence[float]], name: str, spec: ModelSpec
) -> dict[str, Any]:
    """The response for `request` by the model `spec`, served as `name`."""
    tensors: dict[str, dict[str, Any]] = {
        "label": {"datatype": "BYTES", "shape": [len(labels)], "data": labels},
        "probabilities": {
            "datatype": "FP64",
            "shape": [len(labels), len(spec.classes)],
            "parameters": {"classes": orjson.dumps(spec.classes).decode()},
            "data": [value for row in probabilities for value in row],
        },
    }
    return {
        "model_name": name,
        "model_version": spec.version,
        "id": request.id,
        "outputs": [{"name": output} | tensors[output] for output in request.outputs],
    }


def input_metadata(spec: ModelSpec) -> list[dict[str, Any]]:
    """The inputs as model metadata lists them: one tensor a feature."""
    return [{"name": feature.name, "datatype": _NATIVE[feature.type], "shape": [-1]} for feature in spec.features]


def output_metadata(spec: ModelSpec) -> list[dict[str, Any]]:
    """The outputs as model metadata lists them."""
    return [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP64", "shape": [-1, len(spec.classes)]},
    ]


def _outputs(asked: Any) -> tuple[str, ...]:
    if asked is None or asked == []:
        return OUTPUTS
    if not isinstance(asked, list):
        raise Refused("malformed", f'"outputs" is {shown(asked)}; a list is needed')
    names = []
    for index, entry in enumerate(asked):
        name = entry.get("name") if isinstance(entry, dict) else None
        if name not in OUTPUTS:
            raise Refused("malformed", f"outputs[{index}] is none of {', '.join(OUTPUTS)}")
        names.append(name)
    return tuple(dict.fromkeys(names))


def _columns(given: list[Tensor], contract: Contract) -> dict[str, Column]:
    width = len(contract.names)
    if len(given) == 1 and len(given[0].shape) == 2 and (width > 1 or given[0].name not in contract.names):
        return _matrix(given[0], contract)
    contract.check_names([tensor.name for tensor in given], '"inputs"')
    if len(given) > width:
        twice = next(tensor.name for index, tensor in enumerate(given) if tensor.name in _names(given[:index]))
        raise Refused("column", f"two inputs are named {listed([twice])}")
    by_name = {tensor.name: (index, tensor) for index, tensor in enumerate(given)}
    count = given[0].shape[0]
    for feature in contract.features:
        index, tensor = by_name[feature.name]
        if tensor.shape not in ((count,), (count, 1)):
            needed = f"[{count}] or [{count}, 1] is needed, one value for every row"
            raise Refused("shape", f"inputs[{index}] has the shape {list(tensor.shape)}; {needed}")
        _check_datatype(feature, tensor, index)
        contract.check(feature, tensor.data, f"inputs[{index}].data[", "]")
    return {name: by_name[name][1].data for name in contract.names}


def _matrix(tensor: Tensor, contract: Contract) -> dict[str, Column]:
    width = len(contract.names)
    if tensor.shape[1] != width:
        raise Refused("shape", f"inputs[0] has the shape {list(tensor.shape)}; the model takes [rows, {width}]")
    columns: dict[str, Column] = {}
    for index, feature in enumerate(contract.features):
        _check_datatype(feature, tensor, 0)
        column = tensor.data[index::width]
        contract.check(feature, column, "inputs[0].data[", f", {index}]")
        columns[feature.name] = column
    return columns


def _check_datatype(feature: Feature, tensor: Tensor, index: int) -> None:
    """Refuse a tensor whose datatype cannot hold the feature. A category may always come as its text."""
    suits = INTEGERS | FLOATS if feature.type in ("integer", "number") else frozenset({_NATIVE[feature.type]})
    if isinstance(feature, CategoricalFeature):
        suits = suits | {"BYTES"}
    if tensor.datatype not in suits:
        hint = "; give every feature a tensor of its own" if len(tensor.shape) == 2 else ""
        needed = "BYTES" if isinstance(feature, CategoricalFeature) else _NATIVE[feature.type]
        what = f"inputs[{index}] is {tensor.datatype}, which does not suit {listed([feature.name])} ({needed})"
        raise Refused("type", what + hint)


def _names(given: list[Tensor]) -> set[str]:
    return {tensor.name for tensor in given}
