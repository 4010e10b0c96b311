"""The checks a schema asks for, column by column, vectorised. Every row is judged; nothing is read or written here.

Rows count from 1, header and blank lines not counted: row 1 is the first row of data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components import parsing
from components.content import MOMENT
from kanary.dataschema import Field, TableSchema, parse_datetime

Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]

WHOLE_TABLE = "(table)"

_KINDS = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "string": pa.string(),
    "boolean": pa.bool_(),
    "datetime": MOMENT,
}
_PARSERS = {
    "number": parsing.numbers,
    "integer": parsing.integers,
    "boolean": parsing.booleans,
    "datetime": parsing.moments,
}
_EXPECTATIONS = {
    "number": "a finite number",
    "integer": "a whole number of 64 bits",
    "string": "text",
    "boolean": "true or false",
    "datetime": "an ISO 8601 date or time",
}
_VALUE_LENGTH = 60
_CHOICES_NAMED = 12


@dataclass(frozen=True)
class Check:
    """One expectation of one column and how often it was broken: 0 is a pass.

    `rows` and `values` are those of the first breaches, as many as were asked for, side by side; both stay empty
    where the breach is not in single rows, and then `values` alone may say more.
    """

    column: str
    expectation: str
    broken: int = 0
    rows: tuple[int, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the expectation holds everywhere."""
        return self.broken == 0


@dataclass(frozen=True)
class TypedColumn:
    """A column read by its field: `values` is null where `missing` or `unfit` (there, but not of the type)."""

    field: Field
    raw: pa.Array
    values: pa.Array
    missing: Mask
    unfit: Mask


def typed_column(raw: pa.Array, field: Field, missing_values: Sequence[str]) -> TypedColumn:
    """A column in a canonical type (components.content) read as its field says.

    Text is parsed (components.parsing); in a string field it is taken as it stands, blanks and all. Other columns
    must be of the type already: integers count as numbers, whole floats as integers.
    """
    kind = _KINDS[field.type]
    if pa.types.is_string(raw.type):
        written_as_missing = pa.array(missing_values, type=pa.string())
        absent = pc.or_(pc.is_null(raw), pc.is_in(raw, value_set=written_as_missing))
        if field.type != "string":
            absent = pc.or_(absent, pc.is_in(pc.utf8_trim_whitespace(raw), value_set=written_as_missing))
        text = pc.if_else(absent, pa.scalar(None, type=pa.string()), raw)
        values = text if field.type == "string" else _PARSERS[field.type](text)
        missing = _mask(absent)
    else:
        values = _converted(raw, kind)
        missing = _mask(pc.is_null(raw))
    values = _one_zero(values)
    return TypedColumn(field, raw, values, missing, _mask(pc.is_null(values)) & ~missing)


def _one_zero(values: pa.Array) -> pa.Array:
    # Arrow tells -0.0 from 0.0 where it looks values up.
    return pc.add(values, 0.0) if pa.types.is_floating(values.type) else values


def _converted(raw: pa.Array, kind: pa.DataType) -> pa.Array:
    """Native values of another type, null where they do not fit."""
    nothing = pa.scalar(None, type=raw.type)
    if raw.type == kind:
        return pc.if_else(pc.is_finite(raw), raw, nothing) if pa.types.is_floating(kind) else raw
    if pa.types.is_integer(raw.type) and pa.types.is_floating(kind):
        return raw.cast(kind, safe=False)
    if pa.types.is_floating(raw.type) and pa.types.is_integer(kind):
        whole = pc.and_(pc.equal(pc.floor(raw), raw), pc.less(pc.abs(raw), 2.0**63))
        return pc.if_else(whole, raw, nothing).cast(kind)
    return pa.nulls(len(raw), type=kind)


def column_checks(column: TypedColumn, schema: TableSchema, shown: int) -> Iterator[Check]:
    """The checks of one column; each names its first `shown` breaches."""
    field, values = column.field, column.values
    yield _by_row(column, _EXPECTATIONS[field.type], column.unfit, shown)
    if field.required or field.role == "target" or field.name in schema.primary_key:
        yield _by_row(column, "a value in every row", column.missing, shown)
    if field.minimum is not None:
        too_low = _mask(pc.less(values, _bound(field.minimum, values.type)))
        yield _by_row(column, f"at least {_plain(field.minimum)}", too_low, shown)
    if field.maximum is not None:
        too_high = _mask(pc.greater(values, _bound(field.maximum, values.type)))
        yield _by_row(column, f"at most {_plain(field.maximum)}", too_high, shown)
    if field.enum:
        known = _mask(pc.is_in(values, value_set=_one_zero(pa.array(field.enum, type=values.type))))
        yield _by_row(column, _choice(field), ~known & ~column.missing & ~column.unfit, shown)
    if field.unique:
        yield _by_row(column, "no value twice", repeated([values]), shown)
    if field.role == "target":
        yield _class_check(column, schema)


