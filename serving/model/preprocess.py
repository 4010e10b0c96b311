"""Rows to the arrays the network reads: the one place where missing and unknown values are dealt with.

Training and serving both come through here, with a column as any sequence, so neither needs pandas.
Never guesses: a value that cannot be a number is refused with its column and row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kanary.errors import DataError, InputError
from kanary.modelspec import CategoricalFeature, Feature, NumericFeature

Columns = Mapping[str, Any]
"""Column name to a one-dimensional sequence of values: a list, a tuple or a numpy array."""

# Standardised numbers are cut here, so that one wild value can neither overflow float32 nor drown the others.
# Part of model.json's format: a model trained with another value would be another model.
CLIP = 10.0


@dataclass(frozen=True)
class Arrays:
    """What the network reads: `numeric` float32 [rows, numeric features], `categorical` int64 [rows, categorical]."""

    numeric: npt.NDArray[np.float32]
    categorical: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numeric)

    def take(self, rows: npt.NDArray[np.int64]) -> Arrays:
        """The given rows alone, in that order."""
        return Arrays(self.numeric[rows], self.categorical[rows])


@dataclass(frozen=True)
class Encoded:
    """Rows read and not yet standardised: `numbers` float64 [rows, numeric features], NaN where one is missing;
    `indices` int64 [rows, categorical features], 0 where one is missing or unknown.
    """

    numbers: npt.NDArray[np.float64]
    indices: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: npt.NDArray[np.int64]) -> Encoded:
        """The given rows alone, in that order."""
        return Encoded(self.numbers[rows], self.indices[rows])


class Preprocessor:
    """The preprocessing that `features` describe, in their order. `lookups`: value to index, for each categorical one.

    What does not depend on the rows is worked out once: for one row, numpy's cost is that of its calls.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = tuple(features)
        self.numeric = tuple(feature for feature in features if isinstance(feature, NumericFeature))
        self.categorical = tuple(feature for feature in features if isinstance(feature, CategoricalFeature))
        self.lookups = tuple(_lookup(feature.type, feature.categories) for feature in self.categorical)
        self._mean, self._std, self._fill = (
            np.array([getattr(feature, name) for feature in self.numeric], np.float64)
            for name in ("mean", "std", "fill")
        )

    def encode(self, columns: Columns) -> Encoded:
        """The rows of `columns`, whose names may be in any order and more than the features.

        InputError names a column that is missing, of another length or no sequence, or a value that is no number.
        """
        rows = _rows(self.features, columns)
        read = [numbers(feature.name, columns[feature.name]) for feature in self.numeric]
        indices = [
            _indices(feature.name, lookup, columns[feature.name])
            for feature, lookup in zip(self.categorical, self.lookups, strict=True)
        ]
        return Encoded(
            np.stack(read, axis=1) if read else np.zeros((rows, 0)),
            np.stack(indices, axis=1) if indices else np.zeros((rows, 0), np.int64),
        )

    def arrays(self, encoded: Encoded) -> Arrays:
        """What the network reads: missing numbers filled, all standardised and cut."""
        with np.errstate(over="ignore"):
            scaled = (np.where(np.isnan(encoded.numbers), self._fill, encoded.numbers) - self._mean) / self._std
        return Arrays(np.clip(scaled, -CLIP, CLIP).astype(np.float32), encoded.indices)


def transform(features: Sequence[Feature], columns: Columns) -> Arrays:
    """The arrays for `columns`, read and standardised; InputError as `Preprocessor.encode` raises it."""
    preprocessor = Preprocessor(features)
    return preprocessor.arrays(preprocessor.encode(columns))


def fit_numeric(name: str, kind: Literal["number", "integer"], values: Any, required: bool = False) -> NumericFeature:
    """The feature fitted to a training column: mean and standard deviation of what is there, median as fill.

    A column that is constant or wholly missing tells nothing: it becomes 0 everywhere.
    """
    array = numbers(name, values)
    present = array[~np.isnan(array)]
    if not len(present):
        return NumericFeature(name, kind, mean=0.0, std=1.0, fill=0.0, required=required)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std, fill = float(present.mean()), float(present.std()), float(np.median(present))
    if not np.isfinite([mean, std, fill]).all():
        raise InputError(f"column {name}: the values are too large to standardise", "scale or mend the column")
    constant = std <= 1e-12 * abs(mean)  # what rounding leaves of a constant column is no spread
    std, fill = (1.0, mean) if constant else (std, fill)
    return NumericFeature(name, kind, mean=mean, std=std, fill=fill, required=required)


