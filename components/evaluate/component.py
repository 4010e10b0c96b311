"""The KFP interface of evaluate."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def evaluate(
    test_set: Input[Dataset],
    model: Input[Model],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
    report: Output[HTML],
    gates: dict,  # type: ignore[type-arg]  # kfp knows the bare type only
) -> NamedTuple("Outputs", [("passed", bool), ("verdicts", list)]):  # type: ignore[valid-type]  # kfp wants it inline
    """Measure a model on rows it has not seen and judge it by its gates. A closed gate does not fail the step.

    Args:
        test_set: The test part, from split.
        model: The model directory, from train; refused if it was altered since.
        gates: Bounds by metric, like {"accuracy": {"min": 0.9}, "log_loss": {"max": 0.3}}.

    Returns:
        passed: Whether every gate is open.
        verdicts: For each gate: metric, value, expectation, passed, reason.
    """
    import dataclasses
    import math
    from pathlib import Path

    from components.evaluate.evaluation import evaluate
    from components.evaluate.report import report_page
    from components.files import write_text
    from components.step import reporting

    with reporting():
        found = evaluate(Path(test_set.path), Path(model.path), gates, model.metadata.get("digest") or None)
        for name, value in found.metrics.items():
            if math.isfinite(value):  # JSON has no NaN; the verdicts and the report say what is undefined
                metrics.log_metric(name, value)
        metrics.log_metric("rows", found.rows)
        classification.log_confusion_matrix(list(found.spec.classes), found.confusion.tolist())
        if len(found.curves) == 1:  # the artifact holds one curve; the report shows those of every class
            curve = next(iter(found.curves.values()))
            classification.log_roc_curve(
                curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist(), curve.threshold.tolist()
            )
        write_text(Path(report.path), report_page(found))
        for verdict in found.verdicts:
            print(f"{'passed' if verdict.passed else 'FAILED'}: {verdict.reason}")
        return (found.passed, [dataclasses.asdict(verdict) for verdict in found.verdicts])
