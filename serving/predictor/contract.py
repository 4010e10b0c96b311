"""What the values of a request must be for one model: the rule that both protocols share. Never mends a value.

model.json does not say which columns may be missing, so null and categories that training did not know are refused;
`lenient` lets them through, to be treated as training treated them (filled with the median, or index 0).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any

from kanary.modelspec import CategoricalFeature, Feature, ModelSpec
from serving.predictor.refusal import Refused, listed, shown

_TYPES: Mapping[str, frozenset[type]] = {
    "number": frozenset({int, float}),
    "integer": frozenset({int, float}),
    "string": frozenset({str}),
    "boolean": frozenset({bool}),
}
_WANTED = {"number": "a number", "integer": "a whole number", "string": "a text", "boolean": "true or false"}


@dataclass(frozen=True)
class Contract:
    """The features of a model in order, with what `check` needs to be fast.

    `types` holds the Python types that a column's values may have, `known` the values of a categorical column:
    categories as text, and as the value that the text stands for.
    """

    features: tuple[Feature, ...]
    names: tuple[str, ...]
    types: Mapping[str, frozenset[type]]
    known: Mapping[str, frozenset[Any]]
    lenient: bool

    def check_names(self, given: Iterable[str], where: str) -> None:
        """Refuse columns that are missing or none of the model's; `where` says whose columns they are."""
        found = set(given)
        missing = [name for name in self.names if name not in found]
        if missing:
            raise Refused("column", f"{where} lacks {listed(missing)}; the model takes {listed(self.names, 50)}")
        unexpected = sorted(found.difference(self.names))
        if unexpected:
            raise Refused("column", f"{where} has {listed(unexpected)}, of which the model knows nothing")

    def check(self, feature: Feature, values: list[Any], before: str, after: str) -> None:
        """Refuse a column unless every value is one that the feature can have; `before`row`after` names the place."""
        found = set(map(type, values))
        allowed = self.types[feature.name]
        if not found <= allowed:
            row = next(row for row, value in enumerate(values) if type(value) not in allowed)
            raise Refused(
                "null" if values[row] is None else "type",
                f"{before}{row}{after} is {shown(values[row])}; {_wanted(feature)} is needed",
            )
        if isinstance(feature, CategoricalFeature):
            known = self.known[feature.name]
            if not self.lenient and not known.issuperset(values):
                row = next(row for row, value in enumerate(values) if value not in known)
                raise Refused("category", f"{before}{row}{after} is {shown(values[row])}, not {_wanted(feature)}")
        elif float in found:
            self._check_floats(feature, values, before, after)

    def _check_floats(self, feature: Feature, values: list[Any], before: str, after: str) -> None:
        for row, value in enumerate(values):
            if type(value) is not float:
                continue
            if not math.isfinite(value) and not (self.lenient and math.isnan(value)):
                raise Refused("range", f"{before}{row}{after} is {value}; a finite number is needed")
            if feature.type == "integer" and not (math.isnan(value) or value.is_integer()):
                raise Refused("type", f"{before}{row}{after} is {value}; {_wanted(feature)} is needed")


def contract(spec: ModelSpec, lenient: bool = False) -> Contract:
    """The contract of the model that `spec` describes."""
    missing = frozenset({NoneType}) if lenient else frozenset()
    texts = frozenset({str})
    return Contract(
        features=spec.features,
        names=tuple(feature.name for feature in spec.features),
        types={
            feature.name: _TYPES[feature.type] | missing | (texts if isinstance(feature, CategoricalFeature) else set())
            for feature in spec.features
        },
        known={feature.name: _known(feature) for feature in spec.categorical},
        lenient=lenient,
    )


def _known(feature: CategoricalFeature) -> frozenset[Any]:
    texts: frozenset[Any] = frozenset(feature.categories)
    if feature.type == "boolean":
        return texts | {text == "true" for text in feature.categories}
    if feature.type == "integer":
        return texts | {int(text) for text in feature.categories}
    if feature.type == "number":
        return texts | {float(text) for text in feature.categories}
    return texts


def _wanted(feature: Feature) -> str:
    if isinstance(feature, CategoricalFeature):
        return f"one of {listed(feature.categories, 10)}"
    return _WANTED[feature.type]
