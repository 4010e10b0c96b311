"""A real predictor over gRPC: every wrong request is refused with a reason, on a channel that goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import kserve
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from serving.model.predict import Predictor
from serving.predictor.refusal import REASONS
from tests.serving.predictor_rig import (
    MIXED,
    ROWS,
    V2_GOOD,
    Server,
    grpc_listening,
    lines,
    samples,
    serving,
    write_model,
)
from tests.serving.rpc_messages import (
    INFER,
    changed,
    matrix,
    messages,
    raw,
    request,
    texts,
    twice,
    typed,
    unexpected,
)

LIMIT = 1 << 20
# What a client of ours may make of a server: none of them says that the server is at fault.
REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED}


WRONG: dict[str, tuple[Any, str]] = {
    "no message": (b"\xff\xff", "no inference.ModelInferRequest"),
    "cut off": (request().SerializeToString()[:-3], "no inference.ModelInferRequest"),
    "JSON": (json.dumps(V2_GOOD).encode(), "no inference.ModelInferRequest"),
    "name not UTF-8": (b"\x0a\x01\xff", "no inference.ModelInferRequest"),
    "group never closed": (b"\x0b" * 50_000, "no inference.ModelInferRequest"),
    "another message": (
        pb.ModelReadyRequest(name="plants").SerializeToString(),
        '"inputs" is empty',
    ),
    "no inputs": (changed(lambda m: m.ClearField("inputs")), '"inputs" is empty'),
    "unknown output": (changed(lambda m: m.outputs.add(name="logits")), "none of label, probabilities"),
    "output without a name": (changed(lambda m: m.outputs.add()), "none of label, probabilities"),
    "missing input": (changed(lambda m: m.inputs.__delitem__(0)), "lacks height"),
    "unexpected input": (changed(unexpected), "has x"),
    "an input twice": (changed(twice), "two inputs are named height"),
    "many unexpected inputs": (
        changed(lambda m: [m.inputs.add(name=f"é{n}" * 20, datatype="FP64", shape=[1]) for n in range(500)]),
        "0 values",
    ),
    "no datatype": (changed(lambda m: setattr(m.inputs[0], "datatype", "")), "not one of BOOL"),
    "unknown datatype": (typed(0, "FP128"), "'FP128', not one of"),
    "unknown datatype, raw": (raw(0, b"", "FP128"), "'FP128', not one of"),
    "datatype in small letters": (typed(0, "fp64"), "not one of"),
    "no shape": (changed(lambda m: m.inputs[0].ClearField("shape")), "must be [rows]"),
    "no rows": (typed(0, shape=[0], fp64_contents=[]), "at least one row"),
    "no rows, raw": (raw(0, b"", shape=[0]), "at least one row"),
    "negative shape": (typed(0, shape=[-3]), "at least one row"),
    "three dimensions": (typed(0, shape=[3, 1, 1]), "must be [rows]"),
    "huge shape": (typed(0, shape=[2**62, 2**62]), "3 values"),
    "shape and data differ": (typed(0, shape=[2]), "3 values; its shape [2] takes 2"),
    "shape and raw data differ": (raw(0, b"\0" * 16), "2 values; its shape [3] takes 3"),
    "row counts differ": (typed(0, shape=[2], fp64_contents=[1, 2]), "inputs[1] has the shape [3, 1]; [2]"),
    "two columns": (typed(0, shape=[3, 2], fp64_contents=[1.5] * 6), "[3] or [3, 1] is needed"),
    "no data": (changed(lambda m: m.inputs[0].ClearField("contents")), "0 values"),
    "contents of another datatype": (typed(0, fp32_contents=[1, 2, 3]), "goes into fp64_contents, not into fp32"),
    "contents of two datatypes": (typed(0, fp64_contents=[1, 2, 3], int_contents=[1]), "not into int_contents"),
    "FP16, typed": (typed(0, "FP16"), "no typed contents"),
    "beyond INT8": (typed(1, "INT8", int_contents=[128, 2, 3]), "128, which is no INT8"),
    "below INT16": (typed(1, "INT16", int_contents=[-40000, 2, 3]), "no INT16"),
    "beyond UINT8": (typed(1, "UINT8", uint_contents=[256, 2, 3]), "no UINT8"),
    "NaN": (typed(0, fp64_contents=[1, float("nan"), 3]), "inputs[0].data[1] is nan; a number"),
    "infinity": (typed(0, fp64_contents=[1, float("-inf"), 3]), "is -inf; a finite"),
    "NaN, raw": (raw(0, np.array([1, np.nan, 3]).tobytes()), "is nan; a number"),
    "NaN in FP16": (raw(0, np.array([1, np.nan, 3], "<f2").tobytes(), "FP16"), "is nan; a number"),
    "fraction for a whole number": (typed(1, "FP32", fp32_contents=[3.5, 2, 3]), "a whole number"),
    "BYTES for a number": (typed(0, "BYTES", bytes_contents=[b"1", b"2", b"3"]), "does not suit height"),
    "FP64 for a category": (typed(2, "FP64", fp64_contents=[1, 2, 3]), "does not suit colour"),
    "BOOL for a number": (typed(0, "BOOL", bool_contents=[True] * 3), "does not suit height"),
    "text not UTF-8": (typed(2, bytes_contents=[b"red", b"\xff", b"red"]), "inputs[2], element 1, is not UTF-8"),
    "raw text not UTF-8": (raw(2, b"\1\0\0\0\xff" * 3), "not UTF-8"),
    "raw odd": (raw(0, b"\0" * 25), "no whole number of FP64"),
    "raw empty": (raw(0, b""), "0 values"),
    "raw text truncated": (raw(2, b"\3\0\0\0red\5\0\0\0gr"), "longer than the data"),
    "raw length truncated": (raw(2, b"\3\0\0\0red\5\0"), "longer than the data"),
    "raw length huge": (raw(2, b"\xff\xff\xff\xffred"), "longer than the data"),
    "raw and typed": (changed(lambda m: m.inputs[0].contents.fp64_contents.append(1), True), "give one"),
    "raw for some inputs": (changed(lambda m: m.raw_input_contents.pop(), True), "3 entries for 4 inputs"),
    "raw for more than the inputs": (changed(lambda m: m.raw_input_contents.append(b""), True), "5 entries for 4"),
    "a matrix of numbers for categories": (matrix([1, 4], [1, 2, 3, 4]), "give every feature a tensor of its own"),
    "a matrix of another width": (matrix([2, 3], [1] * 6), "the model takes [rows, 4]"),
}
NOT_FOUND: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "does not exist"),
    "unknown model": (changed(lambda m: setattr(m, "model_name", "ferns")), "ferns does not exist"),
    "a model with a path": (changed(lambda m: setattr(m, "model_name", "../plants")), "../plants does not exist"),
    "a long model": (changed(lambda m: setattr(m, "model_name", "x" * 100_000)), "... does not exist"),
    "unknown version": (changed(lambda m: setattr(m, "model_version", "9")), "has no version 9; it is 3.1"),
}
TOO_LARGE: dict[str, tuple[Any, str]] = {
    "too long": (changed(lambda m: setattr(m, "id", "x" * LIMIT)), f"the body is longer than {LIMIT} bytes"),
    "too long and no message": (b"\xff" * (LIMIT + 1), f"the body is longer than {LIMIT} bytes"),
    "far too long": (b"\xff" * (5 * LIMIT), "larger than max"),
}
CASES = [
    pytest.param(code, message, why, id=name)
    for code, cases in (
        (grpc.StatusCode.INVALID_ARGUMENT, WRONG),
        (grpc.StatusCode.NOT_FOUND, NOT_FOUND),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_LARGE),
    )
    for name, (message, why) in cases.items()
]


@dataclass(frozen=True)
class Asking:
    """A predictor, one channel to it, and calls on that."""

    server: Server
    channel: grpc.Channel

    @property
    def stub(self) -> Any:
        """The protocol's own stub."""
        return GRPCInferenceServiceStub(self.channel)

    def infer(self, message: Any) -> Any:
        """The answer to a message, or to bytes in the place of one."""
        sent = message if isinstance(message, bytes) else message.SerializeToString()
        return pb.ModelInferResponse.FromString(self.channel.unary_unary(INFER)(sent, timeout=30))