def numbers(name: str, values: Any) -> npt.NDArray[np.float64]:
    """A column as float64 [rows], NaN where a value is missing: None, NaN or an empty text.

    Texts that spell a number count as it. InputError names the column and row of anything else, infinity too.
    """
    try:
        array: npt.NDArray[np.float64] | None = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None or array.ndim != 1:
        array = np.array([_number(name, row, value) for row, value in enumerate(values)], dtype=np.float64)
    infinite = np.isinf(array)
    if infinite.any():
        raise _not_a_number(name, int(np.argmax(infinite)), "infinity")
    return array


def category_text(value: str | int | float | bool) -> str:
    """A category or class as the text that model.json holds: `true` and `false` for booleans."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def class_indices(target: str, kind: str, classes: Sequence[str], values: Any) -> npt.NDArray[np.int64]:
    """The target column as indices into `classes`, int64 [rows]. DataError for a row with none of them."""
    found = _indices(target, _lookup(kind, classes), values) - 1
    if (found < 0).any():
        row = int(np.argmax(found < 0))
        raise DataError(
            f"column {target}, row {row + 1} (counted from 1): {values[row]!r:.60} is no class of {', '.join(classes)}",
            "mend the row, or name every class in the schema and train again",
        )
    return found


def _rows(features: Sequence[Feature], columns: Columns) -> int:
    """How many rows the columns have. InputError for one that is missing, no sequence, or shorter than another."""
    missing = [feature.name for feature in features if feature.name not in columns]
    if missing:
        raise InputError(f"columns are missing: {', '.join(missing)}", "send every feature; its values may be null")
    lengths = {feature.name: _length(feature.name, columns[feature.name]) for feature in features}
    rows = max(lengths.values(), default=0)
    short = [f"{name} has {length}" for name, length in lengths.items() if length != rows]
    if short:
        raise InputError(f"columns differ in length: {', '.join(short)} of {rows} rows", "send one value for every row")
    return rows


def _lookup(kind: str, categories: Sequence[str]) -> dict[Any, int]:
    """Value to index, from 1: by text, and for a boolean or a number by value (so that 2 and 2.0 are one) too."""
    lookup: dict[Any, int] = {category: index for index, category in enumerate(categories, start=1)}
    by_value: dict[str, Callable[[str], Any]] = {
        "boolean": lambda text: text == "true",
        "integer": int,
        "number": float,
    }
    if kind in by_value:
        lookup |= {by_value[kind](text): index for text, index in lookup.items()}
    return lookup


def _indices(name: str, lookup: Mapping[Any, int], values: Any) -> npt.NDArray[np.int64]:
    try:
        return np.fromiter((lookup.get(value, 0) for value in values), dtype=np.int64, count=len(values))
    except TypeError:
        row = next(row for row, value in enumerate(values) if not _hashable(value))
        raise InputError(
            f"column {name}, row {row + 1} (counted from 1): {values[row]!r:.60} is no category", "send a text or null"
        ) from None


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _length(name: str, values: Any) -> int:
    one_dimensional = not isinstance(values, np.ndarray) or (values.ndim == 1 and values.dtype.kind in "biufOU")
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__") or not one_dimensional:
        raise InputError(f"column {name} is no sequence of plain values", "send a list with one value for every row")
    return len(values)


def _number(name: str, row: int, value: Any) -> float:
    if value is None or (isinstance(value, str) and not value.strip()):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise _not_a_number(name, row, f"{value!r:.60}") from None


def _not_a_number(name: str, row: int, what: str) -> InputError:
    return InputError(
        f"column {name}, row {row + 1} (counted from 1): {what} is not a number",
        "send a number, or null where it is missing",
    )
