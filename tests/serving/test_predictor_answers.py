from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kserve
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kserve.errors import InvalidInput

from kanary.modelspec import CategoricalFeature
from serving.predictor import v1
from serving.predictor.contract import Contract, contract
from serving.predictor.load import load
from serving.predictor.model import PredictorModel
from serving.predictor.quick import QuickRows
from serving.predictor.refusal import Refused
from serving.predictor.service import Service
from tests.serving.predictor_rig import MIXED, NUMERIC, ROWS, V1_GOOD, V2_GOOD, write_model


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A service of the model with numbers and categories."""
    folder = tmp_path_factory.mktemp("mixed") / "model"
    write_model(folder)
    return load(folder, "mixed")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """The same model, trained by a schema that requires every value."""
    folder = tmp_path_factory.mktemp("strict") / "model"
    write_model(folder, tuple(dataclasses.replace(feature, required=True) for feature in MIXED))
    return load(folder, "strict")


@pytest.fixture(scope="module")
def numeric(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A service of the model with numbers only."""
    folder = tmp_path_factory.mktemp("numeric") / "model"
    write_model(folder, NUMERIC)
    return load(folder, "numeric")


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def output(answer: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in answer["outputs"] if entry["name"] == name)
    return found


def test_every_way_of_asking_gives_what_the_model_gives(mixed: Service) -> None:
    expected = mixed.predictor.predict_proba(columns(ROWS))
    v1 = mixed.v1(V1_GOOD)["predictions"]
    assert [list(row["probabilities"].values()) for row in v1] == expected.tolist()
    assert list(v1[0]["probabilities"]) == ["moss", "fern", "palm"]
    assert [row["label"] for row in v1] == mixed.predictor.labels(expected)
    assert mixed.v1({"instances": [list(row.values()) for row in ROWS]})["predictions"] == v1
    assert mixed.v1({"instances": [dict(reversed(row.items())) for row in ROWS]})["predictions"] == v1

    v2 = mixed.v2(V2_GOOD)
    assert output(v2, "probabilities")["shape"] == [3, 3]
    assert output(v2, "probabilities")["data"] == expected.ravel().tolist()
    assert json.loads(output(v2, "probabilities")["parameters"]["classes"]) == ["moss", "fern", "palm"]
    assert output(v2, "label") == {"name": "label", "datatype": "BYTES", "shape": [3], "data": [r["label"] for r in v1]}
    assert (v2["model_name"], v2["model_version"]) == ("mixed", mixed.predictor.spec.version)


def test_a_matrix_is_the_columns_of_a_numeric_model(numeric: Service) -> None:
    expected = numeric.predictor.predict_proba({"height": [1.5, -2.0], "leaves": [3, 12]}).ravel().tolist()
    for data in ([1.5, 3, -2, 12], [[1.5, 3], [-2, 12]]):
        matrix = {"name": "anything", "datatype": "FP64", "shape": [2, 2], "data": data}
        assert output(numeric.v2({"inputs": [matrix]}), "probabilities")["data"] == expected
    assert numeric.v1({"instances": [[1.5, 3], [-2, 12]]})["predictions"][1]["probabilities"]["palm"] == expected[-1]


def test_a_category_may_come_as_its_text(mixed: Service) -> None:
    inputs = [*V2_GOOD["inputs"][:3], {**V2_GOOD["inputs"][3], "datatype": "BYTES", "data": ["true", "false", "true"]}]
    assert mixed.v2({"inputs": inputs, "id": "7"}) == mixed.v2(V2_GOOD | {"id": "7"})


def test_the_outputs_asked_for_are_the_outputs_given(mixed: Service) -> None:
    answer = mixed.v2(V2_GOOD | {"id": "7", "outputs": [{"name": "label"}]})
    assert [entry["name"] for entry in answer["outputs"]] == ["label"]
    assert answer["id"] == "7"
    assert mixed.v2(V2_GOOD)["id"] != mixed.v2(V2_GOOD)["id"]


