from __future__ import annotations

import dataclasses
import inspect
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kfp import dsl

from components.train.component import train as train_component
from components.train.data import reference_rows, stratified
from components.train.fitting import Epoch, class_weights, progress, reproducible
from components.train.report import learning_curve
from components.train.settings import Settings, layer_sizes
from components.train.training import train
from kanary import modelspec
from kanary.errors import DataError, InputError
from serving.model import store
from serving.model.predict import Predictor
from serving.model.preprocess import transform
from tests.components.tables import QUICK, columns, parquet, schema, trained


def test_the_same_seed_gives_the_same_digest_and_another_seed_another(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    torch.manual_seed(1)
    first = trained(folders[0])[1].spec
    torch.manual_seed(2)  # what the process drew before must not matter
    same = trained(folders[1])[1].spec
    other = trained(folders[2], settings=dataclasses.replace(QUICK, seed=1))[1].spec
    assert first.digest() == same.digest()
    assert first.version == same.version != other.version
    assert first.digest() != other.digest()


@pytest.mark.parametrize("classes", [2, 3])
def test_a_model_learns_what_there_is_to_learn(tmp_path: Path, classes: int) -> None:
    settings = dataclasses.replace(QUICK, epochs=40, learning_rate=0.02, patience=10)
    model, _ = trained(tmp_path, classes=classes, settings=settings)
    predictor = Predictor.load(model)
    fresh = columns(rows=300, classes=classes, seed=9)
    labels = predictor.labels(predictor.predict_proba(fresh))
    right = sum(label == kind for label, kind in zip(labels, fresh["kind"], strict=True))
    assert right > 0.8 * 300  # chance is 150; by height alone 280 can be told


def test_the_spec_says_all_that_later_steps_ask(tmp_path: Path) -> None:
    model, result = trained(tmp_path, version="1.2")
    spec = modelspec.verify(model)
    assert spec == result.spec
    assert (spec.name, spec.version, spec.target, spec.classes) == ("plants", "1.2", "kind", ("moss", "fern"))
    assert [(feature.name, feature.kind, feature.type) for feature in spec.features] == [
        ("height", "numeric", "number"),
        ("leaves", "numeric", "integer"),
        ("colour", "categorical", "string"),
        ("wild", "categorical", "boolean"),
    ]
    assert spec.sensitive == ("region",)
    assert spec.lineage.rows == 240
    assert spec.lineage.schema_sha256 == schema().digest()
    assert spec.training.validation_rows == 36
    assert spec.training.best_epoch <= spec.training.epochs == len(result.fit.history)


def test_the_reference_holds_features_and_target_of_a_sample(tmp_path: Path) -> None:
    model, result = trained(tmp_path)
    rows = store.reference_rows(model, result.spec)
    assert rows.column_names == ["height", "leaves", "colour", "wild", "kind"]
    assert rows.num_rows == 240
    big = rows.take(list(range(240)) * 10)
    sample = reference_rows(big, seed=0)
    assert sample.num_rows == 2_000
    assert sample.equals(reference_rows(big, seed=0))
    assert not sample.equals(reference_rows(big, seed=1))


def test_unknown_and_missing_categories_are_served_as_they_were_trained(tmp_path: Path) -> None:
    model, _ = trained(tmp_path)
    predictor = Predictor.load(model)
    rows = {"height": [1.0] * 3, "leaves": [3] * 3, "colour": [None, "violet", "red"], "wild": [True] * 3}
    missing, unknown, known = predictor.predict_proba(rows)
    assert np.array_equal(missing, unknown)
    assert not np.array_equal(missing, known)
    # `black` is in the schema, but no row is: it must say no more than a colour nobody knows
    weight = store.load(model)[1].embeddings[0].get_parameter("weight")
    assert weight[4].abs().sum() == 0
    assert weight[1].abs().sum() > 0


def test_features_are_fitted_without_the_rows_held_out(tmp_path: Path) -> None:
    _, result = trained(tmp_path)
    values = columns()
    target = np.array([["moss", "fern"].index(kind) for kind in values["kind"]])
    kept, held = stratified(target, 2, QUICK.validation_fraction, np.random.default_rng(0))
    assert sorted([*kept, *held]) == list(range(240))
    leaves = result.spec.numeric[1]
    assert leaves.mean == pytest.approx(np.mean(np.array(values["leaves"])[kept]))
    arrays = transform(result.spec.features, values)
    assert arrays.numeric[kept, 1].mean() == pytest.approx(0.0, abs=1e-6)


def test_every_class_is_held_out_in_proportion_but_never_whole() -> None:
    target = np.array([0] * 90 + [1] * 9 + [2])
    kept, held = stratified(target, 4, 0.2, np.random.default_rng(0))
    assert np.bincount(target[held], minlength=3).tolist() == [18, 2, 0]
    assert np.bincount(target[kept], minlength=3).tolist() == [72, 7, 1]
    _, few = stratified(np.array([0, 0, 1, 1]), 2, 0.1, np.random.default_rng(0))
    assert len(few) == 1


def test_training_stops_when_validation_gets_no_better_and_keeps_the_best(tmp_path: Path) -> None:
    settings = dataclasses.replace(QUICK, epochs=200, patience=3, learning_rate=0.1)
    _, result = trained(tmp_path, settings=settings)
    history = result.fit.history
    assert len(history) < 200
    assert len(history) == result.fit.best.number + 3
    assert result.fit.best.validation_loss == min(epoch.validation_loss for epoch in history)


def test_the_weights_written_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    settings = dataclasses.replace(QUICK, epochs=200, patience=3, learning_rate=0.1, dropout=0.5)
    model, result = trained(tmp_path, settings=settings)
    assert result.fit.best.number < len(result.fit.history)
    values = columns()
    target = np.array([["moss", "fern"].index(kind) for kind in values["kind"]])
    _, held = stratified(target, 2, settings.validation_fraction, np.random.default_rng(0))
    given = {name: [column[row] for row in held] for name, column in values.items()}
    probabilities = Predictor.load(model).predict_proba(given)
    loss = -np.log(probabilities[np.arange(len(held)), target[held]]).mean()
    assert loss == pytest.approx(result.spec.training.validation_loss, abs=1e-5)


def test_balancing_raises_the_recall_of_the_rare_class(tmp_path: Path) -> None:
    values = columns(rows=600)
    rare = [row for row, kind in enumerate(values["kind"]) if kind == "moss" or row % 12 == 0]
    data = parquet(tmp_path / "train.parquet", {name: [column[row] for row in rare] for name, column in values.items()})
    recalls = []
    for balanced in (False, True):
        settings = dataclasses.replace(QUICK, epochs=8, balanced=balanced)
        train(data, schema(), tmp_path / "m", "plants", settings=settings, say=lambda line: None)
        predictor = Predictor.load(tmp_path / "m")
        fresh = columns(rows=300, seed=5)
        ferns = [row for row, kind in enumerate(fresh["kind"]) if kind == "fern"]
        found = predictor.predict_proba(fresh)[ferns].argmax(axis=1)
        recalls.append(found.mean())
    assert recalls[1] > recalls[0] + 0.1
    weights = class_weights(torch.tensor([0, 0, 0, 1]), 3)
    assert weights.tolist() == pytest.approx([2 / 3, 2.0, 0.0])


def test_a_loss_that_is_no_number_ends_training_with_a_hint_and_writes_no_model(tmp_path: Path) -> None:
    settings = dataclasses.replace(QUICK, learning_rate=1e38)
    with pytest.raises(InputError, match=r"epoch \d+ is not a number") as caught:
        trained(tmp_path, settings=settings)
    assert "learning_rate" in caught.value.hint
    assert os.listdir(tmp_path) == ["train.parquet"]


def test_progress_is_told_in_few_lines(tmp_path: Path) -> None:
    lines: list[str] = []
    data = parquet(tmp_path / "train.parquet", columns(rows=60))
    settings = dataclasses.replace(QUICK, epochs=40, patience=40)
    train(data, schema(), tmp_path / "m", "plants", settings=settings, say=lines.append)
    assert 10 <= len(lines) <= 16
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert any(line.startswith(f"device {device}") for line in lines)
    shown = progress(Epoch(2, 0.5, 0.25), epochs=100, rows=60, seconds=3.0)
    assert "epoch    2/100  loss 0.5000  validation 0.2500  40 rows/s  147 s left at most" in shown


def test_a_class_without_rows_is_named(tmp_path: Path) -> None:
    lines: list[str] = []
    data = parquet(tmp_path / "train.parquet", columns(rows=60))
    result = train(data, schema(classes=3), tmp_path / "m", "plants", settings=QUICK, say=lines.append)
    assert result.spec.classes == ("moss", "fern", "palm")
    assert any(line.startswith("no row is of palm:") for line in lines)


def test_training_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    before, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.set_num_threads(3)
    trained(tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert torch.are_deterministic_algorithms_enabled() == before
    assert torch.get_num_threads() == 3
    torch.set_num_threads(threads)
    with reproducible(0, torch.device("cpu")):
        assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_the_same_seed_gives_the_same_digest_on_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    model, first = trained(tmp_path)
    _, second = trained(tmp_path / "again")
    assert first.spec.training.device == "cuda"
    assert first.spec.digest() == second.spec.digest()
    on_cpu = Predictor.load(model).predict_proba(columns(seed=4))
    on_gpu = Predictor.load(model, device="cuda").predict_proba(columns(seed=4))
    assert on_gpu == pytest.approx(on_cpu, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"hidden": (8, 0)}, "hidden"),
        ({"dropout": 1.0}, "dropout"),
        ({"patience": 0}, "patience"),
        ({"validation_fraction": 0.0}, "validation_fraction"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Settings(**given)


def test_layer_sizes_arrive_as_floats() -> None:
    assert layer_sizes([64.0, 32]) == (64, 32)
    assert layer_sizes([]) == ()
    for wrong in ([1.5], ["64"], [True], [math.inf], [math.nan]):
        with pytest.raises(InputError, match="hidden"):
            layer_sizes(wrong)


@pytest.mark.parametrize(
    ("name", "version"), [("Plants", ""), ("../plants", ""), ("1st", ""), ("", ""), ("plants", "1/2")]
)
def test_a_name_that_could_leave_its_folder_is_refused(tmp_path: Path, name: str, version: str) -> None:
    data = parquet(tmp_path / "train.parquet", columns(rows=20))
    with pytest.raises(InputError, match="train: the "):
        train(data, schema(), tmp_path / "m", name, version, QUICK)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda values: values.pop("height"), "lacks the columns height"),
        (lambda values: [column.__delitem__(slice(5, None)) for column in values.values()], "has 5 rows"),
        (lambda values: values.update(kind=["moss"] * 20), "one class only"),
        (lambda values: values.update(kind=[None, *values["kind"][1:]]), "column kind, row 1 "),
        (lambda values: values.update(kind=[*values["kind"][1:], "palm"]), "column kind, row 20 .*'palm'"),
        (lambda values: values.update(height=["tall"] * 20), "column height, row 1 "),
    ],
)
def test_data_that_cannot_be_learned_from_are_refused(
    tmp_path: Path, change: Callable[[dict[str, list[Any]]], Any], told: str
) -> None:
    values = columns(rows=20)
    change(values)
    data = parquet(tmp_path / "train.parquet", values)
    with pytest.raises(InputError, match=told):
        train(data, schema(), tmp_path / "m", "plants", settings=QUICK, say=lambda line: None)
    assert not (tmp_path / "m").exists()


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_text("a,b\n1,2\n", encoding="utf-8")
    for path in (tmp_path / "train.parquet", tmp_path / "nothing"):
        with pytest.raises(DataError, match=path.name):
            train(path, schema(), tmp_path / "m", "plants", settings=QUICK)


