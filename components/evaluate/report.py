"""An evaluation as a page for the Kubeflow UI: verdicts first, then what they rest on."""

from __future__ import annotations

import math

from components.evaluate.evaluation import Evaluation
from components.page import Cell, Line, heading, line_chart, number, page, paragraph, table

_CURVES = 10  # more lines could no longer be told apart


def report_page(evaluation: Evaluation) -> str:
    """A self-contained HTML page: verdicts with reasons, metrics, confusion matrix, ROC curves, the model's origin."""
    spec = evaluation.spec
    verdict = "passed every gate" if evaluation.passed else "did not pass its gates"
    return page(
        f"Evaluation of {spec.name} {spec.version}",
        paragraph(f"The model {verdict} on {number(evaluation.rows)} test rows."),
        heading("Gates"),
        table(["Metric", "Value", "Expected", "Verdict", "Reason"], _verdict_rows(evaluation)),
        heading("Metrics"),
        table(["Metric", "Value"], [(name, _figure(value)) for name, value in evaluation.metrics.items()]),
        heading("Confusion matrix"),
        table(["True class", *(f"predicted {name}" for name in spec.classes)], _confusion_rows(evaluation)),
        *_roc_parts(evaluation),
        heading("Origin"),
        table(["", ""], _origin_rows(evaluation)),
    )


def _verdict_rows(evaluation: Evaluation) -> list[list[str | Cell]]:
    return [
        [
            verdict.metric,
            _figure(verdict.value),
            verdict.expectation,
            Cell("passed", "good") if verdict.passed else Cell("failed", "bad"),
            verdict.reason,
        ]
        for verdict in evaluation.verdicts
    ]


def _figure(value: float | None) -> str:
    return "undefined" if value is None or not math.isfinite(value) else number(value)


def _confusion_rows(evaluation: Evaluation) -> list[list[str]]:
    counted = zip(evaluation.spec.classes, evaluation.confusion.tolist(), strict=True)
    return [[name, *(number(count) for count in counts)] for name, counts in counted]


def _roc_parts(evaluation: Evaluation) -> list[str]:
    drawn = {name: curve for name, curve in evaluation.curves.items() if len(curve.threshold)}
    if not drawn:
        return []
    lines = [
        Line(name, list(zip(curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist(), strict=True)))
        for name, curve in list(drawn.items())[:_CURVES]
    ]
    chart = line_chart(lines, "false positive rate", "true positive rate", diagonal=True)
    cut = [paragraph(f"The first {_CURVES} of {len(drawn)} classes.")] if len(drawn) > _CURVES else []
    return [heading("ROC curve"), chart, *cut]


def _origin_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    spec = evaluation.spec
    return [
        ("Model digest", spec.digest()),
        ("Trained on", f"{number(spec.lineage.rows)} rows, sha256 {spec.lineage.data_sha256}"),
        ("Tested on", f"{number(evaluation.rows)} rows, sha256 {evaluation.data_sha256}"),
        ("Seed", str(spec.lineage.seed)),
        ("Versions", f"kanary {spec.lineage.code_version}, torch {spec.lineage.torch}, {spec.training.device}"),
    ]
