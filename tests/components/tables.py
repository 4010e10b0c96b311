"""A small mixed table with real structure to learn, its schema, and how to train on it quickly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.train.settings import Settings
from components.train.training import Trained, train
from kanary.dataschema import TableSchema, load

QUICK = Settings(epochs=4, hidden=(8,), patience=4, batch_size=32)


def schema(classes: int = 2) -> TableSchema:
    """Two numbers, a text and a truth value as features, beside an id and a sensitive column; 2 or 3 classes."""
    return load(
        json.dumps(
            {
                "name": "plants",
                "target": "kind",
                "fields": [
                    {"name": "id", "type": "integer", "role": "id"},
                    {"name": "height", "type": "number"},
                    {"name": "leaves", "type": "integer"},
                    {"name": "colour", "type": "string", "constraints": {"enum": ["red", "green", "blue", "black"]}},
                    {"name": "wild", "type": "boolean"},
                    {"name": "region", "type": "string", "role": "ignored", "sensitive": True},
                    {"name": "kind", "type": "string", "constraints": {"enum": ["moss", "fern", "palm"][:classes]}},
                ],
            }
        )
    )


def columns(rows: int = 240, classes: int = 2, seed: int = 0) -> dict[str, list[Any]]:
    """Rows in which height and colour tell the class; some heights and colours are missing, nobody is `black`."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, classes, rows)
    height = rng.normal(kind * 3.0, 1.0)
    colour = np.where(rng.random(rows) < 0.8, np.array(["red", "green", "blue"])[kind], "red")
    return {
        "id": list(range(rows)),
        "height": [None if rng.random() < 0.05 else float(value) for value in height],
        "leaves": rng.integers(0, 50, rows).tolist(),
        "colour": [None if rng.random() < 0.05 else str(value) for value in colour],
        "wild": (rng.random(rows) < 0.5).tolist(),
        "region": ["north"] * rows,
        "kind": [["moss", "fern", "palm"][index] for index in kind],
    }


def parquet(path: Path, values: dict[str, list[Any]]) -> Path:
    """The columns as a Parquet file."""
    pq.write_table(pa.table(values), path)
    return path


def trained(folder: Path, classes: int = 2, settings: Settings = QUICK, **given: Any) -> tuple[Path, Trained]:
    """A model directory under `folder`, trained in a moment, and how its training went."""
    data = parquet(folder / "train.parquet", columns(classes=classes))
    model = folder / "model"
    return model, train(data, schema(classes), model, "plants", settings=settings, say=lambda line: None, **given)
