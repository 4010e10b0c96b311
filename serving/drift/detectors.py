"""alibi-detect behind a few functions on tables: loaded by the detectors' own process and by the batch component only.

alibi-detect is under the Business Source License 1.1: see README.md. What it would save by dill is not saved here:
what takes long to calibrate is kept as arrays (calibration.py), and detectors are built anew around it.
Source: alibi-detect 0.13, docs/source/cd/methods.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from serving.drift.findings import Multivariate, Score
from serving.drift.table import Column, Table, pooled, rare, standardised

# Rows of either side that the multivariate tests look at: they cost their square.
SAMPLE = 500
Kind = Literal["feature", "prediction"]


def load() -> None:
    """Import everything that takes long: some ten seconds."""
    with quiet():
        for name in ("alibi_detect.cd", "alibi_detect.od"):
            importlib.import_module(name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that alibi-detect's own imports and constructors give."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("alibi_detect").setLevel(logging.ERROR)
        yield


@dataclass(frozen=True)
class Univariate:
    """TabularDrift made for a reference and windows of about one size; `targets` as in `serving.drift.table.rare`."""

    columns: tuple[Column, ...]
    targets: Mapping[int, npt.NDArray[np.int64]]
    detector: Any

    def scores(self, window: Table, kind: Kind = "feature") -> list[Score]:
        """The score of every column: Kolmogorov-Smirnov for numbers, chi-squared for categories."""
        with quiet():
            found = self.detector.predict(pooled(window, self.targets).values, drift_type="feature")["data"]
        return [
            Score(column.name, kind, "chi2" if column.categories else "ks", float(distance), float(p_value))
            for column, distance, p_value in zip(self.columns, found["distance"], found["p_val"], strict=True)
        ]


def prepared(reference: Table, rows: int) -> Univariate:
    """The tests of windows of about `rows` rows against a reference."""
    targets = rare(reference, rows)
    return Univariate(reference.columns, targets, tabular(pooled(reference, targets)))


def univariate(reference: Table, window: Table, kind: Kind = "feature") -> list[Score]:
    """The scores of one window against a reference that is needed but once."""
    return prepared(reference, len(window)).scores(window, kind) if reference.columns else []


def tabular(reference: Table, correction: str = "bonferroni", p_val: float = 0.05) -> Any:
    """alibi-detect's TabularDrift on the reference."""
    from alibi_detect.cd import TabularDrift

    categories = {at: None for at, column in enumerate(reference.columns) if column.categories}
    with quiet():
        return TabularDrift(
            reference.values,
            p_val=p_val,
            categories_per_feature=categories or None,
            correction=correction,
        )


def corrected(reference: Table, window: Table, correction: str, p_val: float) -> float:
    """What a column's p-value must not exceed, after alibi-detect's correction (bonferroni, fdr) for their number."""
    targets = rare(reference, len(window))
    detector = tabular(pooled(reference, targets), correction, p_val)
    with quiet():
        found = detector.predict(pooled(window, targets).values, drift_type="batch")["data"]["threshold"]
    # Where nothing drifts, fdr gives the thresholds of all ranks: the smallest p-value is held against the first.
    return float(np.min(found))


def multivariate(test: Multivariate, reference: Table, window: Table, permutations: int, seed: int) -> list[Score]:
    """The score of all columns together, on samples of both sides; none where `test` is none.

    alibi-detect's permutation p-value may be 0, which no p-value is: the data's own order counts as one permutation.
    """
    if test == "none" or not reference.columns:
        return []
    import torch

    torch.manual_seed(seed)
    np.random.seed(seed)  # alibi-detect draws from the global generators
    rng = np.random.default_rng(seed)
    left = _sample(standardised(reference, reference), rng)
    right = _sample(standardised(reference, window), rng)
    with quiet():
        if test == "classifier":
            found = _classifier(left, seed).predict(right)["data"]
            return [Score("all features", "multivariate", test, float(found["distance"]), float(found["p_val"]))]
        detector = _permuting(test, left, permutations)
        found = detector.predict(right)["data"]
    p_value = (float(found["p_val"]) * permutations + 1) / (permutations + 1)
    return [Score("all features", "multivariate", test, float(found["distance"]), min(1.0, p_value))]


def _permuting(test: str, left: npt.NDArray[np.float32], permutations: int) -> Any:
    from alibi_detect.cd import LSDDDrift, MMDDrift

    if test == "mmd":
        return MMDDrift(left, backend="pytorch", n_permutations=permutations)
    return LSDDDrift(left, backend="pytorch", n_permutations=permutations)


def _classifier(left: npt.NDArray[np.float32], seed: int) -> Any:
    """A small network that learns to tell the sides apart; its held-out answers go through a KS test."""
    from alibi_detect.cd import ClassifierDrift
    from torch import nn

    network = nn.Sequential(nn.Linear(left.shape[1], 32), nn.ReLU(), nn.Linear(32, 2))
    return ClassifierDrift(
        left, network, backend="pytorch", preds_type="logits", n_folds=2, epochs=3, seed=seed, verbose=0
    )


def _sample(values: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    if len(values) <= SAMPLE:
        return values
    return values[np.sort(rng.choice(len(values), SAMPLE, replace=False))]
