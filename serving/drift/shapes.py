"""How a column's values are spread in the reference and in a window: shares of a few bins, for people to look at.

The bins are the reference's alone, so they stay what they are from window to window. No test looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from serving.drift.findings import Kind, Score
from serving.drift.table import Floats, Table

BINS = 12  # of a column, at most
_MISSING, _OTHERS = "(missing or unknown)", "(others)"
# What lies outside these quantiles of the reference is counted in the first and the last bin.
_OUTER = (0.01, 0.99)


@dataclass(frozen=True)
class Shape:
    """One column: the names of its bins in order, and the shares of both sides' rows in them, each adding up to 1."""

    name: str
    kind: Kind
    bins: tuple[str, ...]
    reference: tuple[float, ...]
    current: tuple[float, ...]


def shapes(
    reference: Table, window: Table, kind: Kind, names: Sequence[str], categories: Mapping[str, Sequence[str]]
) -> list[Shape]:
    """The columns of these names, in this order. `categories`: what a column's indices stand for.

    Of a feature index 0 is what is missing or unknown: `categories` names the others.
    """
    at = {column.name: index for index, column in enumerate(reference.columns)}
    found = []
    for name in (name for name in names if name in at):
        before, after = reference.values[:, at[name]], window.values[:, at[name]]
        if reference.columns[at[name]].categories:
            shown = ((_MISSING,) if kind == "feature" else ()) + tuple(categories[name])
            found.append(_of_categories(name, kind, before, after, shown))
        else:
            found.append(_of_numbers(name, kind, before, after))
    return found


def worst(scores: Sequence[Score], kind: Kind, number: int) -> list[str]:
    """The names of the `number` scores with the smallest p-values, of all kinds together; those of this kind."""
    ranked = sorted(
        (score for score in scores if score.kind in ("feature", "prediction") and score.p_value is not None),
        key=lambda score: (score.p_value, score.name),
    )
    return [score.name for score in ranked[:number] if score.kind == kind]


def as_json(found: Sequence[Shape]) -> list[dict[str, object]]:
    """For the way from the detectors' process to the service."""
    return [asdict(shape) for shape in found]


def from_json(told: Sequence[Mapping[str, object]]) -> tuple[Shape, ...]:
    """What `as_json` gave, back."""
    return tuple(
        Shape(**{key: tuple(value) if isinstance(value, list) else value for key, value in one.items()})  # type: ignore[arg-type]
        for one in told
    )


def _of_numbers(name: str, kind: Kind, before: Floats, after: Floats) -> Shape:
    distinct = np.unique(before)
    if len(distinct) <= BINS:
        edges = (distinct[1:] + distinct[:-1]) / 2
        labels = [_number(value) for value in distinct]
    else:
        low, high = np.quantile(before, _OUTER)
        edges = np.unique(np.linspace(low, high, BINS - 1)) if high > low else np.array([low])
        named = [_number(edge) for edge in edges]
        inner = [f"{a} to {b}" for a, b in pairwise(named)]
        labels = [f"below {named[0]}", *inner, f"from {named[-1]}"]
    sides = [_shares(np.searchsorted(edges, side, side="right"), len(labels)) for side in (before, after)]
    return Shape(name, kind, tuple(labels), *sides)


def _of_categories(name: str, kind: Kind, before: Floats, after: Floats, names: Sequence[str]) -> Shape:
    """The commonest of the reference in the model's own order, the rest as one."""
    counts = np.bincount(before.astype(np.int64), minlength=len(names))
    kept = np.sort(np.argsort(-counts, kind="stable")[: BINS - 1 if len(names) > BINS else BINS])
    target = np.full(len(names), len(kept))
    target[kept] = np.arange(len(kept))
    labels = [names[int(index)] for index in kept] + ([_OTHERS] if len(names) > len(kept) else [])
    sides = [_shares(target[side.astype(np.int64)], len(labels)) for side in (before, after)]
    return Shape(name, kind, tuple(labels), *sides)


def _shares(bins: npt.NDArray[np.int64], number: int) -> tuple[float, ...]:
    counts = np.bincount(bins, minlength=number)
    return tuple((counts / max(1, len(bins))).tolist())


def _number(value: float) -> str:
    return f"{value:.4g}"