def key_check(names: Sequence[str], columns: Sequence[pa.Array], shown: int) -> Check:
    """That no two rows have the same primary key. Rows without a whole key are left to their columns' checks."""
    broken = repeated(columns)
    at = np.flatnonzero(broken)[:shown]
    keys = zip(*(_texts(column, at) for column in columns), strict=True)
    return Check(" + ".join(names), "no primary key twice", int(broken.sum()), _rows(at), tuple(map(", ".join, keys)))


def header_checks(names: Sequence[str], schema: TableSchema) -> Iterator[Check]:
    """That the table has each of the schema's columns once, and no others."""
    counts = Counter(names)
    for field in schema.fields:
        found = counts.pop(field.name, 0)
        yield Check(field.name, "one column of this name", int(found != 1), values=(f"found {found}",))
    unexpected = list(counts)
    if not unexpected:
        yield Check(WHOLE_TABLE, "no column beside the schema's")
    for name in unexpected:
        yield Check(name, "no column beside the schema's", 1)


def repeated(columns: Sequence[pa.Array]) -> Mask:
    """Which rows have values, in these columns together, that another row has too. Nulls equal nothing."""
    whole = np.ones(len(columns[0]), dtype=np.bool_)
    codes: Codes = np.zeros(len(whole), dtype=np.int64)
    for column in columns:
        encoded = column.dictionary_encode()
        whole &= _mask(encoded.is_valid())
        step = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        # Numbered anew at each step, so that the product of the cardinalities never overflows.
        codes = np.unique(codes * (len(encoded.dictionary) + 1) + step, return_inverse=True)[1]
    counts = np.bincount(codes[whole], minlength=1)
    again: Mask = whole & (counts[np.where(whole, codes, 0)] > 1)
    return again


def _class_check(column: TypedColumn, schema: TableSchema) -> Check:
    counted = {item["values"]: item["counts"] for item in pc.value_counts(column.values).to_pylist()}
    scarce = [name for name in schema.classes if counted.get(name, 0) < 2]
    values = tuple(f"{name!r} in {_count(counted.get(name, 0), 'row')}" for name in scarce)
    return Check(column.field.name, "each class in two rows or more", len(scarce), values=values)


def _by_row(column: TypedColumn, expectation: str, broken: Mask, shown: int) -> Check:
    at = np.flatnonzero(broken)[:shown]
    return Check(column.field.name, expectation, int(broken.sum()), _rows(at), tuple(_texts(column.raw, at)))


def _rows(at: npt.NDArray[np.intp]) -> tuple[int, ...]:
    return tuple(int(index) + 1 for index in at)


def _texts(raw: pa.Array, at: npt.NDArray[np.intp]) -> Iterable[str]:
    return [_shown(value) for value in raw.take(pa.array(at, type=pa.int64())).to_pylist()]


def _shown(value: Any) -> str:
    text = "missing" if value is None else value.isoformat() if hasattr(value, "isoformat") else repr(value)
    return text if len(text) <= _VALUE_LENGTH else text[: _VALUE_LENGTH - 1] + "…"


def _bound(bound: float | str, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(parse_datetime(bound) if isinstance(bound, str) else bound, type=kind)


def _plain(bound: float | str) -> str:
    return f"{bound:g}" if isinstance(bound, float) and float(f"{bound:g}") == bound else str(bound)


def _choice(field: Field) -> str:
    named = ", ".join(repr(value) for value in field.enum[:_CHOICES_NAMED])
    return f"one of {named}" + (
        f" and {len(field.enum) - _CHOICES_NAMED} more" if len(field.enum) > _CHOICES_NAMED else ""
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _mask(condition: pa.Array) -> Mask:
    mask: Mask = pc.fill_null(condition, False).to_numpy(zero_copy_only=False)
    return mask
