"""A validated dataset in two Parquet files, for training and for testing, each with the hash of what it came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.content import ContentHash, content_hash, read_table, write_table
from components.split.rows import Rows, random_rows, time_rows
from kanary.dataschema import TableSchema
from kanary.errors import DataError, InputError

WAYS = ("random", "time")

_BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class Part:
    """One part: its rows, rows of each class, content hash (components.content) and that of the whole."""

    rows: int
    classes: dict[str, int]
    sha256: str
    parent_sha256: str

    def metadata(self) -> dict[str, Any]:
        """For the dataset artifact: plain JSON values."""
        figures = {"rows": self.rows, "classes": self.classes}
        return figures | {"sha256": self.sha256, "parent_sha256": self.parent_sha256}


def split_dataset(
    dataset: Path,
    schema: TableSchema,
    train_set: Path,
    test_set: Path,
    *,
    test_fraction: float = 0.2,
    seed: int = 0,
    by: str = "random",
) -> tuple[Part, Part]:
    """Writes the training and the test part of a validated Parquet file.

    by="random": stratified by the target, rows in their order, the same for the same seed. by="time": the latest
    rows are tested, rows in time order. InputError for a wrong argument, or a schema without a time field where one
    is needed; DataError when the rows cannot be parted so.
    """
    _check_arguments(schema, test_fraction, seed, by)
    table = read_table(dataset).combine_chunks()
    if len(table) < 2:
        raise DataError(f"{dataset} has {len(table)} rows, too few to part")
    if by == "time":
        train_rows, test_rows = time_rows(_times(table, schema), test_fraction)
    else:
        train_rows, test_rows = random_rows(_class_codes(table, schema.target), test_fraction, seed)
    parent = content_hash(table)
    return _write(table, train_rows, train_set, schema, parent), _write(table, test_rows, test_set, schema, parent)


def _check_arguments(schema: TableSchema, test_fraction: float, seed: int, by: str) -> None:
    if by not in WAYS:
        raise InputError(f"rows cannot be split by {by!r}", "give random or time")
    if not 0 < test_fraction < 1:
        raise InputError(f"test_fraction is {test_fraction}", "give a number between 0 and 1, both excluded")
    if seed < 0:
        raise InputError(f"seed is {seed}", "give 0 or a positive number")
    if by == "time" and schema.time is None:
        raise InputError(
            f"the schema {schema.name!r} has no time field", 'give one field "role": "time", or split at random'
        )


def _class_codes(table: pa.Table, target: str) -> Rows:
    codes: Rows = _complete(table, target).dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _times(table: pa.Table, schema: TableSchema) -> Any:
    assert schema.time is not None
    column = _complete(table, schema.time.name)
    if pa.types.is_string(column.type):
        raise DataError(f"column {schema.time.name!r} holds text", "split what the validate step wrote")
    return (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_numpy(zero_copy_only=False)


def _complete(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        raise DataError(f"there is no column {name!r}", "split what the validate step wrote")
    column = pa.concat_arrays(table.column(name).chunks)
    if column.null_count:
        at = np.flatnonzero(pc.is_null(column).to_numpy(zero_copy_only=False))
        named = ", ".join(str(row + 1) for row in at[:5])
        raise DataError(f"column {name!r} is empty in {len(at)} rows, so they cannot be placed: {named}")
    return column


def _write(table: pa.Table, rows: Rows, path: Path, schema: TableSchema, parent: str) -> Part:
    content = ContentHash(table.schema)
    write_table(path, table.schema, _taken(table, rows, content))
    target = table.column(schema.target).take(pa.array(rows))
    counted = {str(item["values"]): item["counts"] for item in pc.value_counts(target).to_pylist()}
    classes = {str(name): counted.get(str(name), 0) for name in schema.classes}
    return Part(len(rows), classes, content.hexdigest(), parent)


def _taken(table: pa.Table, rows: Rows, content: ContentHash) -> Iterator[pa.RecordBatch]:
    """The rows in batches, so that a part is never in memory whole beside the table."""
    for start in range(0, len(rows), _BATCH_ROWS):
        for batch in table.take(pa.array(rows[start : start + _BATCH_ROWS])).combine_chunks().to_batches():
            content.update(batch)
            yield batch
