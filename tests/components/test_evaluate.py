from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as peer
from kfp import dsl

from components.evaluate import gates as gating
from components.evaluate.component import evaluate as evaluate_component
from components.evaluate.evaluation import Evaluation, evaluate
from components.evaluate.metrics import NAMES, calibration_error, confusion, roc, scores
from components.evaluate.report import report_page
from kanary.errors import DataError, GateError, ModelError
from kanary.modelspec import SPEC, WEIGHTS
from tests.components.tables import QUICK, columns, parquet, trained

GOOD = {"accuracy": {"min": 0.8}, "log_loss": {"max": 0.6}}
LEARNT = dataclasses.replace(QUICK, epochs=40, learning_rate=0.02, patience=10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("two"), settings=LEARNT)[0]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("three"), classes=3, settings=LEARNT)[0]


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    return parquet(tmp_path / "test.parquet", columns(rows=200, seed=7))


def drawn(rows: int, classes: int, seed: int, ties: bool = False) -> tuple[Any, Any]:
    """Class indices and probabilities that know something about them; `ties` makes many scores equal."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[target]
    probabilities = np.exp(np.round(logits) if ties else logits)
    return target, probabilities / probabilities.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("ties", [False, True])
def test_metrics_agree_with_scikit_learn(classes: int, ties: bool) -> None:
    target, probabilities = drawn(500, classes, seed=classes, ties=ties)
    predicted = probabilities.argmax(axis=1)
    averaged: dict[str, Any] = {"average": "binary" if classes == 2 else "macro"}
    score = probabilities[:, 1] if classes == 2 else probabilities
    expected = {
        "accuracy": peer.accuracy_score(target, predicted),
        "balanced_accuracy": peer.balanced_accuracy_score(target, predicted),
        "precision": peer.precision_score(target, predicted, **averaged),
        "recall": peer.recall_score(target, predicted, **averaged),
        "f1": peer.f1_score(target, predicted, **averaged),
        "auc": peer.roc_auc_score(target, score, multi_class="ovr"),
        "log_loss": peer.log_loss(target, probabilities),
    }
    found = scores(target, probabilities)
    assert tuple(found) == NAMES
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    matrix = confusion(target, predicted, classes)
    assert matrix.tolist() == peer.confusion_matrix(target, predicted).tolist()


def test_a_class_nobody_predicts_counts_as_scikit_learn_counts_it() -> None:
    target = np.array([0, 1, 2, 2])
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.1, 0.8, 0.1], [0.6, 0.4, 0.0]])
    found = scores(target, probabilities)
    predicted = probabilities.argmax(axis=1)
    for name, function in (("precision", peer.precision_score), ("f1", peer.f1_score), ("recall", peer.recall_score)):
        assert found[name] == pytest.approx(function(target, predicted, average="macro", zero_division=0))
    assert found["log_loss"] == pytest.approx(peer.log_loss(target, probabilities, labels=[0, 1, 2]))


@pytest.mark.parametrize("ties", [False, True])
def test_the_roc_curve_agrees_with_scikit_learn_and_stays_finite(ties: bool) -> None:
    target, probabilities = drawn(120, 2, seed=4, ties=ties)
    curve = roc(target == 1, probabilities[:, 1])
    false, true, threshold = peer.roc_curve(target, probabilities[:, 1])
    assert curve.false_positive_rate == pytest.approx(false)
    assert curve.true_positive_rate == pytest.approx(true)
    assert curve.threshold[1:] == pytest.approx(threshold[1:])
    assert curve.threshold[0] == 1.0


def test_a_long_roc_curve_is_thinned_and_keeps_its_area() -> None:
    target, probabilities = drawn(20_000, 2, seed=5)
    curve = roc(target == 1, probabilities[:, 1])
    assert len(curve.threshold) == 200
    assert (curve.false_positive_rate[0], curve.true_positive_rate[0]) == (0.0, 0.0)
    assert (curve.false_positive_rate[-1], curve.true_positive_rate[-1]) == (1.0, 1.0)
    area = peer.auc(curve.false_positive_rate, curve.true_positive_rate)
    assert area == pytest.approx(peer.roc_auc_score(target, probabilities[:, 1]), abs=0.002)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    probabilities = np.array([[0.75, 0.25]] * 4)
    assert calibration_error(np.array([0, 0, 0, 1]), probabilities) == pytest.approx(0.0)
    assert calibration_error(np.array([1, 1, 1, 1]), probabilities) == pytest.approx(0.75)


def test_what_is_undefined_is_nan_and_never_a_guess() -> None:
    found = scores(np.array([1, 1]), np.array([[0.2, 0.8], [0.4, 0.6]]))
    assert math.isnan(found["auc"])
    assert found["accuracy"] == 1.0
    assert len(roc(np.array([True, True]), np.array([0.8, 0.6])).threshold) == 0
    assert math.isnan(scores(np.array([0, 1]), np.array([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1]]))["auc"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_probabilities_that_are_no_numbers_are_the_models_fault(value: float) -> None:
    with pytest.raises(ModelError, match="first for row 2"):
        scores(np.array([0, 1]), np.array([[0.5, 0.5], [value, 0.5]]))


@pytest.mark.parametrize(
    ("gate", "value", "passes", "reason"),
    [
        ({"accuracy": {"min": 0.9}}, 0.9, True, "accuracy is 0.9; at least 0.9 is asked."),
        ({"accuracy": {"min": 0.9}}, 0.81234, False, "accuracy is 0.8123, below the minimum of 0.9."),
        ({"accuracy": {"min": 0.9}}, 0.8999999, False, "accuracy is 0.8999999, below the minimum of 0.9."),
        ({"log_loss": {"max": 0.3}}, 0.3, True, "log_loss is 0.3; at most 0.3 is asked."),
        ({"log_loss": {"max": 0.3}}, 0.5, False, "log_loss is 0.5, above the maximum of 0.3."),
        ({"auc": {"min": 0.5}}, math.nan, False, "auc is undefined on this test set; at least 0.5 is asked."),
        ({"log_loss": {"max": 0.3}}, -math.inf, False, "log_loss is undefined on this test set; at most 0.3 is asked."),
    ],
)
def test_a_verdict_says_why(gate: dict[str, Any], value: float, passes: bool, reason: str) -> None:
    (verdict,) = gating.judge(gating.parse(gate), {next(iter(gate)): value})
    assert (verdict.passed, verdict.reason) == (passes, reason)
    assert verdict.value == (value if math.isfinite(value) else None)
    json.dumps(dataclasses.asdict(verdict), allow_nan=False)


def test_a_metric_that_is_missing_never_passes() -> None:
    (verdict,) = gating.judge(gating.parse({"ece": {"max": 1.0}}), {"accuracy": 1.0})
    assert not verdict.passed
    assert verdict.value is None


def test_every_bound_is_judged_and_all_must_hold() -> None:
    verdicts = gating.judge(gating.parse({"f1": {"min": 0.2, "max": 0.6}, "auc": {"min": 0.5}}), {"f1": 0.7, "auc": 1})
    assert [verdict.passed for verdict in verdicts] == [True, False, True]
    assert not gating.passed(verdicts)
    assert gating.passed(verdicts[:1])
    assert not gating.passed([])


@pytest.mark.parametrize(
    "gates",
    [
        {},
        None,
        [],
        "accuracy > 0.9",
        {"acuracy": {"min": 0.9}},
        {"rows": {"min": 1}},
        {"accuracy": 0.9},
        {"accuracy": {}},
        {"accuracy": None},
        {"accuracy": {"minimum": 0.9}},
        {"accuracy": {"min": 0.9, "margin": 1}},
        {"accuracy": {"min": "0.9"}},
        {"accuracy": {"min": None}},
        {"accuracy": {"min": True}},
        {"accuracy": {"min": math.nan}},
        {"accuracy": {"min": -math.inf}},
        {"log_loss": {"max": math.inf}},
        {"log_loss": {"max": 10**400}},
    ],
)
def test_a_gate_that_cannot_be_judged_is_an_error(gates: Any) -> None:
    with pytest.raises(GateError) as caught:
        gating.parse(gates)
    assert caught.value.hint


def test_a_good_model_passes_and_a_bad_one_is_refused_with_a_reason(
    model: Path, test_set: Path, tmp_path: Path
) -> None:
    good = evaluate(test_set, model, GOOD)
    assert good.passed
    assert good.rows == 200
    shuffled = columns(rows=200, seed=7)
    shuffled["kind"] = [{"moss": "fern", "fern": "moss"}[kind] for kind in shuffled["kind"]]
    bad = evaluate(parquet(tmp_path / "bad.parquet", shuffled), model, GOOD)
    assert not bad.passed
    assert bad.metrics["accuracy"] == pytest.approx(1 - good.metrics["accuracy"])
    assert [verdict.reason for verdict in bad.verdicts if "below the minimum of 0.8" in verdict.reason]


def test_the_rows_are_measured_as_the_model_predicts_them(three: Path, tmp_path: Path) -> None:
    data = parquet(tmp_path / "test.parquet", columns(rows=150, classes=3, seed=8))
    found = evaluate(data, three, {"auc": {"min": 0.9}})
    assert found.confusion.sum() == 150
    assert np.trace(found.confusion) / 150 == pytest.approx(found.metrics["accuracy"])
    assert list(found.curves) == ["moss", "fern", "palm"]
    assert found.passed


def test_an_altered_model_is_not_measured(model: Path, test_set: Path, tmp_path: Path) -> None:
    digest = evaluate(test_set, model, GOOD).spec.digest()
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert evaluate(test_set, copy, GOOD, digest).passed
    (copy / SPEC).write_text((model / SPEC).read_text(encoding="utf-8").replace('"fern"', '"fir"'), encoding="utf-8")
    with pytest.raises(ModelError, match=SPEC):
        evaluate(test_set, copy, GOOD, digest)
    (copy / WEIGHTS).write_bytes(b"")
    with pytest.raises(ModelError, match=WEIGHTS):
        evaluate(test_set, copy, GOOD)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda values: values.pop("leaves"), "lacks the columns leaves"),
        (lambda values: values.pop("kind"), "lacks the columns kind"),
        (lambda values: values.update(kind=["palm"] * 20), "'palm' is no class"),
        (lambda values: values.update({name: [] for name in values}), "has no rows"),
    ],
)
def test_a_test_set_that_does_not_fit_is_refused(
    model: Path, tmp_path: Path, change: Callable[[dict[str, list[Any]]], Any], told: str
) -> None:
    values = columns(rows=20)
    change(values)
    with pytest.raises(DataError, match=told):
        evaluate(parquet(tmp_path / "test.parquet", values), model, GOOD)


def test_the_report_is_one_page_that_escapes_names_and_says_what_is_undefined(model: Path, tmp_path: Path) -> None:
    values = columns(rows=40, seed=7)
    ferns = [row for row, kind in enumerate(values["kind"]) if kind == "fern"]
    data = parquet(tmp_path / "test.parquet", {name: [column[row] for row in ferns] for name, column in values.items()})
    found = evaluate(data, model, {"auc": {"min": 0.9}})
    spec = dataclasses.replace(found.spec, classes=("<script>", "a&b"))
    text = report_page(dataclasses.replace(found, spec=spec))
    assert "auc is undefined on this test set; at least 0.9 is asked." in text
    assert "&lt;script&gt;" in text
    assert "a&amp;b" in text
    assert not re.search(r"<script|<link|src=|href=|<polyline", text)
    assert "nan" not in text


def test_the_report_draws_the_roc_curve(model: Path, test_set: Path) -> None:
    text = report_page(evaluate(test_set, model, GOOD))
    assert len(re.findall("<polyline", text)) == 2  # chance, and the curve
    assert "passed every gate" in text


def run_component(model: Path, data: Path, folder: Path, gates: dict[str, Any]) -> tuple[Any, ...]:
    """The component's outputs, and its artifacts as the launcher would store them: as JSON."""
    metrics = dsl.Metrics(uri=str(folder / "metrics"))
    classification = dsl.ClassificationMetrics(uri=str(folder / "classification"))
    outputs = evaluate_component.python_func(
        test_set=dsl.Dataset(uri=str(data)),
        model=dsl.Model(uri=str(model)),
        metrics=metrics,
        classification=classification,
        report=dsl.HTML(uri=str(folder / "report.html")),
        gates=gates,
    )
    stored = [metrics.metadata, classification.metadata, outputs[1]]
    return outputs[0], *(json.loads(json.dumps(value, allow_nan=False)) for value in stored)


