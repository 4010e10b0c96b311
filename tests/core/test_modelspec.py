from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kanary import modelspec
from kanary.errors import ModelError
from kanary.modelspec import REFERENCE, SPEC, WEIGHTS

BYTES = {WEIGHTS: b"weights", REFERENCE: b"rows"}


def document() -> dict[str, Any]:
    """A valid model.json as plain JSON."""
    return {
        "format": "kanary/2",
        "name": "iris",
        "version": "1.0",
        "target": "kind",
        "target_type": "string",
        "classes": ["a", "b"],
        "features": [
            {
                "kind": "numeric",
                "name": "width",
                "type": "number",
                "mean": 1.5,
                "std": 2,
                "fill": 1.0,
                "required": True,
            },
            {
                "kind": "categorical",
                "name": "soil",
                "type": "string",
                "categories": ["clay", "säure"],
                "required": False,
            },
        ],
        "sensitive": ["soil"],
        "architecture": {"kind": "mlp", "hidden": [8], "dropout": 0.1, "embeddings": [2]},
        "lineage": {
            "data_sha256": "0" * 64,
            "schema_sha256": "1" * 64,
            "rows": 10,
            "seed": 0,
            "code_version": "0.1.0",
            "torch": "2.13.0",
        },
        "training": {
            "epochs": 3,
            "best_epoch": 2,
            "batch_size": 4,
            "learning_rate": 0.001,
            "validation_rows": 2,
            "validation_loss": 0.5,
            "balanced": False,
            "device": "cpu",
        },
        "files": {name: modelspec.file_sha256(content) for name, content in BYTES.items()},
    }


def directory(path: Path) -> Path:
    """A model directory whose files are those its spec names."""
    path.mkdir()
    for name, content in BYTES.items():
        (path / name).write_bytes(content)
    (path / SPEC).write_text(json.dumps(document()), encoding="utf-8")
    return path


def changed(change: Callable[[dict[str, Any]], Any]) -> str:
    raw = copy.deepcopy(document())
    change(raw)
    return json.dumps(raw)


def test_a_spec_survives_being_written_and_read() -> None:
    spec = modelspec.parse(json.dumps(document()))
    assert modelspec.parse(spec.to_json()) == spec
    assert [feature.name for feature in spec.features] == ["width", "soil"]
    assert [feature.name for feature in spec.numeric] == ["width"]
    assert [feature.name for feature in spec.categorical] == ["soil"]


def test_the_digest_is_of_the_content_and_not_of_its_spelling() -> None:
    spec = modelspec.parse(json.dumps(document()))
    respelt = json.dumps(dict(reversed(document().items())), indent=7, ensure_ascii=False)
    assert modelspec.parse(respelt).digest() == spec.digest()
    other = modelspec.parse(changed(lambda raw: raw["lineage"].update(seed=1)))
    assert other.digest() != spec.digest()
    assert modelspec.parse(spec.to_json()).digest() == spec.digest()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda raw: raw.update(format="kanary/9"), "kanary/9"),
        (lambda raw: raw.pop("classes"), "classes missing"),
        (lambda raw: raw.update(colour="red"), "colour unknown"),
        (lambda raw: raw["lineage"].update(rows="10"), "lineage.rows"),
        (lambda raw: raw["lineage"].update(rows=True), "lineage.rows"),
        (lambda raw: raw["features"][0].update(std=0), "features.width.std"),
        (lambda raw: raw["features"][0].pop("kind"), "kind missing"),
        (lambda raw: raw["features"][1].update(kind="text"), "features[1]"),
        (lambda raw: raw["features"][1].update(name="width"), "one name stands twice"),
        (lambda raw: raw["features"][1].update(categories=["clay", "clay"]), "features.soil.categories"),
        (lambda raw: raw["features"][1].update(type="integer"), "one is no integer"),
        (lambda raw: raw.update(features=[]), "there are none"),
        (lambda raw: raw.update(target="width"), "the target 'width'"),
        (lambda raw: raw.update(classes=["a"]), "at least two"),
        (lambda raw: raw.update(classes=["a", "a"]), "classes: one stands twice"),
        (lambda raw: raw.update(classes="ab"), "classes: expected a list"),
        (lambda raw: raw.update(name="../iris"), "name '../iris'"),
        (lambda raw: raw.update(version="1/../../2"), "version"),
        (lambda raw: raw.update(version=".."), "version"),
        (lambda raw: raw["files"].update({"../model.pkl": "0" * 64}), "files must name exactly"),
        (lambda raw: raw["files"].pop(WEIGHTS), "files must name exactly"),
        (lambda raw: raw["files"].update({WEIGHTS: "abc"}), "64 hex digits"),
        (lambda raw: raw["architecture"].update(embeddings=[]), "architecture.embeddings"),
        (lambda raw: raw["architecture"].update(hidden=[0]), "sizes"),
        (lambda raw: raw["architecture"].update(dropout=1.0), "dropout"),
        (lambda raw: raw["architecture"].update(kind="tree"), "architecture.kind"),
    ],
)
def test_a_spec_that_cannot_be_is_refused_by_its_place(change: Callable[[dict[str, Any]], Any], told: str) -> None:
    with pytest.raises(ModelError) as caught:
        modelspec.parse(changed(change))
    assert told in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "[" * 100_000,
        json.dumps(document()).replace("1.5", "NaN"),
        json.dumps(document()).replace("1.5", "Infinity"),
        json.dumps(document()).replace("1.5", "1e999"),
        json.dumps(document()).replace("1.5", "9" * 400),
        json.dumps(document()).replace('"name": "iris"', '"name": "iris", "name": "rose"'),
    ],
)
def test_text_that_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(ModelError):
        modelspec.parse(text)


def test_a_directory_that_is_whole_is_verified(tmp_path: Path) -> None:
    model = directory(tmp_path / "model")
    spec = modelspec.verify(model, modelspec.digest(model))
    assert spec.name == "iris"
    assert modelspec.read_file(model, spec, WEIGHTS) == b"weights"


@pytest.mark.parametrize("name", [WEIGHTS, REFERENCE])
def test_an_altered_or_missing_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    model = directory(tmp_path / "model")
    (model / name).write_bytes(b"other")
    with pytest.raises(ModelError, match=f"{name} was altered"):
        modelspec.verify(model)
    (model / name).unlink()
    with pytest.raises(ModelError, match=f"{name} cannot be read"):
        modelspec.verify(model)


def test_an_altered_spec_is_refused_where_the_digest_is_known(tmp_path: Path) -> None:
    model = directory(tmp_path / "model")
    expected = modelspec.digest(model)
    (model / SPEC).write_text(changed(lambda raw: raw["classes"].reverse()), encoding="utf-8")
    with pytest.raises(ModelError, match=expected):
        modelspec.verify(model, expected)


def test_a_file_that_is_no_part_of_the_model_changes_nothing(tmp_path: Path) -> None:
    model = directory(tmp_path / "model")
    before = modelspec.digest(model)
    (model / "release.json").write_text("{}", encoding="utf-8")
    assert modelspec.verify(model, before).digest() == before


def test_a_version_is_derived_from_the_weights() -> None:
    assert modelspec.derived_version(b"weights") == "v-" + modelspec.file_sha256(b"weights")[:12]
    assert modelspec.VERSION.fullmatch(modelspec.derived_version(b"other"))