def test_the_learning_curve_is_one_self_contained_page(tmp_path: Path) -> None:
    _, result = trained(tmp_path)
    text = learning_curve(result)
    assert "Training of plants v-" in text
    assert len(re.findall("<polyline", text)) == 2
    assert "nan" not in text
    assert not re.search(r"<script|<link|src=|href=", text)


def test_the_component_fills_its_artifacts(tmp_path: Path) -> None:
    data = parquet(tmp_path / "train.parquet", columns())
    (tmp_path / "schema.json").write_text(schema().to_json(), encoding="utf-8")
    model = dsl.Model(uri=str(tmp_path / "model"))
    history, curve = dsl.Metrics(uri=str(tmp_path / "history")), dsl.HTML(uri=str(tmp_path / "curve.html"))
    outputs = train_component.python_func(
        train_set=dsl.Dataset(uri=str(data)),
        schema=dsl.Artifact(uri=str(tmp_path / "schema.json")),
        model=model,
        history=history,
        curve=curve,
        name="plants",
        epochs=2,
        hidden=[8.0],
    )
    spec = modelspec.verify(tmp_path / "model", outputs[1])
    assert outputs == (spec.version, spec.digest())
    assert model.metadata == {
        "framework": "pytorch",
        "name": "plants",
        "version": spec.version,
        "digest": spec.digest(),
    }
    assert history.metadata["epochs"] == 2
    assert json.loads(json.dumps(history.metadata, allow_nan=False)) == history.metadata
    assert "<svg" in (tmp_path / "curve.html").read_text(encoding="utf-8")


def test_the_components_defaults_are_those_of_the_settings() -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(train_component.python_func).parameters.items()
        if name in {field.name for field in dataclasses.fields(Settings)}
    }
    expected = dataclasses.asdict(Settings())
    assert defaults == expected | {"hidden": list(expected["hidden"])}
