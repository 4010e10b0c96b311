"""The learning curve of one training as a page for the Kubeflow UI."""

from __future__ import annotations

from components.page import Line, line_chart, number, page, paragraph
from components.train.training import Trained


def learning_curve(trained: Trained) -> str:
    """A self-contained HTML page: both losses by epoch, which epoch was kept, on what and how fast it ran."""
    history, best = trained.fit.history, trained.fit.best
    lines = [
        Line("fitted", [(epoch.number, epoch.loss) for epoch in history]),
        Line("held out", [(epoch.number, epoch.validation_loss) for epoch in history]),
    ]
    return page(
        f"Training of {trained.spec.name} {trained.spec.version}",
        line_chart(lines, "epoch", "log-loss"),
        paragraph(
            f"Epoch {best.number} of {len(history)} was kept: validation log-loss {number(best.validation_loss)} "
            f"on {trained.spec.training.validation_rows} rows held out."
        ),
        paragraph(f"Device: {trained.device}; {number(round(trained.fit.rows_per_second))} rows a second."),
    )