@pytest.mark.parametrize("column", ["height", "leaves", "colour", "evergreen"])
def test_what_is_missing_is_treated_as_in_training_unless_the_schema_requires_it(
    mixed: Service, strict: Service, column: str
) -> None:
    row = ROWS[0] | {column: None}
    answer = mixed.v1({"instances": [row]})["predictions"][0]
    assert list(answer["probabilities"].values()) == mixed.predictor.predict_proba(columns([row]))[0].tolist()
    with pytest.raises(Refused, match=rf"instances\[0\]\.{column} is null") as refused:
        strict.v1({"instances": [row]})
    assert refused.value.reason == "null"


def test_a_missing_number_in_binary_is_nan(mixed: Service, strict: Service) -> None:
    document, binary = with_binary_height([float("nan")])
    row = ROWS[0] | {"height": None, "leaves": 3}
    expected = mixed.predictor.predict_proba(columns([row]))[0].tolist()
    assert output(mixed.v2(document, binary), "probabilities")["data"] == expected
    with pytest.raises(Refused, match="is nan; a number is needed") as refused:
        strict.v2(document, binary)
    assert refused.value.reason == "null"


def test_a_category_unknown_to_training_is_treated_as_a_missing_one(mixed: Service, strict: Service) -> None:
    for service in (mixed, strict):
        answer = service.v1({"instances": [ROWS[0] | {"colour": "violet"}]})["predictions"]
        assert answer == mixed.v1({"instances": [ROWS[0] | {"colour": None}]})["predictions"]


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_infinity_is_refused_whatever_the_schema_says(mixed: Service, strict: Service, value: float) -> None:
    for service in (mixed, strict):
        with pytest.raises(Refused, match="a finite number is needed"):
            service.v2(*with_binary_height([value]))


def with_binary_height(values: list[float]) -> tuple[dict[str, Any], bytes]:
    """A V2 request of the first row, its height as binary."""
    height = {"name": "height", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}}
    rest = [{**entry, "shape": [1], "data": entry["data"][:1]} for entry in V2_GOOD["inputs"][1:]]
    return {"inputs": [height, *rest]}, np.array(values).tobytes()


NUMBERS = st.none() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([True, "1.5", 1.0, 3, 3.5, []])
COLOURS: st.SearchStrategy[Any] = st.sampled_from(["red", "green", "violet", "", None, 1, True, ["red"], {}])
TRUTHS: st.SearchStrategy[Any] = st.sampled_from([True, False, "true", "false", "yes", None, 1, 0, 1.0, []])


@settings(max_examples=300, deadline=None, database=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS, COLOURS, TRUTHS), min_size=1, max_size=4))
def test_the_quick_way_reads_what_the_careful_way_reads_or_leaves_it(
    mixed: Service, strict: Service, values: list[Any]
) -> None:
    for service in (mixed, strict):
        careful = dataclasses.replace(service.contract, quick=Hesitant())
        for instances in ([dict(zip(ROWS[0], row, strict=True)) for row in values], [list(row) for row in values]):
            found = [encoded_or_refused(rule, {"instances": instances}) for rule in (service.contract, careful)]
            assert found[0] == found[1]


class Hesitant(QuickRows):
    """Leaves everything to the careful way."""

    def __init__(self) -> None:
        pass

    def _read(self, *_: Any) -> None:
        return None

    _from_object = _from_list = ((), ())  # type: ignore[assignment]


def encoded_or_refused(rule: Contract, document: dict[str, Any]) -> tuple[bytes, bytes] | str:
    try:
        rows = v1.decode(document, rule)
    except Refused as refused:
        return refused.message
    return rows.numbers.tobytes(), rows.indices.tobytes()


NATIVE: dict[str, Callable[[str], Any]] = {"string": str, "integer": int, "number": float}


@pytest.mark.parametrize(
    "feature",
    [
        CategoricalFeature("c", "string", ("a", "", "true")),
        CategoricalFeature("c", "boolean", ("false", "true")),
        CategoricalFeature("c", "integer", ("-3", "0", "12")),
        CategoricalFeature("c", "number", ("0.5", "2.0", "1e3")),
    ],
    ids=lambda feature: str(feature.type),
)
def test_a_category_known_to_training_is_found_in_every_spelling(mixed: Service, feature: CategoricalFeature) -> None:
    rule = contract(dataclasses.replace(mixed.predictor.spec, features=(feature,)))
    offered: tuple[Any, ...] = ("b", "2", True, False, -3, 0, 12, 7, 0.5, 2, 2.0, 1000, 0.25, None, [], {})
    read: dict[Any, int] = {}
    for value in (*feature.categories, *offered):
        with contextlib.suppress(Refused):
            rule.check(feature, [value], "row ", "")
            read[value] = int(rule.encode({"c": [value]}).indices[0, 0])
    for index, text in enumerate(feature.categories, 1):
        native = text == "true" if feature.type == "boolean" else NATIVE[feature.type](text)
        assert read[text] == index
        assert rule.encode({"c": [native]}).indices[0, 0] == index
    assert read[None] == 0