def test_the_component_fills_its_artifacts(model: Path, test_set: Path, tmp_path: Path) -> None:
    passed, metrics, classification, verdicts = run_component(model, test_set, tmp_path, GOOD)
    assert passed is True
    assert set(metrics) == {*NAMES, "rows"}
    names = [spec["displayName"] for spec in classification["confusionMatrix"]["annotationSpecs"]]
    assert names == ["moss", "fern"]
    assert sum(sum(row["row"]) for row in classification["confusionMatrix"]["rows"]) == 200
    first, last = classification["confidenceMetrics"][0], classification["confidenceMetrics"][-1]
    assert first == {"confidenceThreshold": 1.0, "recall": 0.0, "falsePositiveRate": 0.0}
    assert (last["recall"], last["falsePositiveRate"]) == (1.0, 1.0)
    assert [sorted(verdict) for verdict in verdicts] == [["expectation", "metric", "passed", "reason", "value"]] * 2
    assert "Evaluation of plants" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_component_stores_no_nan_when_a_class_is_absent(model: Path, tmp_path: Path) -> None:
    values = columns(rows=40, seed=7)
    ferns = [row for row, kind in enumerate(values["kind"]) if kind == "fern"]
    data = parquet(tmp_path / "test.parquet", {name: [column[row] for row in ferns] for name, column in values.items()})
    passed, metrics, classification, verdicts = run_component(model, data, tmp_path, {"auc": {"min": 0.0}})
    assert passed is False
    assert "auc" not in metrics
    assert "confidenceMetrics" not in classification
    assert verdicts[0]["value"] is None


def test_an_evaluation_without_verdicts_has_not_passed(model: Path, test_set: Path) -> None:
    found: Evaluation = evaluate(test_set, model, GOOD)
    assert not dataclasses.replace(found, verdicts=()).passed
