"""Evaluation: a verified model, a test set, gates -> metrics, curves and verdicts. Writes nothing, trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from components.evaluate import gates as gating
from components.evaluate.gates import Verdict
from components.evaluate.metrics import Curve, Indices, confusion, roc, scores
from kanary.errors import DataError
from kanary.modelspec import ModelSpec
from serving.model.predict import Predictor
from serving.model.preprocess import class_indices


@dataclass(frozen=True)
class Evaluation:
    """What was measured. `curves` holds a ROC curve by class: of two classes only the positive one's."""

    spec: ModelSpec
    rows: int
    data_sha256: str
    metrics: Mapping[str, float]
    confusion: Indices
    curves: Mapping[str, Curve]
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate is open."""
        return gating.passed(self.verdicts)


def evaluate(data: Path, model: Path, gates: Mapping[str, Any], expected_digest: str | None = None) -> Evaluation:
    """Measure the model directory `model` on the Parquet file `data` and judge it by `gates`.

    GateError for gates that cannot be judged, ModelError for a model that was altered or is not the one expected,
    DataError for a test set that lacks columns or rows, or holds classes the model does not know.
    """
    parsed = gating.parse(gates)
    predictor = Predictor.load(model, expected_digest)
    spec = predictor.spec
    columns, sha256 = _columns(data, spec)
    target = class_indices(spec.target, spec.target_type, spec.classes, columns[spec.target])
    probabilities = predictor.predict_proba(columns)
    metrics = scores(target, probabilities)
    classes = len(spec.classes)
    curved = range(1, 2) if classes == 2 else range(classes)
    return Evaluation(
        spec=spec,
        rows=len(target),
        data_sha256=sha256,
        metrics=metrics,
        confusion=confusion(target, probabilities.argmax(axis=1), classes),
        curves={spec.classes[index]: roc(target == index, probabilities[:, index]) for index in curved},
        verdicts=gating.judge(parsed, metrics),
    )


def _columns(data: Path, spec: ModelSpec) -> tuple[dict[str, npt.NDArray[Any]], str]:
    from components.content import content_hash, read_table

    table = read_table(data)
    wanted = [*(feature.name for feature in spec.features), spec.target]
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise DataError(f"{data} lacks the columns {', '.join(missing)}", "evaluate on what the split step wrote")
    if not len(table):
        raise DataError(f"{data} has no rows", "give a test set")
    return {name: table[name].to_numpy() for name in wanted}, content_hash(table)
