"""Two Parquet files as tables that drift tests read: the columns they share, typed by what the reference holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.content import canonical_batches, open_parquet
from kanary.errors import DataError, InputError
from serving.drift.table import Column, Floats, Table

MOST_CATEGORIES = 50
LEAST_ROWS = 20


@dataclass(frozen=True)
class Feature:
    """A column that is compared. `categories` are its values as text, from index 1; empty for numbers. Missing is 0."""

    name: str
    categories: tuple[str, ...]
    missing: tuple[int, int]  # rows without a value: reference, current


@dataclass(frozen=True)
class Pair:
    """Both sides with the same columns; `left_out` says of each other column why it is not compared."""

    features: tuple[Feature, ...]
    reference: Table
    current: Table
    left_out: tuple[tuple[str, str], ...]


def pair(reference: Path, current: Path, columns: Sequence[str] = ()) -> Pair:
    """The columns that both files have, or those named. InputError for a named one that lacks, or for too few rows.

    Numbers are filled with the reference's median. A text column is a category if it has few values; others, and times,
    are left out.
    """
    left, right = _read(reference, "the reference"), _read(current, "the current data")
    for table, what in ((left, "the reference"), (right, "the current data")):
        if lacking := [name for name in columns if name not in table.column_names]:
            raise InputError(f"{what} lacks {', '.join(lacking[:5])}", f"it has {', '.join(table.column_names)}")
        if len(table) < LEAST_ROWS:
            raise InputError(f"{what} has {len(table)} rows", f"at least {LEAST_ROWS} are needed")
    features, kept, left_out = [], [], []
    for name in columns or left.column_names:
        if name not in right.column_names:
            left_out.append((name, "the current data do not have it"))
            continue
        found = _compared(name, left.column(name), right.column(name))
        if isinstance(found, str):
            left_out.append((name, found))
        else:
            features.append(found[0])
            kept.append(found[1:])
    left_out += [
        (name, "the reference does not have it") for name in right.column_names if name not in left.column_names
    ]
    if not features:
        raise InputError("there is no column that can be compared", "; ".join(f"{n}: {why}" for n, why in left_out[:5]))
    named = tuple(Column(one.name, len(one.categories) + 1 if one.categories else 0) for one in features)
    sides = [Table(named, np.stack([one[side] for one in kept], axis=1)) for side in (0, 1)]
    return Pair(tuple(features), sides[0], sides[1], tuple(left_out))


def _compared(name: str, left: pa.ChunkedArray, right: pa.ChunkedArray) -> tuple[Feature, Floats, Floats] | str:
    """The feature with both sides' values, or why it is left out."""
    if left.type != right.type and not (_is_number(left.type) and _is_number(right.type)):
        return f"{left.type} here, {right.type} there"
    if _is_number(left.type):
        one, two = _numbers(left), _numbers(right)
        missing = (int(np.isnan(one).sum()), int(np.isnan(two).sum()))
        if missing[0] == len(one):
            return "the reference has no value in it"
        fill = float(np.nanmedian(one))
        return Feature(name, (), missing), np.nan_to_num(one, nan=fill), np.nan_to_num(two, nan=fill)
    if not (pa.types.is_string(left.type) or pa.types.is_boolean(left.type)):
        return f"{left.type} is neither number nor category"
    values = [[None if value in (None, "") else str(value) for value in side.to_pylist()] for side in (left, right)]
    known = sorted({value for value in values[0] if value is not None})
    if len(known) > MOST_CATEGORIES:
        return f"more than {MOST_CATEGORIES} different texts"
    # What only the current side has is one category more: new, whatever it is.
    index: dict[str | None, int] = {None: 0} | {value: at for at, value in enumerate(known, 1)}
    coded = [np.array([index.get(value, len(known) + 1) for value in side], dtype=np.float64) for side in values]
    feature = Feature(name, (*known, "(new)"), (values[0].count(None), values[1].count(None)))
    return feature, coded[0], coded[1]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _numbers(column: pa.ChunkedArray) -> Floats:
    found: Any = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
    values: Floats = np.where(np.isfinite(found), found, np.nan)
    return values


def _read(path: Path, shown: str) -> pa.Table:
    with open_parquet(path, shown) as file:
        batches = list(canonical_batches(file, shown))
    if not batches:
        raise DataError(f"{shown} has no rows")
    return pa.Table.from_batches(batches)
