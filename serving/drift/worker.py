"""The process that runs alibi-detect: one message in, one answer out, until stdin ends.

`python -P -m serving.drift.worker`. It keeps what it has fitted, and every question says all that is needed to fit it
anew.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kanary import modelspec
from kanary.errors import KanaryError
from kanary.modelspec import CategoricalFeature
from serving.drift import calibration, detectors, shapes
from serving.drift.findings import Score
from serving.drift.frames import Array, Message, pack, read
from serving.drift.table import Column, Table, standardised, table_of
from serving.model.store import reference_rows

_FITTED = 32
_TESTS = 16
_OUTLIERS_NAMED = 10
_log = logging.getLogger(__name__)


@dataclass
class Fitted:
    """One model's reference, and the detectors built on it when they were first asked for.

    `categories`: what the indices of its categorical features stand for, from 1 on.
    """

    reference: Table
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    forest: Any = None
    online: dict[str, Any] = field(default_factory=dict)
    tests: dict[tuple[tuple[Column, ...], int], detectors.Univariate] = field(default_factory=dict)


class Worker:
    """Answers messages. What it holds is bounded: what was not asked for longest goes."""

    def __init__(self) -> None:
        self._fitted: OrderedDict[str, Fitted] = OrderedDict()
        self._concepts: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.operations: dict[str, Callable[[dict[str, Any], dict[str, Array]], dict[str, Any]]] = {
            "check": self.check,
            "compare": self.compare,
            "concept": self.concept,
        }

    def answer(self, message: Message) -> dict[str, Any]:
        """What comes of one message; an expected failure is an answer, too."""
        told = dict(message.told)
        try:
            return self.operations[told["op"]](told, dict(message.arrays))
        except KanaryError as error:
            return {"error": str(error)}

    def check(self, told: dict[str, Any], arrays: dict[str, Array]) -> dict[str, Any]:
        """A window's rows against the reference of its model, its predictions against those of an earlier window."""
        fitted = self._fit(told)
        names = [name for name in told["columns"] if name not in told["unwatched"]]
        reference = fitted.reference.only(names)
        scores: list[Score] = []
        outliers: list[int] = []
        online: dict[str, Any] = {}
        if len(arrays["rows"]):
            window = Table(fitted.reference.columns, arrays["rows"]).only(names)
            if reference.columns:
                scores += self._tests(fitted, reference, len(window)).scores(window)
            scores += detectors.multivariate(
                told["multivariate"], reference, window, told["permutations"], told["window"]
            )
            outliers = self._outliers(fitted, window, reference, told)
            online = self._online(fitted, window, reference, told)
        if len(arrays["predictions"]) and len(arrays["before"]):
            scores += _predictions(arrays["before"], arrays["predictions"], told["classes"])
        return {
            "scores": [asdict(score) for score in scores],
            "shapes": shapes.as_json(_shapes(fitted, scores, told, arrays)),
            "outliers": len(outliers),
            "outlier_rows": outliers[:_OUTLIERS_NAMED],
            "online": online,
        }

    def compare(self, told: dict[str, Any], arrays: dict[str, Array]) -> dict[str, Any]:
        """Two arms on the same traffic: the scores of their rows and of their predictions."""
        columns = tuple(Column(name, size) for name, size in told["columns"])
        scores: list[Score] = []
        if len(arrays["rows"]) and len(arrays["stable_rows"]):
            scores += detectors.univariate(Table(columns, arrays["stable_rows"]), Table(columns, arrays["rows"]))
        if len(arrays["predictions"]) and len(arrays["stable_predictions"]):
            scores += _predictions(arrays["stable_predictions"], arrays["predictions"], told["classes"])
        return {"scores": [asdict(score) for score in scores]}

    def concept(self, told: dict[str, Any], arrays: dict[str, Array]) -> dict[str, Any]:
        """Labelled rows that came since, one after the other: by test, whether it detects, and its last figures."""
        key = told["stream"]
        if key not in self._concepts or told["anew"]:
            self._concepts[key] = calibration.concept(
                arrays["errors"].astype(bool), arrays["doubts"], told["ert"], Path(told["cache"])
            )
            _bound(self._concepts)
        found = {}
        for name, detector in self._concepts[key].items():
            values = arrays["fresh_errors"] if name == "fet" else arrays["fresh_doubts"]
            found[name] = _fed(detector, values.astype(np.int64) if name == "fet" else values)
        return {"tests": found}

    def _fit(self, told: dict[str, Any]) -> Fitted:
        key = told["key"]
        if key not in self._fitted:
            spec = modelspec.verify(Path(told["model"]))
            rows = reference_rows(Path(told["model"]), spec)
            columns = {name: rows.column(name).to_pylist() for name in told["columns"]}
            categories = {one.name: one.categories for one in spec.features if isinstance(one, CategoricalFeature)}
            self._fitted[key] = Fitted(table_of(spec.features, columns), categories)
            _bound(self._fitted)
        self._fitted.move_to_end(key)
        return self._fitted[key]

    def _tests(self, fitted: Fitted, reference: Table, rows: int) -> detectors.Univariate:
        """The tests for windows of about so many rows: what is rare in 1,013 is rare in 1,000."""
        digits = max(0, len(str(rows)) - 2)
        about = rows // 10**digits * 10**digits
        key = (reference.columns, about)
        if key not in fitted.tests:
            if len(fitted.tests) >= _TESTS:
                fitted.tests.clear()
            fitted.tests[key] = detectors.prepared(reference, about)
        return fitted.tests[key]

    def _outliers(self, fitted: Fitted, window: Table, reference: Table, told: dict[str, Any]) -> list[int]:
        if not told["outlier_share"] or not reference.columns:
            return []
        if fitted.forest is None or fitted.forest[0] != reference.columns:
            values = standardised(reference, reference)
            made = calibration.forest(values, told["outlier_share"], Path(told["cache"]))
            fitted.forest = (reference.columns, made)
        found = fitted.forest[1].predict(standardised(reference, window))["data"]["is_outlier"]
        return [int(row) for row in np.flatnonzero(found)]

    def _online(self, fitted: Fitted, window: Table, reference: Table, told: dict[str, Any]) -> dict[str, Any]:
        if told["online"] == "none" or not reference.columns:
            return {}
        stream = told["stream"]
        if stream not in fitted.online:
            values = standardised(reference, reference)
            made = calibration.online(told["online"], values, told["online_ert"], Path(told["cache"]))
            fitted.online[stream] = made
        return {told["online"]: _fed(fitted.online[stream], standardised(reference, window))}


