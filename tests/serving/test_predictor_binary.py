"""V2 over HTTP with tensors as bytes behind the JSON, both ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kserve
import numpy as np
import pytest
from kserve.inference_client import InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from serving.model.predict import Predictor
from tests.serving.predictor_rig import ROWS, V2_GOOD, Server, serving, write_model

V2 = "/v2/models/plants/infer"
LENGTH = "inference-header-content-length"
EVERY = {"parameters": {"binary_data_output": True}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model that is served."""
    folder = tmp_path_factory.mktemp("predictor") / "model"
    write_model(folder, version="3.1")
    return folder


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    """A predictor."""
    with serving(model, model.parent / "log", forked=True) as running:
        yield running


@pytest.fixture(scope="module")
def expected(model: Path) -> list[list[float]]:
    """The probabilities that the model gives the good request."""
    found: list[list[float]] = (
        Predictor.load(model).predict_proba({name: [row[name] for row in ROWS] for name in ROWS[0]}).tolist()
    )
    return found


def ask(server: Server, document: dict[str, Any]) -> tuple[dict[str, Any], bytes, dict[str, str]]:
    """The JSON of an answer, the bytes behind it, its headers."""
    with server.connection() as connection:
        status, body, headers = connection.exchange("POST", V2, document)
    assert status == 200, body
    length = int(headers.get(LENGTH, len(body)))
    return json.loads(body[:length]), body[length:], headers


def outputs(**binary: bool) -> dict[str, Any]:
    """Outputs asked for, and whether each is to be binary."""
    return {"outputs": [{"name": name, "parameters": {"binary_data": said}} for name, said in binary.items()]}


def test_an_answer_is_binary_where_the_request_wants_it(server: Server, expected: list[list[float]]) -> None:
    plain, rest, headers = ask(server, V2_GOOD | {"id": "7"})
    assert (rest, headers["content-type"], LENGTH in headers) == (b"", "application/json", False)
    answer, rest, headers = ask(server, V2_GOOD | EVERY | {"id": "7"})
    assert headers["content-type"] == "application/octet-stream"
    assert headers["kanary-model-version"] == "3.1"
    labels, probabilities = answer["outputs"]
    size = labels["parameters"]["binary_data_size"]
    assert len(rest) == size + probabilities["parameters"]["binary_data_size"]
    assert np.frombuffer(rest[size:], "<f8").reshape(probabilities["shape"]).tolist() == expected
    spelt = [len(text).to_bytes(4, "little") + text.encode() for text in plain["outputs"][0]["data"]]
    assert rest[:size] == b"".join(spelt)
    assert probabilities["parameters"]["classes"] == plain["outputs"][1]["parameters"]["classes"]
    for output in plain["outputs"]:
        del output["data"]
    for output in answer["outputs"]:
        output["parameters"].pop("binary_data_size")
    labels.pop("parameters")
    assert answer == plain


@pytest.mark.parametrize(
    ("asked", "binary"),
    [
        (EVERY | outputs(label=False, probabilities=True), {"probabilities"}),
        (outputs(label=True, probabilities=False), {"label"}),
        (outputs(probabilities=True), {"probabilities"}),
        (EVERY | {"outputs": [{"name": "label"}]}, {"label"}),
        ({"parameters": {"binary_data_output": False}} | outputs(label=True), {"label"}),
        ({"parameters": {"binary_data_output": None}}, set()),
        (EVERY | outputs(label=False), set()),
        ({"parameters": {"other": 1}}, set()),
    ],
)
def test_what_an_output_says_counts_more_than_what_the_request_says(
    server: Server, asked: dict[str, Any], binary: set[str]
) -> None:
    answer, rest, headers = ask(server, V2_GOOD | asked)
    given = {entry["name"] for entry in answer["outputs"] if "binary_data_size" in entry.get("parameters", {})}
    assert given == binary
    assert all(("data" in entry) == (entry["name"] not in binary) for entry in answer["outputs"])
    assert bool(rest) == bool(binary) == (LENGTH in headers)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"parameters": {"binary_data_output": 1}}, "binary_data_output is 1; true or false"),
        ({"parameters": {"binary_data_output": "true"}}, "is 'true'"),
        ({"outputs": [{"name": "label", "parameters": {"binary_data": []}}]}, "binary_data is a list"),
        ({"outputs": [{"name": "label", "parameters": [1]}]}, "outputs[0].parameters is a list"),
        (EVERY | {"outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}, "none of label"),
        (EVERY | {"inputs": []}, "is empty"),
    ],
)
def test_a_wrong_wish_for_binary_is_refused_in_json(server: Server, asked: dict[str, Any], why: str) -> None:
    with server.connection() as connection:
        status, body, headers = connection.exchange("POST", V2, V2_GOOD | asked)
        assert status == 400
        assert why in json.loads(body)["error"]
        assert headers["content-type"] == "application/json"
        assert connection.exchange("POST", V2, V2_GOOD)[0] == 200


def kserve_request(height: str, *, as_binary: bool, **asked: Any) -> Any:
    """KServe's own request for the good rows, with `height` as that datatype."""
    inputs = []
    for entry in V2_GOOD["inputs"]:
        datatype = height if entry["name"] == "height" else entry["datatype"]
        kind = {"BYTES": object, "FP32": np.float32, "FP16": np.float16}.get(datatype)
        values = np.array(entry["data"], dtype=kind).reshape(entry["shape"])
        inputs.append(kserve.InferInput(entry["name"], entry["shape"], datatype))
        inputs[-1].set_data_from_numpy(values, binary_data=as_binary)
    return kserve.InferRequest("plants", inputs, request_id="7", **asked)


@pytest.mark.parametrize("height", ["FP64", "FP32", "FP16"])
def test_kserves_own_client_sends_and_takes_binary(server: Server, height: str, expected: list[list[float]]) -> None:
    # Every height of the good request is one that 16 bits hold exactly.
    asyncio.run(ask_with_kserves_client(f"http://127.0.0.1:{server.port}", height, expected))


async def ask_with_kserves_client(url: str, height: str, expected: list[list[float]]) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    wishes: list[dict[str, Any]] = [
        {},
        {"parameters": {"binary_data_output": True}},
        {
            "request_outputs": [
                RequestedOutput("label", {"binary_data": True}),
                RequestedOutput("probabilities", {"binary_data": False}),
            ]
        },
    ]
    for wish in wishes:
        headers: dict[str, str] = {}
        request = kserve_request(height, as_binary=True, **wish)
        answer = await client.infer(url, request, model_name="plants", response_headers=headers)
        assert (LENGTH in headers) == bool(wish)
        assert answer.id == "7"
        assert answer.get_output_by_name("probabilities").as_numpy().tolist() == expected
        labels = [str(label, "utf-8") if isinstance(label, bytes) else label for label in labels_of(answer)]
        assert labels == labels_of(await client.infer(url, V2_GOOD, model_name="plants"))


def labels_of(answer: Any) -> list[Any]:
    """The labels in one of KServe's answers."""
    found: list[Any] = answer.get_output_by_name("label").data
    return found
