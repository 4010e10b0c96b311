"""A real predictor over HTTP: every wrong request is refused with a reason, on a connection that goes on."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import kserve
import numpy as np
import pytest
from kserve.inference_client import InferenceRESTClient, RESTConfig

from serving.model.predict import Predictor
from serving.predictor.metrics import BUCKETS
from serving.predictor.metrics import ROWS as BATCH_ROWS
from serving.predictor.refusal import REASONS
from tests.serving.predictor_rig import MIXED, ROWS, V1_GOOD, V2_GOOD, Server, lines, samples, serving, write_model
from tests.waiting import wait_for

V1, V2 = "/v1/models/plants:predict", "/v2/models/plants/infer"
LIMIT = 1 << 20
ROW = ROWS[0]


@dataclass(frozen=True)
class Wrong:
    """A request that is wrong, and what it must get: a status, and words of the reason."""

    id: str
    body: Any
    why: str
    status: int = 400
    path: str = ""
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def row(**changes: Any) -> dict[str, Any]:
    """A V1 request of one row, changed; `...` takes a column out."""
    changed = {name: value for name, value in (ROW | changes).items() if value is not ...}
    return {"instances": [changed]}


def tensor(index: int, **changes: Any) -> dict[str, Any]:
    """A V2 request with one of its tensors changed; `...` takes a key out."""
    inputs: list[dict[str, Any]] = [dict(entry) for entry in V2_GOOD["inputs"]]
    inputs[index] = {key: value for key, value in (inputs[index] | changes).items() if value is not ...}
    return {"inputs": inputs}


def binary(index: int, raw: bytes, size: Any = None, **changes: Any) -> bytes:
    """A V2 body with one of its tensors as binary behind the JSON, padded so that the JSON has 1,000 bytes."""
    told = {"parameters": {"binary_data_size": len(raw) if size is None else size}, "data": ...}
    return json.dumps(tensor(index, **told, **changes)).encode().ljust(1000) + raw


IN_BOTH = [
    Wrong("empty body", b"", "no JSON"),
    Wrong("no JSON", b"height=1.5", "no JSON"),
    Wrong("cut off", json.dumps(V1_GOOD).encode()[:-3], "no JSON"),
    Wrong("two documents", b"{}{}", "no JSON"),
    Wrong("no UTF-8", b'{"instances": ["\xff"]}', "no JSON"),
    Wrong("byte order mark", b"\xef\xbb\xbf{}", "no JSON"),
    Wrong("lone surrogate", b'{"instances": ["\\ud800"]}', "no JSON"),
    Wrong("deep lists", b"[" * 200_000, "depth"),
    Wrong("deep objects", b'{"a":' * 100_000, "depth"),
    Wrong("deep and closed", b"[" * 5_000 + b"]" * 5_000, "depth"),
    Wrong("null", b"null", "the body is null"),
    Wrong("a number", b"1", "the body is 1"),
    Wrong("a text", b'"text"', "the body is 'text'"),
    Wrong("a list", b"[]", "the body is a list"),
    Wrong("an object of nothing", b"{}", "is missing"),
    Wrong("form", b"a=1", "content type", 415, headers={"content-type": "application/x-www-form-urlencoded"}),
    Wrong("XML", b"<a/>", "content type", 415, headers={"content-type": "text/xml"}),
    Wrong("latin-1", b"{}", "content type", 415, headers={"content-type": "application/json; charset=latin-1"}),
    Wrong("gzip", b"\x1f\x8b", "compressed", 415, headers={"content-encoding": "gzip"}),
    Wrong("too long", b" " * (LIMIT + 1), "longer than", 413),
    Wrong("too long, in chunks", [b" " * 65536] * 40, "longer than", 413),
    Wrong("GET", None, "GET is not allowed", 405, method="GET"),
    Wrong("PUT", b"{}", "PUT is not allowed", 405, method="PUT"),
]
IN_V1 = [
    Wrong("instances null", {"instances": None}, "a list is needed"),
    Wrong("instances object", {"instances": ROW}, "a list is needed"),
    Wrong("instances text", {"instances": "rows"}, "a list is needed"),
    Wrong("no rows", {"instances": []}, "is empty"),
    Wrong("row of nothing", {"instances": [{}]}, "lacks height, leaves"),
    Wrong("row a number", {"instances": [1.5]}, "must be objects"),
    Wrong("row null", {"instances": [ROW, None]}, "instances[1] is null"),
    Wrong("rows of two kinds", {"instances": [ROW, list(ROW.values())]}, "instances[1] is a list"),
    Wrong("missing column", row(leaves=...), "instances[0] lacks leaves"),
    Wrong("unexpected column", row(kind="moss"), "instances[0] has kind"),
    Wrong("many unexpected columns", row(**{f"x{n}": 1 for n in range(1000)}), "and 995 more"),
    Wrong("renamed column", row(height=..., Height=1.5), "lacks height"),
    Wrong("short list", {"instances": [[1.5, 3, "red"]]}, "has 3 values; the model takes 4"),
    Wrong("long list", {"instances": [[1.5, 3, "red", True, 1]]}, "has 5 values"),
    Wrong("ragged lists", {"instances": [list(ROW.values()), [1.5]]}, "instances[1] has 1 values"),
    Wrong("empty list", {"instances": [[]]}, "has 0 values"),
    Wrong("nested list", {"instances": [[[1.5, 3, "red", True]]]}, "has 1 values"),
    Wrong("null in a list", {"instances": [[None, 3, "red", True]]}, "instances[0][0] is null"),
    Wrong("null number", row(height=None), "instances[0].height is null"),
    Wrong("null category", row(colour=None), "instances[0].colour is null"),
    Wrong("NaN", b'{"instances": [[NaN, 3, "red", true]]}', "no JSON"),
    Wrong("Infinity", b'{"instances": [[-Infinity, 3, "red", true]]}', "no JSON"),
    Wrong("too large a number", b'{"instances": [[1e999, 3, "red", true]]}', "no JSON"),
    Wrong("too long a number", b'{"instances": [[' + b"9" * 400 + b', 3, "red", true]]}', "no JSON"),
    Wrong("text for a number", row(height="1.5"), "instances[0].height is '1.5'; a number is needed"),
    Wrong("long text for a number", row(height="x" * 100_000), "'..."),
    Wrong("bool for a number", row(height=True), "is true; a number"),
    Wrong("list for a number", row(height=[1.5]), "is a list; a number"),
    Wrong("object for a number", row(height={"value": 1.5}), "is an object; a number"),
    Wrong("deep value", row(height=json.loads("[" * 900 + "]" * 900)), "is a list; a number"),
    Wrong("fraction for a whole number", row(leaves=3.5), "leaves is 3.5; a whole number"),
    Wrong("number for a category", row(colour=1), "one of red, green is needed"),
    Wrong("list for a category", row(colour=["red"]), "is a list"),
    Wrong("number for a truth value", row(evergreen=1), "one of false, true is needed"),
    Wrong("word for a truth value", row(evergreen="yes"), "is 'yes'; one of false, true is needed"),
    Wrong("unknown model", V1_GOOD, "ferns does not exist", 404, path="/v1/models/ferns:predict"),
    Wrong("explain", V1_GOOD, "use :predict", 404, path="/v1/models/plants:explain"),
    Wrong("unknown path", V1_GOOD, "Not Found", 404, path="/v1/predict"),
    Wrong("other path's method", b"", "Method Not Allowed", 405, path="/v1/models"),
]
IN_V2 = [
    Wrong("inputs null", {"inputs": None}, "a list is needed"),
    Wrong("inputs object", {"inputs": V2_GOOD["inputs"][0]}, "a list is needed"),
    Wrong("no inputs", {"inputs": []}, "is empty"),
    Wrong("input a number", {"inputs": [1]}, "inputs[0] is 1"),
    Wrong("id a number", V2_GOOD | {"id": 7}, '"id" is 7'),
    Wrong("parameters a list", V2_GOOD | {"parameters": [1]}, '"parameters" is a list'),
    Wrong("outputs a text", V2_GOOD | {"outputs": "label"}, '"outputs" is'),
    Wrong("unknown output", V2_GOOD | {"outputs": [{"name": "logits"}]}, "none of label, probabilities"),
    Wrong("output a list", V2_GOOD | {"outputs": [[]]}, "outputs[0] is none of"),
    Wrong("no name", tensor(0, name=...), "name is null"),
    Wrong("name a list", tensor(0, name=[]), "name is a list"),
    Wrong("no datatype", tensor(0, datatype=...), "datatype is null"),
    Wrong("unknown datatype", tensor(0, datatype="FP128"), "'FP128'"),
    Wrong("datatype a list", tensor(0, datatype=[]), "datatype is a list"),
    Wrong("no shape", tensor(0, shape=...), "no list of whole numbers"),
    Wrong("shape a number", tensor(0, shape=3), "no list of whole numbers"),
    Wrong("shape of fractions", tensor(0, shape=[3.0]), "no list of whole numbers"),
    Wrong("shape of truth values", tensor(0, shape=[True]), "no list of whole numbers"),
    Wrong("shape of nothing", tensor(0, shape=[]), "must be [rows]"),
    Wrong("shape of no rows", tensor(0, shape=[0], data=[]), "at least one row"),
    Wrong("negative shape", tensor(0, shape=[-3]), "at least one row"),
    Wrong("three dimensions", tensor(0, shape=[3, 1, 1]), "must be [rows]"),
    Wrong("huge shape", tensor(0, shape=[2**62, 2**62]), "3 values"),
    Wrong("shape and data differ", tensor(0, shape=[2]), "3 values; its shape [2] takes 2"),
    Wrong("row counts differ", tensor(0, shape=[2], data=[1.5, 2]), "inputs[1] has the shape [3, 1]; [2]"),
    Wrong("two columns", tensor(0, shape=[3, 2], data=[1.5] * 6), "[3] or [3, 1] is needed"),
    Wrong("ragged", tensor(0, shape=[3, 1], data=[[1], [2, 3], [4]]), "data[1] has 2 values"),
    Wrong("nested deeper than its shape", tensor(0, data=[[1], [2], [3]]), "data[0] is a list"),
    Wrong("no data", tensor(0, data=...), "data is null"),
    Wrong("data an object", tensor(0, data={}), "data is an object"),
    Wrong("empty data", tensor(0, data=[]), "0 values"),
    Wrong("null", tensor(0, data=[1, None, 3]), "inputs[0].data[1] is null"),
    Wrong("null category", tensor(2, data=["red", None, "red"]), "inputs[2].data[1] is null"),
    Wrong("text as FP64", tensor(0, data=["1.5", 2, 3]), "no FP64"),
    Wrong("truth value as INT64", tensor(1, data=[True, 2, 3]), "no INT64"),
    Wrong("fraction as INT64", tensor(1, data=[3.5, 2, 3]), "no INT64"),
    Wrong("beyond INT8", tensor(1, datatype="INT8", data=[128, 2, 3]), "128, which is no INT8"),
    Wrong("below UINT8", tensor(1, datatype="UINT8", data=[-1, 2, 3]), "no UINT8"),
    Wrong("number as BYTES", tensor(2, data=[1, 2, 3]), "no BYTES"),
    Wrong("number as BOOL", tensor(3, data=[1, 0, 1]), "no BOOL"),
    Wrong("fraction for a whole number", tensor(1, datatype="FP32", data=[3.5, 2, 3]), "a whole number"),
    Wrong("BYTES for a number", tensor(0, datatype="BYTES", data=["1", "2", "3"]), "does not suit height"),
    Wrong("FP64 for a category", tensor(2, datatype="FP64", data=[1, 2, 3]), "does not suit colour"),
    Wrong("missing input", {"inputs": V2_GOOD["inputs"][1:]}, "lacks height"),
    Wrong("unexpected input", {"inputs": [*V2_GOOD["inputs"], tensor(0, name="x")["inputs"][0]]}, "has x"),
    Wrong("an input twice", {"inputs": [*V2_GOOD["inputs"], V2_GOOD["inputs"][0]]}, "two inputs are named height"),
    Wrong(
        "a matrix of numbers for categories",
        {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 4], "data": [1, 2, 3, 4]}]},
        "give every feature a tensor of its own",
    ),
    Wrong(
        "a matrix of another width",
        {"inputs": [{"name": "x", "datatype": "FP64", "shape": [2, 3], "data": [1] * 6}]},
        "the model takes [rows, 4]",
    ),
    Wrong("parameters of an input", tensor(0, parameters=[]), "inputs[0].parameters is a list"),
    Wrong("NaN in binary", binary(0, np.array([1, np.nan, 3]).tobytes()), "is nan; a number"),
    Wrong("infinity in binary", binary(0, np.array([1, np.inf, 3]).tobytes()), "is inf; a finite"),
    Wrong("short binary", binary(0, b"\0" * 16), "2 values"),
    Wrong("odd binary", binary(0, b"\0" * 25), "no whole number of FP64"),
    Wrong("missing binary", binary(0, b"", 24), "0 bytes follow"),
    Wrong("negative binary size", binary(0, b"\0" * 24, -24), "binary_data_size is -24"),
    Wrong("binary size a text", binary(0, b"\0" * 24, "24"), "binary_data_size is '24'"),
    Wrong("trailing binary", binary(0, b"\0" * 32, 24), "8 bytes follow the last tensor"),
    Wrong("truncated text", binary(2, b"\3\0\0\0red\5\0\0\0gr"), "longer than the data"),
    Wrong("truncated length", binary(2, b"\3\0\0\0red\5\0"), "longer than the data"),
    Wrong("text not UTF-8", binary(2, b"\1\0\0\0\xff" * 3), "not UTF-8"),
    Wrong(
        "JSON longer than the body", b"{}", "3 bytes; the body has 2", headers={"inference-header-content-length": "3"}
    ),
    Wrong("JSON length a word", b"{}", "no whole number", headers={"inference-header-content-length": "all"}),
    Wrong("JSON length negative", b"{}", "no whole number", headers={"inference-header-content-length": "-1"}),
    Wrong("unknown model", V2_GOOD, "ferns does not exist", 404, path="/v2/models/ferns/infer"),
    Wrong("unknown version", V2_GOOD, "has no version 9", 404, path="/v2/models/plants/versions/9/infer"),
    Wrong("unload", b"", "InferenceService", 404, path="/v2/repository/models/plants/unload"),
    Wrong("unknown path", V2_GOOD, "Not Found", 404, path="/v2/infer"),
]
CASES = [
    pytest.param(path, good, case, id=f"{path[1:3]}: {case.id}")
    for path, good, cases in ((V1, V1_GOOD, IN_BOTH + IN_V1), (V2, V2_GOOD, IN_BOTH + IN_V2))
    for case in cases
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model that is served."""
    folder = tmp_path_factory.mktemp("predictor") / "model"
    write_model(folder, tuple(dataclasses.replace(feature, required=True) for feature in MIXED), version="3.1")
    return folder


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    """A predictor; when the tests are over it has written one line and no more."""
    with serving(model, model.parent / "log", "--max_body_bytes", str(LIMIT), forked=True) as running:
        yield running
        written = lines(running.log)
        assert len(written) == 1, written
        assert "(uvloop, torch threads: " in written[0]


