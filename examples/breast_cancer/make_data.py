"""Writes scikit-learn's breast-cancer data as CSV with a table schema: what the training pipeline starts from.

    python examples/breast_cancer/make_data.py OUT_DIR [--broken]

breast_cancer.csv and schema.json; with --broken breast_cancer_broken.csv besides, which violates the schema.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

# Of each measure, what a cell nucleus can show at the most (lengths in pixels of the digitised image).
MAXIMA = {
    "radius": 60.0,
    "texture": 100.0,
    "perimeter": 400.0,
    "area": 8000.0,
    "smoothness": 1.0,
    "compactness": 3.0,
    "concavity": 3.0,
    "concave_points": 1.0,
    "symmetry": 1.5,
    "fractal_dimension": 0.5,
}
CLASSES = ("benign", "malignant")  # the last is the positive class: what a screening must not miss

# Faults as they happen in practice: data row (from 1), column, what stands there instead.
FAULTS = (
    (5, "mean_radius", "-20.29"),
    (12, "worst_area", ""),
    (20, "diagnosis", "unclear"),
    (33, "id", "case-032"),
    (47, "mean_texture", "21,6"),
    (60, "mean_smoothness", "11.84"),
    (61, "mean_smoothness", "NaN"),
)


def main() -> int:
    """Writes the files and names them; 1 where scikit-learn is missing."""
    parser = argparse.ArgumentParser(description="Write scikit-learn's breast-cancer data as CSV with a table schema.")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--broken", action="store_true", help="also write a CSV file that violates the schema")
    arguments = parser.parse_args()
    try:
        names, rows = read_rows()
    except ModuleNotFoundError:
        print("the data come with scikit-learn: pip install scikit-learn", file=sys.stderr)
        return 1
    arguments.out_dir.mkdir(parents=True, exist_ok=True)
    written = [write_csv(arguments.out_dir / "breast_cancer.csv", names, rows)]
    written.append(arguments.out_dir / "schema.json")
    written[-1].write_text(json.dumps(schema(names), indent=2) + "\n", encoding="utf-8")
    if arguments.broken:
        written.append(write_csv(arguments.out_dir / "breast_cancer_broken.csv", names, break_rows(names, rows)))
    print("\n".join(str(path) for path in written))
    return 0


def read_rows() -> tuple[list[str], list[list[str]]]:
    """Column names and 569 rows: a case number, 30 measures, the diagnosis."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = ["id", *(str(name).replace(" ", "_") for name in data.feature_names), "diagnosis"]
    rows = [
        [f"case-{number:03}", *(repr(float(value)) for value in values), str(data.target_names[target])]
        for number, (values, target) in enumerate(zip(data.data, data.target, strict=True), 1)
    ]
    return names, rows


def break_rows(names: list[str], rows: list[list[str]]) -> list[list[str]]:
    """The rows with FAULTS in them."""
    broken = [list(row) for row in rows]
    for row, column, value in FAULTS:
        broken[row - 1][names.index(column)] = value
    return broken


def schema(names: list[str]) -> dict[str, Any]:
    """The table schema: a unique case number, measures within their ranges, one of two diagnoses."""
    measures = [
        {
            "name": name,
            "type": "number",
            "constraints": {"required": True, "minimum": 0, "maximum": MAXIMA[measure(name)]},
        }
        for name in names[1:-1]
    ]
    return {
        "name": "breast-cancer",
        "title": "Breast Cancer Wisconsin (Diagnostic)",
        "target": "diagnosis",
        "primaryKey": ["id"],
        "fields": [
            {"name": "id", "type": "string", "role": "id"},
            *measures,
            {"name": "diagnosis", "type": "string", "constraints": {"required": True, "enum": list(CLASSES)}},
        ],
    }


def measure(name: str) -> str:
    """What a column measures: mean_radius, radius_error and worst_radius are all of the radius."""
    return name.removeprefix("mean_").removeprefix("worst_").removesuffix("_error")


def write_csv(path: Path, names: list[str], rows: list[list[str]]) -> Path:
    """Writes a header and rows."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([names, *rows])
    return path


if __name__ == "__main__":
    sys.exit(main())
