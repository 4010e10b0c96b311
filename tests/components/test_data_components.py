"""The KFP side of ingest, validate and split: each runs as kfp runs it, from its own source alone."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from kfp import compiler
from kfp.dsl import HTML, Artifact, Dataset

from components.images import image
from components.ingest.component import ingest
from components.preflight.component import preflight
from components.split.component import split
from components.validate.component import validate
from kanary.errors import DataError

SCHEMA = {
    "name": "things",
    "target": "label",
    "fields": [
        {"name": "size", "type": "number", "constraints": {"required": True, "minimum": 0}},
        {"name": "label", "type": "string", "constraints": {"enum": ["no", "yes"]}},
    ],
}


def compiled(component: Any, folder: Path) -> dict[str, Any]:
    compiler.Compiler().compile(component, str(folder / "component.yaml"))
    document: dict[str, Any] = yaml.safe_load((folder / "component.yaml").read_text(encoding="utf-8"))
    (executor,) = document["deploymentSpec"]["executors"].values()
    container: dict[str, Any] = executor["container"]
    return container


def as_kfp_runs_it(component: Any, folder: Path) -> Callable[..., Any]:
    """The component's function, loaded from the source that stands in the compiled YAML and from nothing else."""
    container = compiled(component, folder)
    path = folder / "ephemeral_component.py"
    path.write_text(container["command"][-1], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("ephemeral_component", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., Any] = getattr(module, component.name)
    return function


def artifact(kind: type[Any], path: Path) -> Any:
    return kind(name=path.name, uri=str(path), metadata={})


@pytest.fixture
def schema_path(tmp_path: Path) -> str:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    return str(tmp_path / "schema.json")


def write_csv(path: Path, *sizes: str) -> str:
    lines = [f"{size},{label}" for size, label in zip(sizes, ["no", "yes"] * len(sizes), strict=False)]
    path.write_text("\n".join(["size,label", *lines]), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("component", [ingest, preflight, validate, split])
def test_a_component_compiles_to_its_image_and_installs_nothing(component: Any, tmp_path: Path) -> None:
    container = compiled(component, tmp_path)
    assert container["image"] == image("pipeline")
    assert "pip install" not in " ".join(container["command"])


def test_data_flow_from_ingest_over_validate_to_split(tmp_path: Path, schema_path: str) -> None:
    uri = write_csv(tmp_path / "data.csv", *map(str, range(20)))
    dataset, profile = artifact(Dataset, tmp_path / "dataset"), artifact(HTML, tmp_path / "profile")
    rows, sha256 = as_kfp_runs_it(ingest, tmp_path)(uri=uri, dataset=dataset, profile=profile, format="")
    assert rows == dataset.metadata["rows"] == 20
    assert sha256 == dataset.metadata["sha256"]
    assert dataset.metadata["profile"]["size"]["maximum"] == 19.0
    assert "size" in Path(profile.path).read_text(encoding="utf-8")

    valid, report = artifact(Dataset, tmp_path / "valid"), artifact(HTML, tmp_path / "report")
    schema = artifact(Artifact, tmp_path / "schema")
    rows, checks = as_kfp_runs_it(validate, tmp_path)(
        dataset=dataset, schema_uri=schema_path, validated=valid, report=report, schema=schema
    )
    assert (rows, checks) == (20, 10)
    assert valid.metadata["parent_sha256"] == sha256
    assert valid.metadata["schema_sha256"] == schema.metadata["sha256"]

    train, test = artifact(Dataset, tmp_path / "train"), artifact(Dataset, tmp_path / "test")
    train_rows, test_rows = as_kfp_runs_it(split, tmp_path)(
        dataset=valid, schema=schema, train_set=train, test_set=test, test_fraction=0.2, seed=1, by="random"
    )
    assert (train_rows, test_rows) == (16, 4)
    assert train.metadata["parent_sha256"] == test.metadata["parent_sha256"] == valid.metadata["sha256"]
    assert (test.metadata["part"], test.metadata["classes"]) == ("test", {"no": 2, "yes": 2})
    assert pq.read_table(test.path).num_rows == 4
    for each in (dataset, valid, train, test):
        json.dumps(each.metadata, allow_nan=False)


def test_a_violation_fails_the_step_after_its_report_is_written(
    tmp_path: Path, schema_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = write_csv(tmp_path / "data.csv", "1", "2", "-3", "4")
    dataset = artifact(Dataset, tmp_path / "dataset")
    ingest.python_func(uri=uri, dataset=dataset, profile=artifact(HTML, tmp_path / "profile"))
    outputs = {
        "validated": artifact(Dataset, tmp_path / "valid"),
        "report": artifact(HTML, tmp_path / "report"),
        "schema": artifact(Artifact, tmp_path / "schema"),
    }
    with pytest.raises(SystemExit) as left:
        validate.python_func(dataset=dataset, schema_uri=schema_path, **outputs)
    assert left.value.code == 2
    assert isinstance(left.value.__cause__, DataError)
    assert "column 'size': expected at least 0; broken in 1 row: 3 ('-3')" in capsys.readouterr().err
    assert "not valid" in (tmp_path / "report").read_text(encoding="utf-8")
    assert not (tmp_path / "valid").exists()
