"""The training table: read, split inside training, features fitted, rows kept for drift. Draws only from its seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from kanary.dataschema import Field, TableSchema
from kanary.errors import DataError
from kanary.modelspec import CategoricalFeature, Feature
from serving.model.preprocess import category_text, fit_numeric

if TYPE_CHECKING:
    import pyarrow as pa

REFERENCE_ROWS = 2_000
MINIMUM_ROWS = 10

Rows = npt.NDArray[np.int64]


def read(path: Path, schema: TableSchema) -> tuple[pa.Table, str]:
    """A Parquet file's features and target in schema order, and the content hash of the whole file.

    DataError where it is no Parquet file, lacks a column, or has too few rows to learn from.
    """
    from components.content import content_hash, read_table

    table = read_table(path)
    wanted = [*(field.name for field in schema.features), schema.target]
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}", "train on what the split step wrote")
    if len(table) < MINIMUM_ROWS:
        raise DataError(f"{path} has {len(table)} rows", f"training takes {MINIMUM_ROWS} at least")
    return table.select(wanted), content_hash(table)


def columns_of(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """Every column as numpy: missing numbers as NaN, missing texts and truth values as None."""
    return {name: column.to_numpy() for name, column in zip(table.column_names, table.columns, strict=True)}


def stratified(target: Rows, classes: int, fraction: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows to fit and rows to stop by, each sorted: `fraction` of every class held out, never all of one.

    DataError where fewer than two classes occur, for then there is nothing to tell apart.
    """
    counts = np.bincount(target, minlength=classes)
    if (counts > 0).sum() < 2:
        raise DataError("the training rows hold one class only", "give rows of two classes at least")
    shuffled = [rng.permutation(np.flatnonzero(target == index)) for index in range(classes)]
    held_counts = np.minimum(np.round(counts * fraction), np.maximum(counts - 1, 0)).astype(np.int64)
    if not held_counts.any():
        held_counts[counts.argmax()] = 1
    held = np.concatenate([rows[:count] for rows, count in zip(shuffled, held_counts, strict=True)])
    kept = np.concatenate([rows[count:] for rows, count in zip(shuffled, held_counts, strict=True)])
    return np.sort(kept), np.sort(held)


def fit_feature(field: Field, values: npt.NDArray[Any]) -> Feature:
    """The feature of one schema field, fitted to the rows given. Categories come from the schema, not from the rows."""
    if field.categorical:
        categories = tuple(category_text(value) for value in field.categories)
        return CategoricalFeature(field.name, cast(Any, field.type), categories, field.required)
    return fit_numeric(field.name, cast(Any, field.type), values, field.required)


def reference_rows(table: pa.Table, seed: int) -> pa.Table:
    """A random sample of at most REFERENCE_ROWS rows, in their order, the same for the same seed."""
    rng = np.random.default_rng([seed, 1])  # a stream of its own: the sample must not follow the split
    count = min(len(table), REFERENCE_ROWS)
    return table.take(np.sort(rng.choice(len(table), count, replace=False))).combine_chunks()