@pytest.mark.parametrize(("path", "good", "case"), CASES)
def test_a_wrong_request_is_refused_and_the_connection_goes_on(
    server: Server, path: str, good: dict[str, Any], case: Wrong
) -> None:
    body, headers = case.body, case.headers
    if isinstance(body, list):
        body = iter(body)
    elif isinstance(body, bytes) and len(body) >= 1000 and body.startswith(b'{"inputs"'):
        headers = {"inference-header-content-length": "1000", "content-type": "application/octet-stream"}
    with server.connection() as connection:
        status, answer, answered = connection.exchange(case.method, case.path or path, body, headers)
        assert status == case.status, answer
        assert set(json.loads(answer)) == {"error"}
        assert case.why in json.loads(answer)["error"]
        assert len(answer) < 1000
        assert answered["content-type"] == "application/json"
        status, answer, _ = connection.exchange("POST", path, good)
        assert status == 200, answer


@pytest.mark.parametrize("path", [V1, V2])
def test_a_body_too_long_is_refused_before_it_is_sent(server: Server, path: str) -> None:
    for extra in (b"", b"Expect: 100-continue\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
            head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n%s\r\n" % (path.encode(), extra)
            raw.sendall(head + b"{" * 1000)
            answer = raw.recv(65536)
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert (b"connection: close" in answer) == bool(extra)


def test_what_is_uploaded_together_is_bounded_and_short_requests_go_on(server: Server) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n{" % (V1.encode(), LIMIT)
    with contextlib.ExitStack() as stack:

        def upload() -> socket.socket:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            connection.sendall(head)
            return connection

        def refused() -> bool:
            connection = upload()
            connection.settimeout(1.0)
            with contextlib.suppress(TimeoutError):
                return connection.recv(65536).startswith(b"HTTP/1.1 429 ")
            return False

        wait_for(refused, "an upload too many is refused")
        with server.connection() as connection:
            assert connection.exchange("POST", V1, V1_GOOD)[0] == 200
    body = json.dumps(V1_GOOD).encode().ljust(LIMIT)
    with server.connection() as connection:
        wait_for(lambda: connection.exchange("POST", V1, body)[0] == 200, "there is room again")


@pytest.mark.parametrize("path", [V1, V2])
def test_a_client_that_leaves_in_the_middle_harms_nobody(server: Server, path: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        raw.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{" % path.encode())
    with server.connection() as connection:
        assert connection.exchange("POST", path, V1_GOOD if path == V1 else V2_GOOD)[0] == 200


@pytest.mark.parametrize("at_once", [True, False])
def test_a_client_that_leaves_before_its_pipelined_answers_harms_nobody_and_fills_no_log(
    server: Server, at_once: bool
) -> None:
    """The log is looked at when the tests are over."""
    body = json.dumps(V1_GOOD).encode()
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (V1.encode(), len(body))
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
            raw.sendall((head + body) * 3)
            if at_once:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with server.connection() as connection:
        assert connection.exchange("POST", V1, V1_GOOD)[0] == 200


@pytest.mark.parametrize("offer", [b"h2c", b"websocket"])
@pytest.mark.parametrize("pause", [False, True])
def test_an_offer_to_speak_another_protocol_is_not_heard(server: Server, offer: bytes, pause: bool) -> None:
    """Java's own client makes one with its first request, `curl --http2` with every one."""
    body = json.dumps(V1_GOOD).encode()
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade, HTTP2-Settings\r\n" % V1.encode()
    head += b"Upgrade: %b\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: %d\r\n\r\n" % (offer, len(body))
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in (head, body) if pause else (head + body,):
            raw.sendall(part)
            server.get("/v2/health/live")  # what was sent has been read by then
        many = 400
        raw.sendall((head + body) * many)
        answers = b""
        while answers.count(b'"predictions"') < 1 + many:
            part = raw.recv(1 << 20)
            assert part, answers[-500:]
            answers += part
    assert answers.count(b"HTTP/1.1 200") == 1 + many


def test_long_requests_are_answered_too(server: Server, model: Path) -> None:
    rows = ROWS * 4000
    with server.connection() as connection:
        status, answer, _ = connection.exchange("POST", V1, {"instances": [list(row.values()) for row in rows]})
    assert status == 200
    expected = Predictor.load(model).predict_proba({name: [row[name] for row in rows] for name in ROW})
    given = [list(row["probabilities"].values()) for row in json.loads(answer)["predictions"]]
    assert np.allclose(given, expected)


def test_every_answer_tells_the_version(server: Server) -> None:
    with server.connection() as connection:
        for method, path, body in (
            ("POST", V1, V1_GOOD),
            ("POST", "/v2/models/plants/versions/3.1/infer", V2_GOOD),
            ("POST", V1, {}),
            ("POST", "/v2/models/ferns/infer", {}),
            ("GET", "/v2/models/plants", None),
            ("GET", "/v2/models/plants/versions/3.1/ready", None),
            ("GET", "/v1/models/plants", None),
            ("GET", "/metrics", None),
        ):
            assert connection.exchange(method, path, body)[2]["kanary-model-version"] == "3.1", path


def test_only_this_machine_is_served_unless_told(server: Server) -> None:
    assert server.get("/v2/health/ready")[0] == 200
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", server.port), timeout=5)


def test_kserves_own_client_gets_its_predictions(server: Server, model: Path) -> None:
    expected = Predictor.load(model).predict_proba({name: [row[name] for row in ROWS] for name in ROW})
    asyncio.run(ask_with_kserves_client(f"http://127.0.0.1:{server.port}", expected.tolist()))


async def ask_with_kserves_client(url: str, expected: list[list[float]]) -> None:
    v1 = InferenceRESTClient(RESTConfig(protocol="v1"))
    answer = await v1.infer(url, V1_GOOD, model_name="plants")
    assert [list(row["probabilities"].values()) for row in answer["predictions"]] == expected
    with pytest.raises(httpx.HTTPStatusError, match="instances"):
        await v1.infer(url, {}, model_name="plants")
    v2 = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await v2.is_server_ready(url)
    assert await v2.is_model_ready(url, "plants")
    for as_binary in (False, True):
        inputs = []
        for entry in V2_GOOD["inputs"]:
            values = np.array(entry["data"], dtype=object if entry["datatype"] == "BYTES" else None)
            inputs.append(kserve.InferInput(entry["name"], list(values.shape), entry["datatype"]))
            inputs[-1].set_data_from_numpy(values, binary_data=as_binary)
        answer = await v2.infer(url, kserve.InferRequest("plants", inputs), model_name="plants")
        assert answer.get_output_by_name("probabilities").as_numpy().tolist() == expected
        assert answer.get_output_by_name("label").shape == [3]
    await v1.close()
    await v2.close()


def test_the_metrics_count_what_was_asked_and_what_came_out(server: Server) -> None:
    model = {"service": "plants", "version": "3.1"}

    def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
        return name, frozenset((model | labels).items())

    before = samples(server)
    with server.connection() as connection:
        _, answer, _ = connection.exchange("POST", V1, V1_GOOD)
        connection.exchange("POST", V2, V2_GOOD)
        connection.exchange("POST", V1, row(colour=None))
        connection.exchange("POST", "/v2/models/made-up/infer", V2_GOOD)
    after = samples(server)
    changed = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    labels = [row["label"] for row in json.loads(answer)["predictions"]]
    for label in set(labels):
        assert changed.pop(key("kanary_predictions_total", **{"class": label})) == 2 * labels.count(label)
    assert changed.pop(key("kanary_requests_total", protocol="v1", code="200")) == 1
    assert changed.pop(key("kanary_requests_total", protocol="v2", code="200")) == 1
    assert changed.pop(key("kanary_requests_total", protocol="v1", code="400")) == 1
    assert changed.pop(key("kanary_requests_total", protocol="v2", code="404")) == 1
    assert changed.pop(key("kanary_request_errors_total", protocol="v1", reason="null")) == 1
    assert changed.pop(key("kanary_request_errors_total", protocol="v2", reason="not_found")) == 1
    assert changed.pop(key("kanary_request_duration_seconds_count", protocol="v1")) == 2
    assert changed.pop(key("kanary_batch_rows_count")) == 2
    assert changed.pop(key("kanary_batch_rows_sum")) == 6
    assert {name for name, _ in changed} <= {
        "kanary_batch_rows_bucket",
        *(f"kanary_request_duration_seconds_{part}" for part in ("bucket", "sum", "count")),
    }


def test_no_client_can_make_a_series(server: Server) -> None:
    with server.connection() as connection:
        for number in range(50):
            connection.exchange(
                "POST", f"/v1/models/m{number}:predict", row(colour=f"c{number}"), {"ce-id": str(number)}
            )
            connection.exchange("POST", f"/v2/models/plants/versions/{number}/infer", {"id": str(number)})
            connection.exchange("POST", V1, row(colour=f"c{number}", height=None))
            connection.exchange("POST", V1, row(**{f"c{number}": 1}))
            connection.exchange("POST", V1, row(colour=f"c{number}"))
            connection.exchange("GET", f"/nowhere/{number}")
    found = [dict(labels) for _, labels in samples(server)]
    assert {labels["service"] for labels in found} == {"plants"}
    assert {labels["version"] for labels in found} == {"3.1"}
    assert {labels.get("class", "moss") for labels in found} == {"moss", "fern", "palm"}
    assert {labels.get("protocol", "v1") for labels in found} == {"v1", "v2", "grpc"}
    assert {labels.get("reason", "shape") for labels in found} == set(REASONS)
    assert {labels.get("code", "200") for labels in found} <= {"OK", "200", "400", "404", "405", "413", "415", "429"}
    assert {float(labels.get("le", BUCKETS[0])) for labels in found} == {*BUCKETS, *BATCH_ROWS, float("inf")}
    assert {labels.get("feature", "height") for labels in found} == set(ROW)


def test_bad_requests_beside_good_ones_fail_nobody_else(server: Server) -> None:
    bad = [
        case.values[2]
        for case in CASES
        if isinstance(case.values[2], Wrong) and not isinstance(case.values[2].body, list)
    ]
    stop = threading.Event()
    failures: list[str] = []

    def send_bad() -> None:
        while not stop.is_set():
            with server.connection() as connection:
                for case in bad:
                    status = connection.exchange(case.method, case.path or V1, case.body, case.headers)[0]
                    if not 400 <= status < 500:
                        failures.append(f"{case.id}: {status}")

    thread = threading.Thread(target=send_bad)
    thread.start()
    try:
        with server.connection() as connection:
            statuses = [connection.exchange("POST", V1, V1_GOOD)[0] for _ in range(300)]
    finally:
        stop.set()
        thread.join()
    assert set(statuses) == {200}
    assert not failures
