"""The common V1 request, read without a look at every value by itself: all there, every category known to training.

Whatever is less common is left, unjudged, to the contract, which says what is wrong or takes it as training did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, cycle
from operator import itemgetter
from typing import Any

import numpy as np

from serving.model.preprocess import Encoded, Preprocessor

Pick = Callable[[Any], tuple[Any, ...]]

_NUMBERS = frozenset({int, float})
_NATIVE: dict[str, frozenset[type]] = {
    "boolean": frozenset({bool, str}),
    "integer": frozenset({int, float, str}),
    "number": frozenset({int, float, str}),
}


class QuickRows:
    """Rows as objects or as lists, to what `preprocessor` would encode them to; None for what it must look into."""

    def __init__(self, preprocessor: Preprocessor) -> None:
        order = {feature.name: place for place, feature in enumerate(preprocessor.features)}
        numbers = [feature.name for feature in preprocessor.numeric]
        categories = [feature.name for feature in preprocessor.categorical]
        self._width = len(order)
        self._from_object = _pick(numbers), _pick(categories)
        self._from_list = _pick([order[name] for name in numbers]), _pick([order[name] for name in categories])
        self._whole = [place for place, feature in enumerate(preprocessor.numeric) if feature.type == "integer"]
        self._index = [lookup.get for lookup in preprocessor.lookups]
        kinds = [feature.type for feature in preprocessor.categorical]
        # A text is found or not; 1 and 1.0 would be found for true, so that the other kinds' types are looked at.
        self._types = [_NATIVE.get(kind) for kind in kinds] if set(kinds) - {"string"} else []

    def objects(self, instances: Sequence[Any]) -> Encoded | None:
        """Rows from objects, column to value."""
        return self._read(instances, *self._from_object)

    def lists(self, instances: Sequence[Any]) -> Encoded | None:
        """Rows from lists in the order of the features."""
        return self._read(instances, *self._from_list)

    def _read(self, instances: Sequence[Any], numbers: Pick, categories: Pick) -> Encoded | None:
        try:
            if set(map(len, instances)) != {self._width}:
                return None
            values = list(chain.from_iterable(map(numbers, instances)))
            if not _NUMBERS.issuperset(map(type, values)):
                return None
            read = np.array(values, np.float64).reshape(len(instances), -1)
            texts = list(chain.from_iterable(map(categories, instances)))
            if self._types and not all(
                allowed is None or type(text) in allowed for text, allowed in zip(texts, cycle(self._types))
            ):
                return None
            found = [get(text, 0) for text, get in zip(texts, cycle(self._index))] if texts else []
        except (KeyError, IndexError, TypeError, OverflowError):
            return None
        if 0 in found or not np.isfinite(read).all():
            return None
        if self._whole and not np.array_equal(whole := read[:, self._whole], np.floor(whole)):
            return None
        return Encoded(read, np.array(found, np.int64).reshape(len(instances), -1))


def _pick(keys: Sequence[Any]) -> Pick:
    """The values under `keys` as a tuple, however few."""
    if len(keys) > 1:
        return itemgetter(*keys)
    return (lambda row: (row[keys[0]],)) if keys else (lambda _: ())
