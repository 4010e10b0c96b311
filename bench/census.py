"""A made-up census table, with numbers, texts and a truth value as features, and a model trained on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kanary.modelspec import ModelSpec

NAME = "census"
_NUMBERS = {"age": (38.0, 13.0), "capital_gain": (1_000.0, 700.0), "capital_loss": (90.0, 40.0), "rent": (800.0, 300.0)}
_WHOLE = {"education_years": (4, 20), "hours_per_week": (5, 80), "children": (0, 6)}
_CATEGORIES = {"work": 8, "education": 16, "marital_status": 7, "occupation": 14, "household": 6, "country": 41}


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows without their target, in the plain values that JSON has."""
    random = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {
        name: np.round(random.normal(mean, std, count), 2).tolist() for name, (mean, std) in _NUMBERS.items()
    }
    columns |= {name: random.integers(low, high, count).tolist() for name, (low, high) in _WHOLE.items()}
    columns |= {
        name: [f"{name}-{number:02d}" for number in random.integers(0, size, count)]
        for name, size in _CATEGORIES.items()
    }
    columns["owns_home"] = (random.random(count) < 0.4).tolist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def train_model(folder: Path) -> tuple[Path, ModelSpec]:
    """A model of the default size in `folder`, trained for some seconds, and its spec."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from components.train.settings import Settings
    from components.train.training import train
    from kanary import dataschema

    table = [row | {"income": _income(row)} for row in rows(4_000, seed=0)]
    data = folder / "train.parquet"
    pq.write_table(pa.Table.from_pylist(table), data)
    schema = dataschema.load(json.dumps(_schema()))
    trained = train(data, schema, folder / "model", NAME, "1", Settings(epochs=5), say=lambda text: None)
    return folder / "model", trained.spec


def _income(row: dict[str, Any]) -> str:
    score = row["education_years"] + row["hours_per_week"] / 5 + row["capital_gain"] / 200 + 3 * row["owns_home"]
    return ">50K" if score - int(row["occupation"][-2:]) > 20 else "<=50K"


def _schema() -> dict[str, Any]:
    kinds = dict.fromkeys(_NUMBERS, "number") | dict.fromkeys(_WHOLE, "integer") | {"owns_home": "boolean"}
    texts = {name: [f"{name}-{number:02d}" for number in range(size)] for name, size in _CATEGORIES.items()}
    texts["income"] = ["<=50K", ">50K"]
    return {
        "name": NAME,
        "target": "income",
        "fields": [
            *({"name": name, "type": kind} for name, kind in kinds.items()),
            *({"name": name, "type": "string", "constraints": {"enum": enum}} for name, enum in texts.items()),
        ],
    }
