"""Random and mutated requests against a real predictor: each is answered with 200 or a 4xx that says why, never with a
5xx, never by a dropped connection. `make soak` tries 10,000 on each protocol.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.predictor_rig import MIXED, V1_GOOD, V2_GOOD, Server, lines, serving, write_model

V1, V2 = "/v1/models/plants:predict", "/v2/models/plants/infer"
JSON_LENGTH = "inference-header-content-length"

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)
cells = scalars | st.sampled_from(["red", "green", "true", 3, 1.5, [], {}])
names = st.sampled_from([*(feature.name for feature in MIXED), "x"])
rows = st.fixed_dictionaries({feature.name: cells for feature in MIXED}) | st.lists(cells, min_size=3, max_size=5)
tensors = st.fixed_dictionaries(
    {
        "name": names | anything,
        "datatype": st.sampled_from(["FP64", "FP32", "FP16", "INT8", "INT64", "UINT64", "BYTES", "BOOL"]) | anything,
        "shape": st.sampled_from([[1], [2], [1, 1], [1, 4], [2, 2], [2**40, 2**40]]) | anything,
    },
    optional={
        "data": st.lists(cells, max_size=4) | anything,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 9) | anything}) | anything,
    },
)
v1_documents = st.fixed_dictionaries({"instances": st.lists(rows | anything, max_size=3) | anything}) | anything
v2_documents = (
    st.fixed_dictionaries(
        {"inputs": st.lists(tensors | anything, max_size=4) | anything},
        optional={
            "id": anything,
            "outputs": st.lists(
                st.fixed_dictionaries(
                    {"name": st.sampled_from(["label", "probabilities"]) | anything}, optional={"parameters": anything}
                )
            )
            | anything,
            "parameters": st.fixed_dictionaries({"binary_data_output": anything}) | anything,
        },
    )
    | anything
)


@st.composite
def mutated(draw: st.DrawFn, good: bytes) -> bytes:
    """A good body with a few of its bytes cut out, doubled or replaced."""
    body = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(body) - 1)))
        end = draw(st.integers(start, min(len(body), start + 12)))
        body[start:end] = draw(st.binary(max_size=8) | st.just(bytes(body[start:end]) * 2))
    return bytes(body)


def bodies(documents: st.SearchStrategy[Any], good: Any) -> st.SearchStrategy[bytes]:
    text = documents.map(lambda document: json.dumps(document).encode())
    return text | mutated(json.dumps(good).encode()) | st.binary(max_size=64)


headers = st.fixed_dictionaries(
    {},
    optional={
        JSON_LENGTH: st.sampled_from(["0", "1", "17", "400", "-1", "x", "9" * 20]),
        "content-type": st.sampled_from(
            ["application/json", "application/octet-stream", "text/plain", ";", "a/b;charset="]
        ),
        "content-encoding": st.sampled_from(["gzip", "identity", ""]),
    },
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A predictor that has written one line, of its start, when all is over."""
    folder = tmp_path_factory.mktemp("fuzz")
    # Every other feature may be missing: both rules are tried.
    features = tuple(replace(feature, required=place % 2 == 0) for place, feature in enumerate(MIXED))
    write_model(folder / "model", features)
    with serving(folder / "model", folder / "log", "--max_body_bytes", "65536", forked=True) as running:
        yield running
        assert len(lines(running.log)) == 1, lines(running.log)


def limits(examples: int) -> Callable[[Any], Any]:
    return settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def check(server: Server, path: str, good: Any, body: bytes, head: dict[str, str]) -> None:
    """One request on a connection of its own, and a good one behind it."""
    with server.connection() as connection:
        status, answer, _ = connection.exchange("POST", path, body, head)
        assert status == 200 or 400 <= status < 500, (status, answer)
        if status != 200:
            assert json.loads(answer)["error"]
        assert connection.exchange("POST", path, good)[0] == 200


def fuzz(server: Server, path: str, good: Any, documents: st.SearchStrategy[Any], examples: int) -> None:
    @limits(examples)
    @given(bodies(documents, good), headers)
    def attempt(body: bytes, head: dict[str, str]) -> None:
        check(server, path, good, body, head)

    attempt()


def test_whatever_v1_is_sent_it_answers_or_refuses(server: Server) -> None:
    fuzz(server, V1, V1_GOOD, v1_documents, 100)


def test_whatever_v2_is_sent_it_answers_or_refuses(server: Server) -> None:
    fuzz(server, V2, V2_GOOD, v2_documents, 100)


@pytest.mark.soak
def test_ten_thousand_v1_requests_are_answered_or_refused(server: Server) -> None:
    fuzz(server, V1, V1_GOOD, v1_documents, 10_000)


@pytest.mark.soak
def test_ten_thousand_v2_requests_are_answered_or_refused(server: Server) -> None:
    fuzz(server, V2, V2_GOOD, v2_documents, 10_000)
