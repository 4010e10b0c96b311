from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.ingest.table import ingest_table
from components.validate.dataset import judge, validate_dataset
from kanary.dataschema import load

pytest.importorskip("sklearn", reason="the example's data come with scikit-learn")

EXAMPLE = Path(__file__).parents[2] / "examples" / "breast_cancer"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder the example's script has written to."""
    folder = tmp_path_factory.mktemp("breast_cancer") / "new"
    command = [sys.executable, "-P", str(EXAMPLE / "make_data.py"), str(folder), "--broken"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == [
        str(folder / name) for name in ("breast_cancer.csv", "schema.json", "breast_cancer_broken.csv")
    ]
    return folder


def test_the_examples_data_fit_their_schema(made: Path, tmp_path: Path) -> None:
    schema = load((made / "schema.json").read_text(encoding="utf-8"))
    ingest_table(str(made / "breast_cancer.csv"), tmp_path / "raw.parquet")
    found = validate_dataset(tmp_path / "raw.parquet", schema, tmp_path / "valid.parquet", tmp_path / "report.html")
    assert found.rows == 569
    assert schema.classes == ("benign", "malignant")
    assert len(schema.features) == 30


def test_each_fault_of_the_broken_data_is_found_and_nothing_else(made: Path, tmp_path: Path) -> None:
    schema = load((made / "schema.json").read_text(encoding="utf-8"))
    ingest_table(str(made / "breast_cancer_broken.csv"), tmp_path / "raw.parquet")
    broken = [check for check in judge(tmp_path / "raw.parquet", schema).checks if not check.passed]
    assert {(check.column, check.expectation, check.rows) for check in broken} == {
        ("mean_radius", "at least 0", (5,)),
        ("worst_area", "a value in every row", (12,)),
        ("diagnosis", "one of 'benign', 'malignant'", (20,)),
        ("id", "no primary key twice", (32, 33)),
        ("mean_texture", "a finite number", (47,)),
        ("mean_smoothness", "at most 1", (60,)),
        ("mean_smoothness", "a finite number", (61,)),
    }


def test_the_examples_gates_are_bounds_of_metrics() -> None:
    gates = json.loads((EXAMPLE / "gates.json").read_text(encoding="utf-8"))
    assert set(gates) == {"accuracy", "auc", "log_loss"}
    assert all(set(bounds) <= {"min", "max"} and bounds for bounds in gates.values())
