"""Rows as the tests read them: one column a feature, numbers filled as in training, categories as indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kanary.modelspec import CategoricalFeature, Feature
from serving.model.preprocess import CLIP, Columns, Encoded, Preprocessor

Floats = npt.NDArray[np.float64]
# A category, or several rare ones together, must be expected so often in a window: the chi-squared distribution is
# far off in its tail for rare ones, and it is in the tail that online control looks.
EXPECTED = 30.0


@dataclass(frozen=True)
class Column:
    """A column's name; `categories` is how many values it may have, indices from 0, 0 for numbers."""

    name: str
    categories: int = 0


@dataclass(frozen=True)
class Table:
    """`values` is float64 [rows, columns]."""

    columns: tuple[Column, ...]
    values: Floats

    def __len__(self) -> int:
        return len(self.values)

    def only(self, names: Sequence[str]) -> Table:
        """The columns of these names, in their own order."""
        kept = [at for at, column in enumerate(self.columns) if column.name in names]
        return Table(tuple(self.columns[at] for at in kept), self.values[:, kept])


def columns_of(features: Sequence[Feature]) -> tuple[Column, ...]:
    """The columns of a model's features. Of a category 0 is what is missing or unknown."""
    return tuple(
        Column(feature.name, len(feature.categories) + 1 if isinstance(feature, CategoricalFeature) else 0)
        for feature in features
    )


def table_of(features: Sequence[Feature], columns: Columns) -> Table:
    """Rows, given by column, as a table. InputError as Preprocessor.encode raises it."""
    preprocessor = Preprocessor(features)
    return from_encoded(preprocessor, preprocessor.encode(columns))


def from_encoded(preprocessor: Preprocessor, encoded: Encoded) -> Table:
    """Rows that have been read as a table."""
    fills = np.array([feature.fill for feature in preprocessor.numeric])
    numbers = np.where(np.isnan(encoded.numbers), fills, encoded.numbers)
    values = np.empty((len(encoded), len(preprocessor.features)))
    numeric = iter(numbers.T)
    indices = iter(encoded.indices.T)
    for at, feature in enumerate(preprocessor.features):
        values[:, at] = next(indices) if isinstance(feature, CategoricalFeature) else next(numeric)
    return Table(columns_of(preprocessor.features), values)


def standardised(reference: Table, table: Table) -> npt.NDArray[np.float32]:
    """`table` for tests of all columns together: numbers by the reference's mean and spread, categories one-hot."""
    parts = []
    for at, column in enumerate(table.columns):
        known, values = reference.values[:, at], table.values[:, at]
        if column.categories:
            parts.append((values[:, None] == np.arange(column.categories)) / np.sqrt(2))
        else:
            spread = float(known.std()) or 1.0
            parts.append(np.clip((values[:, None] - known.mean()) / spread, -CLIP, CLIP))
    joined: npt.NDArray[np.float32] = np.concatenate(parts, axis=1).astype(np.float32)
    return joined


def rare(reference: Table, rows: int) -> dict[int, npt.NDArray[np.int64]]:
    """For each categorical column what each category counts as in a window of so many rows: the rare ones as one.

    Each is then expected EXPECTED times, or rarely less. Which are rare say the reference and the window's size:
    nothing in the window that a test could turn on.
    """
    found = {}
    for at, column in enumerate(reference.columns):
        if column.categories:
            counts = np.bincount(reference.values[:, at].astype(np.int64), minlength=column.categories)
            target = _groups(counts * rows / max(1, len(reference)))
            if (target != np.arange(len(target))).any():  # none is rare: nothing is to be copied
                found[at] = target
    return found


def pooled(table: Table, targets: Mapping[int, npt.NDArray[np.int64]]) -> Table:
    """The table with its categories counted as `targets` says."""
    if not targets:
        return table
    values = table.values.copy()
    for at, target in targets.items():
        values[:, at] = target[values[:, at].astype(np.int64)]
    return Table(table.columns, values)


def _groups(expected: Floats) -> npt.NDArray[np.int64]:
    """For each category the one that it counts as: the rare ones as one, with the commoner ones that it takes."""
    order = np.argsort(expected, kind="stable")
    target = np.arange(len(expected))
    total, few = 0.0, list[int]()
    for category in order:
        if expected[category] >= EXPECTED and (not few or total >= EXPECTED):
            break
        few.append(int(category))
        total += float(expected[category])
    target[few] = few[-1] if few else 0
    return target
