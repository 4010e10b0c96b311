"""What a classifier's probabilities are worth, in numpy: scores, confusion matrix, ROC curve.

Definitions are scikit-learn's (the tests compare with it). A score that is undefined is NaN, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kanary.errors import ModelError

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

NAMES = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "auc", "log_loss", "ece")

_ROC_POINTS = 200
_ECE_BINS = 15


@dataclass(frozen=True)
class Curve:
    """A ROC curve from (0, 0) to (1, 1); `threshold` is the score from which a row counts as positive."""

    false_positive_rate: Floats
    true_positive_rate: Floats
    threshold: Floats


def scores(target: Indices, probabilities: Floats) -> dict[str, float]:
    """Every metric of NAMES, from class indices [rows] and probabilities [rows, classes].

    Of two classes the last is the positive one; of more, precision, recall, f1 and auc are means over the classes
    (auc: one against the rest). NaN where a score is undefined. ModelError for probabilities that are not finite.
    """
    broken = ~np.isfinite(probabilities).all(axis=1)
    if broken.any():
        raise ModelError(
            f"the model gives no probability for {broken.sum()} rows, first for row {np.argmax(broken) + 1}",
            "its weights are unsound: train it again",
        )
    classes = probabilities.shape[1]
    matrix = confusion(target, probabilities.argmax(axis=1), classes)
    actual, predicted, right = matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)
    recall = _ratio(right, actual)
    chosen = slice(1, 2) if classes == 2 else slice(None)
    return {
        "accuracy": float(right.sum() / len(target)) if len(target) else float("nan"),
        "balanced_accuracy": float(recall[actual > 0].mean()) if len(target) else float("nan"),
        "precision": float(_ratio(right, predicted)[chosen].mean()),
        "recall": float(recall[chosen].mean()),
        "f1": float(_ratio(2 * right, actual + predicted)[chosen].mean()),
        "auc": float(np.mean([auc(target == index, probabilities[:, index]) for index in range(classes)][chosen])),
        "log_loss": log_loss(target, probabilities),
        "ece": calibration_error(target, probabilities),
    }


def confusion(target: Indices, predicted: Indices, classes: int) -> Indices:
    """Counts [classes, classes]: the row is the true class, the column the predicted one."""
    return np.bincount(target * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def auc(positive: npt.NDArray[np.bool_], score: Floats) -> float:
    """Area under the ROC curve, ties counted half; NaN when only one of the two classes occurs."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return float("nan")
    _, group, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(target: Indices, probabilities: Floats) -> float:
    """Mean cross-entropy in nats; a probability of 0 counts as the smallest float64 step, as in scikit-learn."""
    if not len(target):
        return float("nan")
    step = np.finfo(np.float64).eps
    return float(-np.log(np.clip(probabilities[np.arange(len(target)), target], step, 1 - step)).mean())


def calibration_error(target: Indices, probabilities: Floats) -> float:
    """Expected calibration error over 15 equal bins of the top probability (Guo et al., 2017)."""
    if not len(target):
        return float("nan")
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == target) - confidence
    bins = np.minimum((confidence * _ECE_BINS).astype(np.int64), _ECE_BINS - 1)
    return float(np.abs(np.bincount(bins, weights=gap, minlength=_ECE_BINS)).sum() / len(target))


def roc(positive: npt.NDArray[np.bool_], score: Floats) -> Curve:
    """The ROC curve in at most 200 points, all finite: the first threshold is 1, where scikit-learn has infinity.

    Empty when only one of the two classes occurs.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return Curve(np.zeros(0), np.zeros(0), np.zeros(0))
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    true, false = np.cumsum(positive[order])[last], np.cumsum(~positive[order])[last]
    corners = np.ones(len(last), bool)  # points on a straight stretch add nothing
    corners[1:-1] = (np.diff(true, 2) != 0) | (np.diff(false, 2) != 0)
    kept = np.flatnonzero(corners)
    if len(kept) >= _ROC_POINTS:
        kept = kept[np.linspace(0, len(kept) - 1, _ROC_POINTS - 1).round().astype(np.int64)]
    return Curve(
        np.concatenate([[0.0], false[kept] / negatives]),
        np.concatenate([[0.0], true[kept] / positives]),
        np.concatenate([[1.0], score[order][last][kept]]),
    )


def _ratio(part: Indices, whole: Indices) -> Floats:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