def _predictions(before: Array, after: Array, classes: list[str]) -> list[Score]:
    """Labels by chi-squared, every class's probability by KS."""
    return detectors.univariate(_answers(before, classes), _answers(after, classes), "prediction")


def _answers(predictions: Array, classes: list[str]) -> Table:
    """Labels and probabilities as columns; of two classes the second's probability tells all."""
    shown = classes[1:] if len(classes) == 2 else classes
    keep = [0, *(1 + classes.index(name) for name in shown)]
    columns = (Column("label", len(classes)), *(Column(f"P({name})") for name in shown))
    return Table(columns, predictions[:, keep])


def _shapes(fitted: Fitted, scores: list[Score], told: dict[str, Any], arrays: dict[str, Array]) -> list[shapes.Shape]:
    """How the columns that drift most are spread."""
    found: list[shapes.Shape] = []
    if names := shapes.worst(scores, "feature", told["plotted"]):
        window = Table(fitted.reference.columns, arrays["rows"])
        found += shapes.shapes(fitted.reference, window, "feature", names, fitted.categories)
    if names := shapes.worst(scores, "prediction", told["plotted"]):
        before, after = (_answers(arrays[side], told["classes"]) for side in ("before", "predictions"))
        found += shapes.shapes(before, after, "prediction", names, {"label": told["classes"]})
    return found


def _fed(detector: Any, values: Array) -> dict[str, Any]:
    """Feed an online detector row by row; it begins anew after each detection."""
    detections, statistic, threshold = 0, 0.0, 0.0
    with detectors.quiet():
        for value in values:
            data = detector.predict(np.atleast_1d(value))["data"]
            # It would keep what it ever found, and copy it all with every row; the newest is what it goes on from.
            detector.test_stats, detector.drift_preds = detector.test_stats[-1:], detector.drift_preds[-1:]
            if data["is_drift"]:
                detections += 1
                detector.reset_state()
            statistic = float(np.nanmax(np.append(np.ravel(np.asarray(data["test_stat"])), -np.inf)))
            threshold = float(np.nanmin(np.append(np.ravel(np.asarray(data["threshold"])), np.inf)))
    finite = bool(np.isfinite([statistic, threshold]).all())
    return {
        "detections": detections,
        "rows": len(values),
        "statistic": statistic if finite else None,
        "threshold": threshold if finite else None,
    }


def _bound(held: OrderedDict[str, Any]) -> None:
    while len(held) > _FITTED:
        held.popitem(last=False)


def main() -> None:
    """Import, say so, and answer until stdin ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    try:
        detectors.load()
    except ImportError as error:
        print(f'drift: {error}; install it with pip install "kanary[drift]"', file=sys.stderr, flush=True)
        sys.exit(78)
    worker = Worker()
    reply: dict[str, Any] = {"ready": True}
    while True:
        outgoing.writelines(pack(Message(reply)))
        outgoing.flush()
        message = read(incoming.read)
        if message is None:
            return
        try:
            reply = worker.answer(message)
        except Exception as error:  # noqa: BLE001 - this process's outermost loop; logged whole, and told
            _log.exception("a check failed")
            reply = {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main()
