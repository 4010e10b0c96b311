"""What the values of a request must be for one model, and the rows they become: the rule that all protocols share.

Missing values and categories that training did not know are treated as in training; a value that the schema requires
is refused where it is missing. Never mends a value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt

from kanary.errors import InputError
from kanary.modelspec import CategoricalFeature, Feature, ModelSpec, spells
from serving.model.preprocess import Encoded, Preprocessor
from serving.predictor.quick import QuickRows
from serving.predictor.refusal import Refused, listed, shown

_TYPES: Mapping[str, frozenset[type]] = {
    "number": frozenset({int, float}),
    "integer": frozenset({int, float}),
    "string": frozenset({str}),
    "boolean": frozenset({bool}),
}
_WANTED = {"number": "a number", "integer": "a whole number", "string": "a text", "boolean": "true or false"}

Column = list[Any] | npt.NDArray[Any]
"""One value a row: plain values with None for null, or the numbers of a binary tensor with NaN for it."""


@dataclass(frozen=True)
class Contract:
    """The features of a model in order. `types` holds the Python types that a column's values may have."""

    preprocessor: Preprocessor
    quick: QuickRows
    names: tuple[str, ...]
    types: Mapping[str, frozenset[type]]

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features, in the order of the names."""
        return self.preprocessor.features

    def check_names(self, given: Iterable[str], where: str) -> None:
        """Refuse columns that are missing or none of the model's; `where` says whose columns they are."""
        found = set(given)
        missing = [name for name in self.names if name not in found]
        if missing:
            raise Refused("column", f"{where} lacks {listed(missing)}; the model takes {listed(self.names, 50)}")
        unexpected = sorted(found.difference(self.names))
        if unexpected:
            raise Refused("column", f"{where} has {listed(unexpected)}, of which the model knows nothing")

    def check(self, feature: Feature, values: Column, before: str, after: str) -> None:
        """Refuse a column unless every value is one that the feature can have; `before`row`after` names the place."""
        if isinstance(values, np.ndarray):
            _check_array(feature, values, before, after)
            return
        found = set(map(type, values))
        allowed = self.types[feature.name]
        if not found <= allowed:
            row = next(row for row, value in enumerate(values) if type(value) not in allowed)
            raise Refused(
                "null" if values[row] is None else "type",
                f"{before}{row}{after} is {shown(values[row])}; {_wanted(feature)} is needed",
            )
        if isinstance(feature, CategoricalFeature):
            if str in found and feature.type != "string":
                _check_texts(feature, values, before, after)
        elif float in found:
            _check_floats(feature, values, before, after)

    def encode(self, columns: Mapping[str, Column]) -> Encoded:
        """The rows of columns that have been checked."""
        try:
            return self.preprocessor.encode(columns)
        except InputError as error:
            raise Refused("range", error.message) from None


def contract(spec: ModelSpec, preprocessor: Preprocessor | None = None) -> Contract:
    """The contract of the model that `spec` describes."""
    preprocessor = preprocessor or Preprocessor(spec.features)
    texts = frozenset({str})
    return Contract(
        preprocessor,
        QuickRows(preprocessor),
        tuple(feature.name for feature in spec.features),
        {
            feature.name: _TYPES[feature.type]
            | (texts if isinstance(feature, CategoricalFeature) else set())
            | (set() if feature.required else {NoneType})
            for feature in spec.features
        },
    )


def _check_texts(feature: Feature, values: list[Any], before: str, after: str) -> None:
    """A category may come as its text; one that is no text of its type is no category, not even an unknown one."""
    for row, value in enumerate(values):
        if type(value) is str and not spells(feature.type, value):
            raise Refused("type", f"{before}{row}{after} is {shown(value)}; {_wanted(feature)} is needed")


def _check_floats(feature: Feature, values: list[Any], before: str, after: str) -> None:
    for row, value in enumerate(values):
        if type(value) is float and not _suits(feature, value):
            raise _refused(feature, value, f"{before}{row}{after}")


def _check_array(feature: Feature, values: npt.NDArray[Any], before: str, after: str) -> None:
    if values.dtype.kind != "f":
        return
    good = np.isfinite(values)
    if feature.type == "integer":
        good &= np.floor(values) == values
    if not feature.required:
        good |= np.isnan(values)
    if not good.all():
        row = int(np.argmin(good))
        raise _refused(feature, float(values[row]), f"{before}{row}{after}")


def _suits(feature: Feature, value: float) -> bool:
    if math.isnan(value):
        return not feature.required
    return math.isfinite(value) and (feature.type != "integer" or value.is_integer())


def _refused(feature: Feature, value: float, place: str) -> Refused:
    if math.isnan(value):
        return Refused("null", f"{place} is {value}; {_wanted(feature)} is needed")
    if math.isinf(value):
        return Refused("range", f"{place} is {value}; a finite number is needed")
    return Refused("type", f"{place} is {value}; {_wanted(feature)} is needed")


def _wanted(feature: Feature) -> str:
    if isinstance(feature, CategoricalFeature):
        return f"one of {listed(feature.categories, 10)}"
    return _WANTED[feature.type]
