"""Messages of the V2 protocol's gRPC service for the small model: good ones, ones changed in one place, random ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from tests.serving.predictor_rig import ROWS, V2_GOOD

INFER = "/inference.GRPCInferenceService/ModelInfer"
CONTENTS = {"FP64": "fp64_contents", "INT64": "int64_contents", "BYTES": "bytes_contents", "BOOL": "bool_contents"}
NUMPY = {"FP64": "<f8", "INT64": "<i8", "BOOL": "?"}


def texts(values: list[str]) -> bytes:
    """Texts as a raw BYTES tensor."""
    return b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in values)


def request(raw: bool = False) -> Any:
    """A good request of three rows."""
    message = pb.ModelInferRequest(model_name="plants", id="7")
    for entry in V2_GOOD["inputs"]:
        tensor = message.inputs.add(name=entry["name"], datatype=entry["datatype"], shape=entry["shape"])
        if raw and entry["datatype"] == "BYTES":
            message.raw_input_contents.append(texts(entry["data"]))
        elif raw:
            message.raw_input_contents.append(np.array(entry["data"], NUMPY[entry["datatype"]]).tobytes())
        else:
            values = [value.encode() if isinstance(value, str) else value for value in entry["data"]]
            getattr(tensor.contents, CONTENTS[entry["datatype"]]).extend(values)
    return message


def typed(index: int, datatype: str = "", shape: list[int] | None = None, **contents: list[Any]) -> Any:
    """A request of typed contents with one tensor changed."""
    message = request()
    tensor = message.inputs[index]
    tensor.datatype = datatype or tensor.datatype
    if shape is not None:
        tensor.shape[:] = shape
    if contents:
        tensor.contents.Clear()
        for field, values in contents.items():
            getattr(tensor.contents, field).extend(values)
    return message


def raw(index: int, content: bytes, datatype: str = "", shape: list[int] | None = None) -> Any:
    """A request of raw contents with one tensor changed."""
    message = request(raw=True)
    message.raw_input_contents[index] = content
    message.inputs[index].datatype = datatype or message.inputs[index].datatype
    if shape is not None:
        message.inputs[index].shape[:] = shape
    return message


def changed(change: Callable[[Any], object], as_raw: bool = False) -> Any:
    """A good request after `change`."""
    message = request(as_raw)
    change(message)
    return message


def twice(message: Any) -> None:
    message.inputs.add().CopyFrom(message.inputs[0])


def unexpected(message: Any) -> None:
    twice(message)
    message.inputs[-1].name = "x"


def matrix(shape: list[int], values: list[float]) -> Any:
    """A request of one tensor only."""
    message = pb.ModelInferRequest(model_name="plants")
    tensor = message.inputs.add(name="x", datatype="FP64", shape=shape)
    tensor.contents.fp64_contents.extend(values)
    return message


numbers = st.integers(-(2**63), 2**63 - 1)
small = st.integers(-(2**31), 2**31 - 1)
contents = st.builds(
    pb.InferTensorContents,
    bool_contents=st.lists(st.booleans(), max_size=3),
    int_contents=st.lists(small, max_size=3),
    int64_contents=st.lists(numbers, max_size=3),
    uint_contents=st.lists(st.integers(0, 2**32 - 1), max_size=3),
    uint64_contents=st.lists(st.integers(0, 2**64 - 1), max_size=3),
    fp32_contents=st.lists(st.floats(width=32), max_size=3),
    fp64_contents=st.lists(st.floats(), max_size=3),
    bytes_contents=st.lists(st.binary(max_size=5) | st.sampled_from([b"red", b"true"]), max_size=3),
)
one_kind = st.sampled_from(sorted(CONTENTS.items())).flatmap(
    lambda pair: st.builds(
        lambda values: (pair[0], pb.InferTensorContents(**{pair[1]: values})),
        st.lists(
            {"FP64": st.floats(), "INT64": numbers, "BOOL": st.booleans()}.get(
                pair[0], st.sampled_from([b"red", b"x"])
            ),
            max_size=2,
        ),
    )
)
names = st.sampled_from([*ROWS[0], "x"]) | st.text(max_size=5)
shapes = st.sampled_from([[1], [2], [1, 1], [1, 4], [2, 2]]) | st.lists(numbers, max_size=3)
tensors = st.builds(
    lambda name, shape, kind: pb.ModelInferRequest.InferInputTensor(
        name=name, shape=shape, datatype=kind[0], contents=kind[1]
    ),
    names,
    shapes,
    one_kind | st.tuples(st.sampled_from(["FP16", "FP32", "INT8", "UINT64", "BYTES"]) | st.text(max_size=5), contents),
)
messages = st.builds(
    pb.ModelInferRequest,
    model_name=st.just("plants") | st.text(max_size=5),
    model_version=st.just("") | st.text(max_size=3),
    id=st.text(max_size=5),
    inputs=st.lists(tensors, max_size=5),
    outputs=st.lists(
        st.builds(
            pb.ModelInferRequest.InferRequestedOutputTensor,
            name=st.sampled_from(["label", "probabilities"]) | st.text(max_size=3),
        ),
        max_size=2,
    ),
    raw_input_contents=st.just([]) | st.lists(st.binary(max_size=16), max_size=5),
)
