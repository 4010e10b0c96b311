from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from kanary import modelspec
from kanary.errors import InputError, ModelError
from kanary.modelspec import (
    REFERENCE,
    SPEC,
    WEIGHTS,
    Architecture,
    CategoricalFeature,
    Lineage,
    ModelSpec,
    NumericFeature,
    Training,
)
from serving.model import store
from serving.model.network import build, embedding_size, silence_unseen
from serving.model.predict import Predictor

DRAFT = ModelSpec(
    format="kanary/2",
    name="plants",
    version="",
    target="kind",
    target_type="string",
    classes=("moss", "fern", "palm"),
    features=(
        NumericFeature("height", "number", mean=1.0, std=2.0, fill=0.5),
        CategoricalFeature("colour", "string", ("red", "green")),
    ),
    sensitive=(),
    architecture=Architecture("mlp", (4,), 0.1, (2,)),
    lineage=Lineage("0" * 64, "1" * 64, 4, 0, "0.1.0", "2"),
    training=Training(1, 1, 4, 0.001, 1, 0.5, False, "cpu"),
    files={},
)
ROWS = pa.table({"height": [1.0, 2.0], "colour": ["red", None], "kind": ["moss", "fern"]})
REQUEST = {"height": [1.0, None, 30.0], "colour": ["red", "violet", None]}


def written(directory: Path, seed: int = 0) -> ModelSpec:
    torch.manual_seed(seed)
    return store.save(directory, DRAFT, build(DRAFT).state_dict(), ROWS)


def test_what_was_saved_is_what_predicts(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = build(DRAFT).eval()
    spec = store.save(tmp_path / "m", DRAFT, network.state_dict(), ROWS)
    predictor = Predictor.load(tmp_path / "m", spec.digest())
    probabilities = predictor.predict_proba(REQUEST)
    direct = network(torch.tensor([[0.0], [-0.25], [10.0]]), torch.tensor([[1], [0], [0]])).double().softmax(dim=1)
    assert probabilities == pytest.approx(direct.detach().numpy(), abs=1e-6)
    assert probabilities.shape == (3, 3)
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    assert predictor.labels(probabilities) == [spec.classes[index] for index in probabilities.argmax(axis=1)]


def test_the_same_model_has_the_same_bytes_and_another_has_not(tmp_path: Path) -> None:
    first, same, other = written(tmp_path / "a"), written(tmp_path / "b"), written(tmp_path / "c", seed=1)
    assert first.digest() == same.digest()
    assert (tmp_path / "a" / SPEC).read_bytes() == (tmp_path / "b" / SPEC).read_bytes()
    assert first.version == same.version != other.version
    assert first.version == modelspec.derived_version((tmp_path / "a" / WEIGHTS).read_bytes())
    assert sorted(os.listdir(tmp_path / "a")) == sorted([SPEC, WEIGHTS, REFERENCE])


def test_the_reference_rows_come_back_without_what_pandas_adds(tmp_path: Path) -> None:
    table = pa.Table.from_pandas(ROWS.to_pandas())
    spec = store.save(tmp_path / "m", DRAFT, build(DRAFT).state_dict(), table)
    rows = store.reference_rows(tmp_path / "m", spec)
    assert rows.to_pydict() == ROWS.to_pydict()
    assert not rows.schema.metadata


def test_an_altered_file_is_refused_by_name(tmp_path: Path) -> None:
    for name in (WEIGHTS, REFERENCE):
        written(tmp_path / "m")
        content = bytearray((tmp_path / "m" / name).read_bytes())
        content[-1] ^= 1
        (tmp_path / "m" / name).write_bytes(content)
        with pytest.raises(ModelError, match=name):
            Predictor.load(tmp_path / "m")


def test_another_model_than_the_expected_is_refused(tmp_path: Path) -> None:
    expected = written(tmp_path / "m").digest()
    found = written(tmp_path / "m", seed=1).digest()
    with pytest.raises(ModelError, match=f"{found}, not {expected}"):
        Predictor.load(tmp_path / "m", expected)


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"no safetensors at all"])
def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    spec = written(tmp_path / "m")
    (tmp_path / "m" / WEIGHTS).write_bytes(content)
    files = {**spec.files, WEIGHTS: modelspec.file_sha256(content)}
    (tmp_path / "m" / SPEC).write_text(dataclasses.replace(spec, files=files).to_json(), encoding="utf-8")
    with pytest.raises(ModelError, match=WEIGHTS):
        Predictor.load(tmp_path / "m")


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "m")
    raw = json.loads((tmp_path / "m" / SPEC).read_text(encoding="utf-8"))
    raw["architecture"]["hidden"] = [5]
    (tmp_path / "m" / SPEC).write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(ModelError, match="does not fit"):
        Predictor.load(tmp_path / "m")


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    state = build(DRAFT).state_dict()
    state["layers.0.weight"][0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"layers\.0\.weight"):
        store.save(tmp_path / "m", DRAFT, state, ROWS)
    assert os.listdir(tmp_path) == []


def test_a_write_that_fails_leaves_what_was_there_and_nothing_beside(tmp_path: Path) -> None:
    before = written(tmp_path / "m")

    def interrupted() -> None:
        with store.written_beside(tmp_path / "m") as beside:
            (beside / WEIGHTS).write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert modelspec.verify(tmp_path / "m", before.digest()) == before
    assert os.listdir(tmp_path) == ["m"]


def test_a_process_killed_while_writing_leaves_nothing_half(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with store.written_beside(tmp_path / "m") as beside:
            (beside / SPEC).write_text("half", encoding="utf-8")
            os._exit(0)
    os.waitpid(child, 0)
    assert not (tmp_path / "m").exists()
    assert Predictor.load(tmp_path / "m", written(tmp_path / "m").digest()).spec.name == "plants"


def test_what_may_not_be_replaced_stays(tmp_path: Path) -> None:
    before = written(tmp_path / "m")
    with pytest.raises(FileExistsError), store.written_beside(tmp_path / "m", replaces=False) as beside:
        (beside / SPEC).write_text("other", encoding="utf-8")
    assert modelspec.verify(tmp_path / "m") == before
    assert os.listdir(tmp_path) == ["m"]


def test_a_faulty_request_is_the_callers_fault(tmp_path: Path) -> None:
    written(tmp_path / "m")
    predictor = Predictor.load(tmp_path / "m")
    with pytest.raises(InputError, match="column height, row 2"):
        predictor.predict_proba({"height": [1.0, "tall"], "colour": ["red", "red"]})
    assert predictor.predict_proba({"height": [], "colour": []}).shape == (0, 3)


def test_many_rows_are_predicted_like_few(tmp_path: Path) -> None:
    written(tmp_path / "m")
    predictor = Predictor.load(tmp_path / "m")
    rows = 20_000  # more than go through the network at once
    many = predictor.predict_proba({"height": np.linspace(-3, 3, rows), "colour": ["red"] * rows})
    few = predictor.predict_proba({"height": [-3.0, 3.0], "colour": ["red", "red"]})
    assert many.shape == (rows, 3)
    assert many[[0, -1]] == pytest.approx(few, abs=1e-6)


def test_a_category_never_trained_on_is_neutral() -> None:
    network = build(DRAFT)
    silence_unseen(network, torch.tensor([[1], [1]]))
    weight = network.embeddings[0].get_parameter("weight")
    assert weight[[0, 2]].abs().sum() == 0
    assert weight[1].abs().sum() > 0


def test_embeddings_grow_slowly() -> None:
    assert [embedding_size(count) for count in (1, 2, 9, 100, 10_000)] == [2, 2, 4, 11, 16]
