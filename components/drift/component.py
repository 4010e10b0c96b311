# ruff: noqa: B006 -- kfp wants defaults it can write down
"""The KFP interface of drift."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Metrics, Output

from components.images import image


@dsl.component(base_image=image("drift"), install_kfp_package=False)
def drift(
    reference: Input[Dataset],
    current: Input[Dataset],
    metrics: Output[Metrics],
    report: Output[HTML],
    columns: list = [],  # type: ignore[type-arg]  # kfp knows the bare type only
    p_value: float = 0.05,
    correction: str = "bonferroni",
    multivariate: str = "mmd",
) -> NamedTuple("Outputs", [("drifts", bool), ("features", list)]):  # type: ignore[valid-type]  # kfp wants it inline
    """Compare two data sets, such as what a model was trained on and what it was asked since. Drift does not fail it.

    Args:
        reference: Rows to compare with, as Parquet; what ingest, validate or split wrote.
        current: Rows to be compared.
        columns: The columns to compare; empty: all that both have.
        p_value: Level of the tests, before the correction.
        correction: For their number: bonferroni or fdr.
        multivariate: Test of all columns together: mmd, lsdd, classifier or none.

    Returns:
        drifts: Whether any column drifts, or all of them together.
        features: The columns that do, the surest first.
    """
    from pathlib import Path

    from components.drift.comparison import compare
    from components.drift.report import report_page
    from components.drift.tables import pair
    from components.files import write_text
    from components.step import reporting

    with reporting():
        found = pair(Path(reference.path), Path(current.path), columns)
        comparison = compare(found, p_value, correction, multivariate)
        metrics.log_metric("columns", len(comparison.columns))
        metrics.log_metric("drifting_columns", len(comparison.names))
        metrics.log_metric("threshold", comparison.threshold)
        write_text(Path(report.path), report_page("Drift", found, comparison))
        for one in comparison.columns[:20]:
            print(f"{'drifts' if one.drifts else 'does not drift'}: {one.feature.name} (p = {one.score.p_value:.3g})")
        return (comparison.drifts, comparison.names)
