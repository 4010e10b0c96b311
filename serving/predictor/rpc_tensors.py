"""The V2 protocol's gRPC messages as the documents that the same requests and answers are over HTTP, and back.

What a request may say is decided once, where the documents are read; only what HTTP cannot say is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from serving.predictor import binary
from serving.predictor.refusal import Refused

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def document(request: pb.ModelInferRequest) -> tuple[dict[str, Any], bytes]:
    """The V2 document that `request` is, and the bytes behind it: those of raw_input_contents.

    Raises Refused where raw and typed contents are mixed, or contents do not go with their datatype.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise Refused("shape", f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs")
    inputs: list[dict[str, Any]] = []
    for index, tensor in enumerate(request.inputs):
        entry = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if not raw:
            inputs.append(entry | {"data": _typed(tensor, f"inputs[{index}]")})
        elif tensor.contents.ListFields():
            raise Refused("malformed", f"inputs[{index}] has contents, and raw_input_contents has them too: give one")
        else:
            inputs.append(entry | {"parameters": {"binary_data_size": len(raw[index])}})
    outputs = [{"name": output.name} for output in request.outputs]
    return {"id": request.id, "inputs": inputs, "outputs": outputs}, b"".join(raw)


def response(answer: Mapping[str, Any], raw: bool) -> pb.ModelInferResponse:
    """The message that `answer`, a V2 response, is; `raw` puts all data into raw_output_contents."""
    message = pb.ModelInferResponse(
        model_name=answer["model_name"], model_version=answer["model_version"], id=answer["id"]
    )
    for output in answer["outputs"]:
        tensor = message.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
        for name, value in output.get("parameters", {}).items():
            tensor.parameters[name].string_param = value
        if raw:
            message.raw_output_contents.append(binary.raw(output["datatype"], output["data"]))
        elif output["datatype"] == "BYTES":
            tensor.contents.bytes_contents.extend(text.encode() for text in output["data"])
        else:
            tensor.contents.fp64_contents.extend(output["data"])
    return message


def _typed(tensor: pb.ModelInferRequest.InferInputTensor, place: str) -> list[Any]:
    """The typed contents of a tensor; of a datatype that there is not, nothing: that is refused with the document."""
    if tensor.datatype == "FP16":
        raise Refused("malformed", f"{place} is FP16, which has no typed contents: use raw_input_contents")
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        return []
    other = next((found.name for found, _ in tensor.contents.ListFields() if found.name != field), None)
    if other is not None:
        raise Refused("malformed", f"{place} is {tensor.datatype}, which goes into {field}, not into {other}")
    values = list(getattr(tensor.contents, field))
    return values if field != "bytes_contents" else [_text(value, place, at) for at, value in enumerate(values)]


def _text(value: bytes, place: str, at: int) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("type", f"{place}, element {at}, is not UTF-8") from None
