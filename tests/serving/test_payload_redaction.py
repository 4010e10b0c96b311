"""Redaction: whatever form a request has, no value of a sensitive column is in what leaves."""

from __future__ import annotations

import json
import struct
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.predictor.payloads.cloudevents import go_json, timestamp, writer
from serving.predictor.payloads.frames import Decoder, Exchange, encode
from serving.predictor.payloads.redaction import Unredactable, redacted
from serving.predictor.payloads.spec import PayloadLog

FEATURES = ("height", "age", "colour", "member")
SENSITIVE = frozenset({"age", "colour", "not-a-feature"})
# Nothing else that a request holds can be read as one of these.
SECRET_NUMBER, SECRET_TEXT = 77123456, "sÉcret-value"
ROW: dict[str, Any] = {"height": 1.5, "age": SECRET_NUMBER, "colour": SECRET_TEXT, "member": True}
DATATYPES = {"height": ("FP64", "<d"), "age": ("INT32", "<i"), "colour": ("BYTES", ""), "member": ("BOOL", "?")}


def one(protocol: str, document: Any) -> Any:
    return json.loads(redacted(protocol, json.dumps(document).encode(), None, FEATURES, SENSITIVE))


def test_a_sensitive_value_is_null_in_v1_objects_and_lists() -> None:
    hidden = ROW | {"age": None, "colour": None}
    assert one("v1", {"instances": [ROW, ROW]}) == {"instances": [hidden, hidden]}
    assert one("v1", {"instances": [list(ROW.values())]}) == {"instances": [list(hidden.values())]}


def test_a_sensitive_tensor_is_null_and_the_others_stay() -> None:
    inputs = [
        {"name": name, "datatype": DATATYPES[name][0], "shape": [2, 1], "data": [[value], [value]]}
        for name, value in ROW.items()
    ]
    found = one("v2", {"id": "7", "inputs": inputs, "outputs": [{"name": "label", "parameters": {"a": SECRET_TEXT}}]})
    assert found["id"] == "7"
    assert found["outputs"] == [{"name": "label"}]
    assert {entry["name"]: entry["data"] for entry in found["inputs"]} == {
        "height": [1.5, 1.5],
        "age": [None, None],
        "colour": [None, None],
        "member": [True, True],
    }
    assert [entry["shape"] for entry in found["inputs"]] == [[2, 1]] * 4


def test_a_sensitive_column_of_a_matrix_is_null_flat_or_nested() -> None:
    rows = [[1, SECRET_NUMBER, SECRET_NUMBER, 0], [2, SECRET_NUMBER, SECRET_NUMBER, 1]]
    for data in (rows, rows[0] + rows[1]):
        tensor = {"name": "any", "datatype": "INT64", "shape": [2, 4], "data": data}
        assert one("v2", {"inputs": [tensor]})["inputs"] == [tensor | {"data": [1, None, None, 0, 2, None, None, 1]}]


def test_binary_tensors_become_json() -> None:
    body, length = binary([ROW, ROW | {"height": -2.25, "member": False}])
    found = json.loads(redacted("v2", body, length, FEATURES, SENSITIVE))
    assert {entry["name"]: (entry["datatype"], entry["shape"], entry["data"]) for entry in found["inputs"]} == {
        "height": ("FP64", [2], [1.5, -2.25]),
        "age": ("INT32", [2], [None, None]),
        "colour": ("BYTES", [2], [None, None]),
        "member": ("BOOL", [2], [True, False]),
    }
    matrix = struct.pack("<8f", 1, SECRET_NUMBER, SECRET_NUMBER, 0, 2, SECRET_NUMBER, SECRET_NUMBER, 1)
    head = {"name": "m", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32}}
    text = json.dumps({"inputs": [head]}).encode()
    found = json.loads(redacted("v2", text + matrix, len(text), FEATURES, SENSITIVE))
    assert found["inputs"][0]["data"] == [1, None, None, 0, 2, None, None, 1]


def test_what_is_no_column_is_left_out() -> None:
    """A client may put anything beside the columns, and the predictor does not look at it."""
    body = b'{"instances": [{"age": 1}], "note": "%s", "instances": [{"age": 77123456, "age": 2, "height": 1, '
    body = body.replace(b"%s", SECRET_TEXT.encode()) + b'"colour": "x", "member": true}]}'
    expected = {"instances": [{"height": 1, "age": None, "colour": None, "member": True}]}
    assert json.loads(redacted("v1", body, None, FEATURES, SENSITIVE)) == expected
    tensor = {"name": "m", "datatype": "INT64", "shape": [1, 4], "data": [1, 2, 3, 4], "parameters": {"x": SECRET_TEXT}}
    assert SECRET_TEXT not in str(one("v2", {"inputs": [tensor], "parameters": {"y": SECRET_TEXT}}))


@pytest.mark.parametrize(
    ("protocol", "document"),
    [
        ("v1", {"instances": [{"age": 1}]}),
        ("v1", {"instances": [[1, 2, 3]]}),
        ("v1", {"instances": [[1, 2, 3, [4]]]}),
        ("v1", {"instances": "abcd"}),
        ("v1", {"instances": ["abcd"]}),
        ("v1", {"rows": []}),
        ("v1", []),
        ("v2", {"inputs": [{"name": "AGE", "datatype": "INT64", "shape": [1], "data": [1]}]}),
        ("v2", {"inputs": [{"name": "m", "datatype": "INT64", "shape": [1, 3], "data": [1, 2, 3]}]}),
        ("v2", {"inputs": [{"name": "m", "datatype": "INT64", "shape": [1, 4], "data": [1, 2, 3]}]}),
        ("v2", {"inputs": [{"name": "m", "datatype": "INT64", "shape": [1, 4], "data": [1, 2, 3, [[4]]]}]}),
        ("v2", {"inputs": [{"name": ["age"], "datatype": "INT64", "shape": [1], "data": [1]}]}),
        ("v2", {"inputs": None}),
        ("v2", "x"),
    ],
)
def test_what_is_not_understood_is_refused(protocol: str, document: Any) -> None:
    with pytest.raises(Unredactable):
        one(protocol, document)