def asking(server: Server) -> Asking:
    """A channel of its own."""
    return Asking(server, grpc.insecure_channel(f"127.0.0.1:{grpc_listening(server.log)}"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model that is served."""
    folder = tmp_path_factory.mktemp("predictor") / "model"
    write_model(folder, tuple(dataclasses.replace(feature, required=True) for feature in MIXED), version="3.1")
    return folder


@pytest.fixture(scope="module")
def ask(model: Path) -> Iterator[Asking]:
    """A predictor that answers gRPC; when the tests are over it has written one line and no more."""
    options = ("--enable_grpc=true", "--grpc_port=0", "--max_body_bytes", str(LIMIT))
    with serving(model, model.parent / "log", *options, forked=True) as running:
        found = asking(running)
        with found.channel:
            yield found
        assert len(lines(running.log)) == 1, lines(running.log)


@pytest.fixture(scope="module")
def expected(model: Path) -> list[list[float]]:
    """The probabilities that the model gives the good request."""
    found: list[list[float]] = (
        Predictor.load(model).predict_proba({name: [row[name] for row in ROWS] for name in ROWS[0]}).tolist()
    )
    return found


def refusal(call: Callable[[], object]) -> grpc.RpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return refused.value


@pytest.mark.parametrize(("code", "message", "why"), CASES)
def test_a_wrong_request_is_refused_and_the_channel_goes_on(
    ask: Asking, code: grpc.StatusCode, message: Any, why: str
) -> None:
    error = refusal(lambda: ask.infer(message))
    assert error.code() is code, error
    assert why in error.details()
    assert len(error.details()) < 1000
    assert ask.infer(request()).id == "7"


def test_the_reason_is_the_one_that_http_gives(ask: Asking) -> None:
    wrong = [dict(entry) for entry in V2_GOOD["inputs"]]
    wrong[1] |= {"datatype": "FP32", "data": [3.5, 2, 3]}
    with ask.server.connection() as connection:
        _, body, _ = connection.exchange("POST", "/v2/models/plants/infer", {"inputs": wrong})
    assert refusal(lambda: ask.infer(WRONG["fraction for a whole number"][0])).details() == json.loads(body)["error"]


def test_typed_contents_are_answered_by_typed_contents(ask: Asking, expected: list[list[float]]) -> None:
    answer = ask.infer(request())
    assert (answer.model_name, answer.model_version, answer.id) == ("plants", "3.1", "7")
    assert not answer.raw_output_contents
    label, probabilities = answer.outputs
    assert (label.name, label.datatype, list(label.shape)) == ("label", "BYTES", [3])
    assert (probabilities.name, probabilities.datatype, list(probabilities.shape)) == ("probabilities", "FP64", [3, 3])
    assert list(probabilities.contents.fp64_contents) == [value for row in expected for value in row]
    classes = json.loads(probabilities.parameters["classes"].string_param)
    best = [classes[row.index(max(row))].encode() for row in expected]
    assert list(label.contents.bytes_contents) == best


def test_raw_contents_are_answered_by_raw_contents(ask: Asking, expected: list[list[float]]) -> None:
    answer, spoken = ask.infer(request(raw=True)), ask.infer(request())
    labels, probabilities = answer.raw_output_contents
    assert np.frombuffer(probabilities, "<f8").reshape(3, 3).tolist() == expected
    assert labels == texts([label.decode() for label in spoken.outputs[0].contents.bytes_contents])
    assert not any(output.HasField("contents") for output in answer.outputs)
    assert [output.name for output in answer.outputs] == ["label", "probabilities"]


def test_every_datatype_that_suits_a_number_is_taken(ask: Asking) -> None:
    given: list[tuple[str, str, str]] = [
        ("FP16", "<f2", ""),
        ("FP32", "<f4", "fp32_contents"),
        ("FP64", "<f8", "fp64_contents"),
        ("INT8", "<i1", "int_contents"),
        ("INT16", "<i2", "int_contents"),
        ("INT32", "<i4", "int_contents"),
        ("INT64", "<i8", "int64_contents"),
        ("UINT8", "<u1", "uint_contents"),
        ("UINT16", "<u2", "uint_contents"),
        ("UINT32", "<u4", "uint_contents"),
        ("UINT64", "<u8", "uint64_contents"),
    ]
    answers = set()
    for datatype, kind, field in given:
        answer = ask.infer(raw(1, np.array([3, 12, 9], kind).tobytes(), datatype))
        answers.add(answer.raw_output_contents[1])
        if field:
            answer = ask.infer(typed(1, datatype, **{field: [3, 12, 9]}))
            answers.add(np.array(answer.outputs[1].contents.fp64_contents).tobytes())
    assert len(answers) == 1


def test_the_outputs_asked_for_are_the_outputs_given(ask: Asking) -> None:
    for as_raw in (False, True):
        answer = ask.infer(changed(lambda m: m.outputs.add(name="probabilities"), as_raw))
        assert [output.name for output in answer.outputs] == ["probabilities"]
        assert len(answer.raw_output_contents) == as_raw


def test_an_id_is_kept_or_made(ask: Asking) -> None:
    nameless = changed(lambda m: m.ClearField("id"))
    assert ask.infer(request()).id == "7"
    assert len({ask.infer(nameless).id for _ in range(3)} - {""}) == 3


def test_the_right_version_may_be_named(ask: Asking) -> None:
    assert ask.infer(changed(lambda m: setattr(m, "model_version", "3.1"))).model_version == "3.1"


def test_every_answer_tells_the_version(ask: Asking) -> None:
    _, call = ask.stub.ModelInfer.with_call(request())
    for told in (call.trailing_metadata(), refusal(lambda: ask.infer(b"")).trailing_metadata()):
        assert ("kanary-model-version", "3.1") in [tuple(pair) for pair in told]


def test_the_server_and_the_model_tell_of_themselves(ask: Asking) -> None:
    stub = ask.stub
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name="plants", version="3.1")).ready
    about = stub.ServerMetadata(pb.ServerMetadataRequest())
    told = json.loads(ask.server.get("/v2")[1])
    assert (about.name, about.version, list(about.extensions)) == (told["name"], told["version"], told["extensions"])
    found = stub.ModelMetadata(pb.ModelMetadataRequest(name="plants"))
    told = json.loads(ask.server.get("/v2/models/plants")[1])
    assert (found.name, list(found.versions)) == ("plants", ["3.1"])
    for tensors, listed in ((found.inputs, told["inputs"]), (found.outputs, told["outputs"])):
        assert [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in tensors] == listed


@pytest.mark.parametrize(
    ("method", "message", "code"),
    [
        ("ModelReady", pb.ModelReadyRequest(name="ferns"), grpc.StatusCode.NOT_FOUND),
        ("ModelReady", pb.ModelReadyRequest(name="plants", version="9"), grpc.StatusCode.NOT_FOUND),
        ("ModelMetadata", pb.ModelMetadataRequest(name="ferns"), grpc.StatusCode.NOT_FOUND),
        ("ModelMetadata", pb.ModelMetadataRequest(name="plants", version="9"), grpc.StatusCode.NOT_FOUND),
        ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="plants"), grpc.StatusCode.UNIMPLEMENTED),
        ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="plants"), grpc.StatusCode.UNIMPLEMENTED),
    ],
)
def test_what_is_not_offered_is_refused(ask: Asking, method: str, message: Any, code: grpc.StatusCode) -> None:
    assert refusal(lambda: getattr(ask.stub, method)(message)).code() is code
    assert ask.stub.ModelReady(pb.ModelReadyRequest(name="plants")).ready


def test_an_unknown_method_is_unimplemented(ask: Asking) -> None:
    for path in ("/inference.GRPCInferenceService/Nothing", "/nothing/Nothing"):
        error = refusal(partial(ask.channel.unary_unary(path), b"", timeout=30))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_long_requests_are_answered_too(ask: Asking, model: Path) -> None:
    rows = 20_000
    message = pb.ModelInferRequest(model_name="plants")
    values: list[tuple[str, str, Any]] = [
        ("height", "FP64", np.linspace(-3, 3, rows)),
        ("leaves", "INT64", np.arange(rows)),
        ("colour", "BYTES", ["red"] * rows),
        ("evergreen", "BOOL", np.arange(rows) % 2 == 0),
    ]
    for name, datatype, column in values:
        message.inputs.add(name=name, datatype=datatype, shape=[rows])
        message.raw_input_contents.append(texts(column) if datatype == "BYTES" else column.tobytes())
    answer = ask.infer(message)
    columns = {name: column if isinstance(column, list) else column.tolist() for name, _, column in values}
    given = np.frombuffer(answer.raw_output_contents[1], "<f8").reshape(rows, 3)
    assert np.allclose(given, Predictor.load(model).predict_proba(columns))


def test_kserves_own_client_gets_its_predictions(ask: Asking, expected: list[list[float]]) -> None:
    asyncio.run(ask_with_kserves_client(f"127.0.0.1:{grpc_listening(ask.server.log)}", expected))


async def ask_with_kserves_client(url: str, expected: list[list[float]]) -> None:
    async with kserve.InferenceGRPCClient(url) as client:
        assert await client.is_server_ready()
        assert await client.is_server_live()
        assert await client.is_model_ready("plants")
        for as_raw in (False, True):
            inputs = []
            for entry in V2_GOOD["inputs"]:
                inputs.append(kserve.InferInput(entry["name"], entry["shape"], entry["datatype"]))
                values = np.array(entry["data"], dtype=object if entry["datatype"] == "BYTES" else None)
                inputs[-1].set_data_from_numpy(values.reshape(entry["shape"]), binary_data=as_raw)
            answer = await client.infer(kserve.InferRequest("plants", inputs, request_id="7"))
            assert answer.id == "7"
            assert answer.model_version == "3.1"
            assert answer.get_output_by_name("probabilities").as_numpy().tolist() == expected
            assert answer.get_output_by_name("label").as_numpy().shape == (3,)
        with pytest.raises(grpc.RpcError, match="ferns does not exist"):
            await client.infer(kserve.InferRequest("ferns", inputs))


def test_the_metrics_count_what_was_asked_over_grpc(ask: Asking) -> None:
    def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
        return name, frozenset(({"service": "plants", "version": "3.1"} | labels).items())

    before = samples(ask.server)
    labels = [label.decode() for label in ask.infer(request()).outputs[0].contents.bytes_contents]
    refusal(lambda: ask.infer(WRONG["fraction for a whole number"][0]))
    for number in range(3):
        refusal(partial(ask.infer, pb.ModelInferRequest(model_name=f"m{number}")))
    refusal(lambda: ask.infer(TOO_LARGE["too long"][0]))
    ask.stub.ModelReady(pb.ModelReadyRequest(name="plants"))
    after = samples(ask.server)
    changes = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    for label in set(labels):
        assert changes.pop(key("kanary_predictions_total", **{"class": label})) == labels.count(label)
    for code, count in (("OK", 1), ("INVALID_ARGUMENT", 1), ("NOT_FOUND", 3), ("RESOURCE_EXHAUSTED", 1)):
        assert changes.pop(key("kanary_requests_total", protocol="grpc", code=code)) == count
    for reason, count in (("type", 1), ("not_found", 3), ("too_large", 1)):
        assert changes.pop(key("kanary_request_errors_total", protocol="grpc", reason=reason)) == count
    assert changes.pop(key("kanary_request_duration_seconds_count", protocol="grpc")) == 6
    assert changes.pop(key("kanary_batch_rows_count")) == 1
    assert {name for name, _ in changes} <= {
        f"kanary_{what}_{part}" for what in ("request_duration_seconds", "batch_rows") for part in ("bucket", "sum")
    }
    assert {dict(labels).get("reason", "shape") for _, labels in after} == set(REASONS)


def test_bad_requests_beside_good_ones_fail_nobody_else(ask: Asking) -> None:
    bad = [message for message, _ in (WRONG | NOT_FOUND | TOO_LARGE).values()]
    stop = threading.Event()
    failures: list[object] = []

    def send_bad() -> None:
        while not stop.is_set():
            for message in bad:
                try:
                    failures.append(ask.infer(message))
                except grpc.RpcError as error:
                    if error.code() not in REFUSALS:
                        failures.append(error)

    thread = threading.Thread(target=send_bad)
    thread.start()
    try:
        answers = [ask.infer(request(raw=bool(number % 2))).id for number in range(300)]
    finally:
        stop.set()
        thread.join()
    assert set(answers) == {"7"}
    assert not failures


quiet = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
anything = messages.map(lambda message: message.SerializeToString()) | st.binary(max_size=200)


@settings(quiet, max_examples=300)
@given(anything)
def test_whatever_is_asked_is_answered_or_refused(ask: Asking, sent: bytes) -> None:
    assert answered_or_refused(ask, sent)


@pytest.mark.soak
@settings(quiet, max_examples=10_000)
@given(anything)
def test_whatever_is_asked_at_length_is_answered_or_refused(ask: Asking, sent: bytes) -> None:
    assert answered_or_refused(ask, sent)


def answered_or_refused(ask: Asking, sent: bytes) -> bool:
    """Whether there is an answer, or a refusal with a reason that blames the request."""
    try:
        return bool(ask.infer(sent).outputs)
    except grpc.RpcError as error:
        return error.code() in REFUSALS and bool(error.details())
