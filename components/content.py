"""The content of a table: the few column types Kanary knows, and a hash that does not depend on how rows are stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.files import replacing
from kanary.errors import DataError

MOMENT = pa.timestamp("us", tz="UTC")


def canonical_type(kind: pa.DataType, column: str) -> pa.DataType:
    """The type a column is kept in: string, int64, float64, bool or a UTC timestamp in microseconds.

    DataError for what has no place in a table of rows and columns (lists, structs, bytes, times of day).
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view() or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_boolean(kind):
        return pa.bool_()
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return MOMENT
    raise DataError(f"column {column!r} holds {kind}, which is neither number, text, boolean nor time")


def canonical(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with every column in its canonical type: a time without zone is UTC, decimals become the nearest float.

    DataError when an integer does not fit into 64 bits with a sign.
    """
    columns, fields = [], []
    for index, field in enumerate(batch.schema):
        wanted = canonical_type(field.type, field.name)
        columns.append(_cast(batch.column(index), wanted, field.name))
        fields.append(pa.field(field.name, wanted))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _cast(column: pa.Array, wanted: pa.DataType, name: str) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # Unsafe only where exactness is given up knowingly: decimals to floats, nanoseconds to microseconds.
    safe = wanted not in (MOMENT, pa.float64())
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    try:
        return column.cast(wanted, safe=safe)
    except pa.ArrowInvalid as error:
        raise DataError(f"column {name!r}: {error}") from error


class ContentHash:
    """SHA-256 over column names, canonical types and values in order, fed batch by batch.

    It does not depend on file format, compression, encoding, row groups or the size of batches. A CSV file holds
    only text, so data kept as CSV and the same data kept as typed Parquet are different content.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows = 0
        self._values = [hashlib.sha256() for _ in schema]
        self._marks = [hashlib.sha256() for _ in schema]

    def update(self, batch: pa.RecordBatch) -> None:
        """Adds rows, in canonical types."""
        self._rows += batch.num_rows
        for column, values, marks in zip(batch.columns, self._values, self._marks, strict=True):
            if pa.types.is_string(column.type):
                # The length of every value (-1: null) beside all their bytes: no two columns look alike.
                lengths = pc.fill_null(pc.binary_length(column), -1).to_numpy(zero_copy_only=False)
                marks.update(lengths.astype("<i8").tobytes())
                values.update(_text_bytes(column))
            else:
                marks.update(column.is_valid().to_numpy(zero_copy_only=False).astype("u1").tobytes())
                values.update(_number_bytes(column))

    def hexdigest(self) -> str:
        """The hash of all rows so far, 64 hexadecimal digits."""
        columns = [
            [field.name, str(field.type), values.hexdigest(), marks.hexdigest()]
            for field, values, marks in zip(self._schema, self._values, self._marks, strict=True)
        ]
        return hashlib.sha256(json.dumps(["kanary-table/1", self._rows, columns]).encode("utf-8")).hexdigest()


def _text_bytes(column: pa.Array) -> bytes:
    filled = pc.fill_null(column, "").cast(pa.large_binary())
    _, offsets, data = filled.buffers()
    if data is None:
        return b""
    bounds = np.frombuffer(offsets, dtype=np.int64)[filled.offset : filled.offset + len(filled) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]].tobytes()


def _number_bytes(column: pa.Array) -> bytes:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_boolean(column.type):
        flags: npt.NDArray[np.bool_] = pc.fill_null(column, False).to_numpy(zero_copy_only=False)
        return flags.astype("u1").tobytes()
    values: npt.NDArray[Any] = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), np.nan, values)  # one bit pattern for every NaN
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def content_hash(table: pa.Table) -> str:
    """The content hash of a table in canonical types, 64 hexadecimal digits."""
    content = ContentHash(table.schema)
    for batch in table.to_batches():
        content.update(batch)
    return content.hexdigest()


def write_table(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Writes one Parquet file, whole or not at all."""
    with replacing(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def read_table(path: Path) -> pa.Table:
    """All rows of a Parquet file in canonical types. DataError when it is not one."""
    with open_parquet(path, str(path)) as file:
        batches = list(canonical_batches(file, str(path)))
        fields = [pa.field(field.name, canonical_type(field.type, field.name)) for field in file.schema_arrow]
    return pa.Table.from_batches(batches, schema=pa.schema(fields))


def read_column(file: pq.ParquetFile, name: str, shown: str) -> pa.Array:
    """One column of an open Parquet file in its canonical type. DataError when its pages cannot be read."""
    try:
        batches = file.read(columns=[name]).select([name]).to_batches()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shown}: the Parquet file is damaged: {error}") from error
    kind = canonical_type(file.schema_arrow.field(name).type, name)
    return pa.concat_arrays([pa.array([], type=kind), *(_whole(batch, shown).column(0) for batch in batches)])


def open_parquet(path: Path, shown: str) -> pq.ParquetFile:
    """A Parquet file, open. DataError when it is not one; `shown` names it there."""
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shown} is not a Parquet file: {error}") from error


def canonical_batches(file: pq.ParquetFile, shown: str, rows: int = 1 << 16) -> Iterator[pa.RecordBatch]:
    """The file's rows in batches, in canonical types. DataError when its pages cannot be read."""
    try:
        for batch in file.iter_batches(batch_size=rows):
            yield _whole(batch, shown)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shown}: the Parquet file is damaged: {error}") from error


def _whole(batch: pa.RecordBatch, shown: str) -> pa.RecordBatch:
    try:
        batch.validate(full=True)  # Parquet promises UTF-8 and does not check it
    except pa.ArrowInvalid as error:
        raise DataError(f"{shown}: the Parquet file is damaged: {error}") from error
    return canonical(batch)