@pytest.mark.parametrize(("feature", "text"), [("boolean", "yes"), ("integer", "1.5"), ("number", "one")])
def test_a_text_that_spells_no_value_of_its_type_is_no_category(mixed: Service, feature: Any, text: str) -> None:
    rule = contract(dataclasses.replace(mixed.predictor.spec, features=(CategoricalFeature("c", feature, ("1",)),)))
    with pytest.raises(Refused, match="one of 1 is needed"):
        rule.check(rule.features[0], [text], "row ", "")


def test_the_kserve_model_answers_what_the_service_answers(mixed: Service) -> None:
    model = PredictorModel(mixed)
    assert model.ready
    assert model.predict(V1_GOOD) == mixed.v1(V1_GOOD)
    arrays = {entry["name"]: np.array(entry["data"]) for entry in V2_GOOD["inputs"]}
    arrays["colour"] = arrays["colour"].astype(object)
    for binary in (False, True):
        inputs = []
        for entry in V2_GOOD["inputs"]:
            tensor = kserve.InferInput(entry["name"], [3], entry["datatype"])
            tensor.set_data_from_numpy(arrays[entry["name"]], binary_data=binary)
            inputs.append(tensor)
        answer = model.predict(kserve.InferRequest("mixed", inputs, request_id="7"))
        assert isinstance(answer, kserve.InferResponse)
        assert answer.outputs[1].data == output(mixed.v2(V2_GOOD), "probabilities")["data"]
    with pytest.raises(InvalidInput, match="instances"):
        model.predict({})


def test_the_metadata_describe_a_request_that_works(mixed: Service) -> None:
    model = PredictorModel(mixed)
    examples = {"FP64": 1.5, "INT64": 2, "BYTES": "red", "BOOL": True}
    inputs = [entry | {"shape": [1], "data": [examples[entry["datatype"]]]} for entry in model.get_input_types()]
    answer = mixed.v2({"inputs": inputs})
    told = [(entry["name"], entry["datatype"], len(entry["shape"])) for entry in model.get_output_types()]
    assert told == [(entry["name"], entry["datatype"], len(entry["shape"])) for entry in answer["outputs"]]


def test_a_body_is_json_and_what_the_header_says_is_binary(mixed: Service) -> None:
    body = json.dumps(V2_GOOD | {"id": "7"}).encode()
    assert json.loads(mixed.answer_alone("v2", body, len(body)).content) == json.loads(
        mixed.answer_alone("v2", body).content
    )
    with pytest.raises(Refused, match="the JSON is said to have"):
        mixed.answer_alone("v2", body, len(body) + 1)
    for text in (b"", b"{", b"\xff", b"[" * 5000, b'{"instances": [NaN]}'):
        with pytest.raises(Refused, match="no JSON"):
            mixed.answer_alone("v1", text)


def test_no_search_for_cycles_stops_other_requests_while_a_long_body_is_read(mixed: Service) -> None:
    found = []

    def note(phase: str, _: dict[str, int]) -> None:
        found.append(phase)

    gc.callbacks.append(note)
    try:
        with pytest.raises(Refused, match="has 0 values"):
            mixed.answer_alone("v1", b'{"instances": [' + b"[]," * 200_000 + b"[]]}")
    finally:
        gc.callbacks.remove(note)
    assert gc.isenabled()
    assert len(found) < 20  # it would be hundreds


def test_a_model_folder_inside_the_folder_is_found_and_served(tmp_path: Path) -> None:
    spec = write_model(tmp_path / "release" / "plants")
    assert load(tmp_path / "release").predictor.spec == spec
