"""What each column of a table looks like, gathered batch by batch in bounded memory. Judges nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components import page, parsing

DISTINCT_LIMIT = 10_000
TOP = 5
_VALUE_LENGTH = 60


@dataclass(frozen=True)
class ColumnProfile:
    """One column: how many rows and how many of them empty, its numbers, its commonest values.

    `numbers` counts finite numbers (also those written as text), `std` is the sample's. `distinct` is None, and
    `top` empty, above DISTINCT_LIMIT values. `minimum` and `maximum` are ISO 8601 text for moments.
    """

    name: str
    type: str
    rows: int
    missing: int
    distinct: int | None
    numbers: int
    minimum: float | str | None
    maximum: float | str | None
    mean: float | None
    std: float | None
    top: tuple[tuple[str, int], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for an artifact's metadata: no NaN, no infinity."""
        figures = {"minimum": self.minimum, "maximum": self.maximum, "mean": self.mean, "std": self.std}
        return {
            "type": self.type,
            "rows": self.rows,
            "missing": self.missing,
            "distinct": f"over {DISTINCT_LIMIT}" if self.distinct is None else self.distinct,
            "numbers": self.numbers,
            **{key: value for key, value in figures.items() if value is not None},
            "top": [{"value": value, "count": count} for value, count in self.top],
        }


class Profiler:
    """Gathers the profile of one column, in a canonical type, from batch after batch."""

    def __init__(self, name: str, kind: pa.DataType) -> None:
        self._name = name
        self._kind = kind
        self._rows = self._missing = 0
        self._values: Counter[Any] | None = Counter()
        self._numbers = 0
        self._mean = self._squares = 0.0
        self._low: Any = None
        self._high: Any = None

    def update(self, column: pa.Array) -> None:
        """Adds rows. In a text column an empty string counts as missing."""
        self._rows += len(column)
        present = pc.drop_null(column)
        if pa.types.is_string(self._kind):
            present = present.filter(pc.not_equal(present, ""))
        self._missing += len(column) - len(present)
        self._count(present)
        if pa.types.is_string(self._kind):
            self._measure(pc.drop_null(parsing.numbers(present)))
        elif pa.types.is_floating(self._kind):
            self._measure(present.filter(pc.is_finite(present)))
        elif pa.types.is_integer(self._kind):
            self._measure(present)
        elif pa.types.is_timestamp(self._kind):
            self._bound(present)

    def profile(self) -> ColumnProfile:
        """The profile of all rows so far."""
        spread = math.sqrt(self._squares / (self._numbers - 1)) if self._numbers > 1 else math.nan
        return ColumnProfile(
            name=self._name,
            type=_type_name(self._kind),
            rows=self._rows,
            missing=self._missing,
            distinct=None if self._values is None else len(self._values),
            numbers=self._numbers,
            minimum=_bound(self._low),
            maximum=_bound(self._high),
            mean=_finite(self._mean) if self._numbers else None,
            std=_finite(spread),
            top=self._top(),
        )

    def _count(self, present: pa.Array) -> None:
        if self._values is None:
            return
        for item in pc.value_counts(present).to_pylist():
            self._values[item["values"]] += item["counts"]
        if len(self._values) > DISTINCT_LIMIT:
            self._values = None

    def _measure(self, values: pa.Array) -> None:
        """Chan, Golub and LeVeque's update of mean and sum of squares, one batch at a time."""
        if not len(values):
            return
        self._bound(values)
        batch = values.to_numpy(zero_copy_only=False).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            count, mean = len(batch), float(batch.mean())
            squares = float(np.square(batch - mean).sum())
            total, delta = self._numbers + count, mean - self._mean
            self._squares += squares + delta * delta * self._numbers * count / total
            self._mean += delta * count / total
            self._numbers = total

    def _bound(self, values: pa.Array) -> None:
        if not len(values):
            return
        bounds = pc.min_max(values)
        low, high = bounds["min"].as_py(), bounds["max"].as_py()
        self._low = low if self._low is None else min(self._low, low)
        self._high = high if self._high is None else max(self._high, high)

    def _top(self) -> tuple[tuple[str, int], ...]:
        counted = [(_text(value), count) for value, count in (self._values or {}).items()]
        return tuple(sorted(counted, key=lambda item: (-item[1], item[0]))[:TOP])


def column_table(columns: Sequence[ColumnProfile]) -> str:
    """The profiles of columns as one HTML table."""
    head = ("column", "type", "missing", "distinct", "numbers", "minimum", "mean", "maximum", "std", "commonest values")
    return page.table(head, [_table_row(column) for column in columns])


def _table_row(column: ColumnProfile) -> list[str]:
    distinct = f"over {DISTINCT_LIMIT:,}" if column.distinct is None else page.number(column.distinct)
    figures = (column.minimum, column.mean, column.maximum, column.std)
    commonest = ", ".join(f"{value!r}: {count:,}" for value, count in column.top)
    return [
        *(column.name, column.type, page.number(column.missing), distinct, page.number(column.numbers)),
        *("" if figure is None else figure if isinstance(figure, str) else page.number(figure) for figure in figures),
        commonest,
    ]


def _type_name(kind: pa.DataType) -> str:
    named = {pa.string(): "text", pa.int64(): "integer", pa.float64(): "number", pa.bool_(): "boolean"}
    return named.get(kind, "datetime")


def _bound(value: Any) -> float | str | None:
    if value is None:
        return None
    return float(value) if isinstance(value, int | float) else str(value.isoformat())


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else value.isoformat() if hasattr(value, "isoformat") else str(value)
    return text if len(text) <= _VALUE_LENGTH else text[: _VALUE_LENGTH - 1] + "…"