def binary(rows: list[dict[str, Any]], names: tuple[str, ...] = FEATURES) -> tuple[bytes, int]:
    """A V2 request with binary tensors, and the length of its JSON."""
    inputs, data = [], b""
    for name in names:
        datatype, kind = DATATYPES[name]
        values = [row[name] for row in rows]
        if datatype == "BYTES":
            texts = [value.encode() for value in values]
            raw = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        else:
            raw = b"".join(struct.pack(kind, value) for value in values)
        size = {"binary_data_size": len(raw)}
        inputs.append({"name": name, "datatype": datatype, "shape": [len(rows)], "parameters": size})
        data += raw
    text = orjson.dumps({"inputs": inputs})
    return text + data, len(text)


LOG = PayloadLog("http://sink/", "all", (), {"a": "b"}, "s", "n", "predictor", "", "pod", "r", 1.0)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "height": st.floats(-10, 10),
            "age": st.just(SECRET_NUMBER),
            "colour": st.just(SECRET_TEXT),
            "member": st.booleans(),
        }
    ),
    min_size=1,
    max_size=4,
)


@given(rows=ROWS, form=st.sampled_from(["objects", "lists", "tensors", "binary"]), order=st.permutations(FEATURES))
@settings(max_examples=300, deadline=None)
def test_no_sensitive_value_is_in_any_event(rows: list[dict[str, Any]], form: str, order: list[str]) -> None:
    length = None
    if form == "objects":
        body = orjson.dumps({"instances": [{name: row[name] for name in order} for row in rows]})
    elif form == "lists":
        body = orjson.dumps({"instances": [[row[name] for name in FEATURES] for row in rows]})
    elif form == "tensors":
        inputs = [
            {"name": name, "datatype": DATATYPES[name][0], "shape": [len(rows)], "data": [row[name] for row in rows]}
            for name in order
        ]
        body = orjson.dumps({"inputs": inputs, "parameters": {"x": SECRET_TEXT}})
    else:
        body, length = binary(rows, tuple(order))
    exchange = Exchange(
        "v1" if length is None and form != "tensors" else "v2", b"1", b"", b"", body, b"{}", length, 0, 0
    )
    for secret in (str(SECRET_NUMBER).encode(), SECRET_TEXT.encode(), struct.pack("<i", SECRET_NUMBER)):
        for _, wire in writer(LOG, FEATURES, tuple(SENSITIVE)).events(exchange):
            assert secret not in wire
            assert json.dumps(SECRET_TEXT).strip('"').encode() not in wire
    # Without sensitive columns the body goes as it came.
    kind, wire = next(iter(writer(LOG, FEATURES, ()).events(exchange)))
    assert (kind, wire.partition(b"\r\n\r\n")[2]) == ("request", body)


def test_only_the_re_encoded_body_gets_another_content_type_and_loses_its_length() -> None:
    body, length = binary([ROW])
    metadata = go_json({"Inference-Header-Content-Length": [str(length)], "X": ["y"]}).encode()
    exchange = Exchange("v2", b"1", b"application/octet-stream", metadata, body, b"{}", length, 0, 0)
    for sensitive, content_type, told in (
        ((), b"application/octet-stream", metadata),
        (("age",), b"application/json", b'{"X":["y"]}'),
    ):
        for _, wire in writer(LOG, FEATURES, sensitive).events(exchange):
            assert b"\r\nContent-Type: %b\r\n" % content_type in wire
            assert b"\r\nCe-Metadata: %b\r\n" % told in wire


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, b"1970-01-01T00:00:00Z"), (1.5, b"1970-01-01T00:00:01.5Z"), (1e9 + 1e-6, b"2001-09-09T01:46:40.000001Z")],
)
def test_times_are_written_as_go_writes_them(seconds: float, text: bytes) -> None:
    assert timestamp(seconds) == text


TEXT = st.binary(max_size=40)
PARTS = st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT)


@given(st.lists(st.tuples(PARTS, st.none() | st.integers(0, 99)), max_size=5), st.data())
@settings(deadline=None)
def test_frames_survive_any_cut(exchanges: list[tuple[Any, int | None]], data: st.DataObject) -> None:
    stream = b"".join(encode("v1", parts, length, 1.5, 2.5) for parts, length in exchanges)
    decoder, found = Decoder(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += list(decoder.feed(stream[:cut]))
        stream = stream[cut:]
    assert found == [Exchange("v1", a, b, c, d, e, length, 1.5, 2.5) for (a, b, c, d, e), length in exchanges]


def test_a_client_s_id_ends_no_header() -> None:
    exchange = Exchange("v1", b"a\r\nCe-Type: x", b"a/b\r\n\r\nPOST", b"", b"{}", b"{}", None, 0, 0)
    for _, wire in writer(LOG, FEATURES, ()).events(exchange):
        head = wire.partition(b"\r\n\r\n")[0].split(b"\r\n")
        assert b"Ce-Id: aCe-Type: x" in head
        assert b"Content-Type: a/bPOST" in head
