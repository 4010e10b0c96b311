"""Rows of a data set as prediction requests: the model's features only, each value of its type. Reads, never sends."""

from __future__ import annotations

import csv
import importlib
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanary.dataschema import TableSchema
from kanary.errors import InputError, MissingExtra

_TRUE, _FALSE = ("true", "1"), ("false", "0")


@dataclass(frozen=True)
class Column:
    """One feature: its name, and what its values are (number, integer, string or boolean)."""

    name: str
    type: str


@dataclass(frozen=True)
class Rows:
    """Requests' bodies, ready to be sent, one row each. `left_out` rows had a missing or unreadable feature.

    `labels` are the rows' true classes as model.json spells them, where a target was asked for.
    """

    bodies: tuple[bytes, ...]
    left_out: int
    labels: tuple[str, ...] = ()


def from_schema(schema: TableSchema) -> tuple[Column, ...]:
    """The features of a table schema; its target, ids and ignored columns are none."""
    return tuple(Column(entry.name, entry.type) for entry in schema.features)


def from_metadata(metadata: Mapping[str, Any]) -> tuple[Column, ...]:
    """The features that a model says it takes (V2 model metadata: one tensor each). Raises InputError."""
    kinds = {"BYTES": "string", "BOOL": "boolean"}
    found = []
    for entry in metadata.get("inputs") or []:
        datatype = str(entry.get("datatype") or "")
        default = "integer" if datatype.startswith(("INT", "UINT")) else "number"
        found.append(Column(str(entry.get("name")), kinds.get(datatype, default)))
    if not found:
        raise InputError("The model does not say which columns it takes.", "Name its table schema with --schema.")
    return tuple(found)


def read_rows(
    path: Path,
    columns: Sequence[Column],
    missing: Iterable[str] = ("",),
    limit: int = 100_000,
    target: str = "",
    shifts: Mapping[str, float] | None = None,
) -> Rows:
    """The rows of a CSV or Parquet file as V1 requests. A row without one of the features is left out.

    `target` is the column whose values are the labels; a row without one is left out, too. `shifts` moves features by
    so many of their standard deviations in this file: drift for whoever watches.

    Raises InputError where the file cannot be read, lacks a column or has no usable row; MissingExtra for Parquet
    where pyarrow is not installed.
    """
    parquet = path.suffix.lower() in (".parquet", ".pq")
    wanted = [*columns, Column(target, "string")] if target else columns
    table = _parquet(path, wanted, limit) if parquet else _csv(path, wanted, set(missing), limit)
    rows, left_out = [], 0
    for row in table:
        if row is None:
            left_out += 1
        else:
            rows.append(row)
    if not rows:
        raise InputError(f"{path} has no row with all features of the model.", f"{left_out} rows were looked at.")
    labels = tuple(_class(row.pop(target)) for row in rows) if target else ()
    for name, shift in (shifts or {}).items():
        _shift(rows, columns, name, shift)
    bodies = tuple(json.dumps({"instances": [row]}, separators=(",", ":")).encode() for row in rows)
    return Rows(bodies, left_out, labels)


def _shift(rows: Sequence[dict[str, Any]], columns: Sequence[Column], name: str, shift: float) -> None:
    """Move a feature in all rows. Raises InputError for one that is no number."""
    kinds = {column.name: column.type for column in columns}
    if kinds.get(name) not in ("number", "integer"):
        numbers = [column.name for column in columns if column.type in ("number", "integer")]
        raise InputError(f"{name!r} is no number among the features.", f"Those are: {', '.join(numbers) or 'none'}.")
    by = shift * statistics.pstdev(row[name] for row in rows)
    for row in rows:
        row[name] = round(row[name] + by) if kinds[name] == "integer" else row[name] + by


def _class(value: Any) -> str:
    """A class as model.json spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _csv(path: Path, columns: Sequence[Column], missing: set[str], limit: int) -> Iterable[dict[str, Any] | None]:
    readers = [(column.name, _READERS[column.type]) for column in columns]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file)
            _check_columns(path, columns, lines.fieldnames or [])
            for number, line in enumerate(lines):
                if number >= limit:
                    return
                yield _row(line, readers, missing)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from error


def _row(
    line: Mapping[str, str | None], readers: Sequence[tuple[str, Callable[[str], Any]]], missing: set[str]
) -> dict[str, Any] | None:
    row = {}
    for name, reader in readers:
        text = line[name]
        if text is None or text in missing:
            return None
        try:
            row[name] = reader(text)
        except ValueError:
            return None
    return row


def _parquet(path: Path, columns: Sequence[Column], limit: int) -> Iterable[dict[str, Any] | None]:
    try:
        # By its name: it is no part of the base install, and the core must work without it.
        parquet = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        hint = 'pip install "kanary[pipelines]", or use a CSV file'
        raise MissingExtra(f"Reading {path} needs pyarrow, which is not installed.", hint) from error
    try:
        names = parquet.read_schema(path).names
        _check_columns(path, columns, names)
        rows = parquet.read_table(path, columns=[column.name for column in columns]).slice(0, limit).to_pylist()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from error
    for row in rows:
        yield None if any(value is None or value != value for value in row.values()) else row


def _check_columns(path: Path, columns: Sequence[Column], given: Iterable[str]) -> None:
    lacking = [column.name for column in columns if column.name not in set(given)]
    if lacking:
        raise InputError(f"{path} lacks the model's columns {', '.join(lacking[:5])}.", f"It has: {', '.join(given)}.")


def _number(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError
    return value


def _integer(text: str) -> int:
    value = _number(text)
    if value != int(value):
        raise ValueError
    return int(text) if text.strip().lstrip("+-").isdigit() else int(value)


def _boolean(text: str) -> bool:
    if text.strip().lower() not in (*_TRUE, *_FALSE):
        raise ValueError
    return text.strip().lower() in _TRUE


_READERS: Mapping[str, Callable[[str], Any]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "string": str,
    "datetime": str,
}
