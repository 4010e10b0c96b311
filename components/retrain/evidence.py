"""What Prometheus knows of a service's drift and accuracy, as the policy wants it. Decides nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kanary.policy import Evidence
from kanary.promql import further
from kanary.rollout.prometheus import Sample

# Prometheus answers with what was scraped in the last minutes: a detector that is gone says nothing.
_METRICS = (
    "kanary_drift_verdict",
    "kanary_drift_detected",
    "kanary_drift_accuracy",
    "kanary_drift_accuracy_rows",
    "kanary_drift_accuracy_baseline",
    "kanary_drift_events_total",
)


def query(namespace: str, service: str, selectors: Mapping[str, str]) -> str:
    """The PromQL for all that is needed of one service; `selectors`: further label matchers."""
    names = "|".join(_METRICS)
    labels = {"namespace": namespace, "service": service} | dict(selectors)
    return f'{{__name__=~"{names}"{further({name: value for name, value in labels.items() if value})}}}'


def evidence(samples: Sequence[Sample], revision: str) -> Evidence:
    """What the samples say of a revision's model; whose it is, the caller fills in.

    Rows are counted by events: a service that is mostly asked for one row at a time.
    """
    kept = [sample for sample in samples if sample.labels.get("revision", "") == revision]
    counted = [sample.value for sample in kept if sample.labels["__name__"] == "kanary_drift_events_total"]

    def value(metric: str, **labels: str) -> float | None:
        for sample in kept:
            if sample.labels["__name__"] == metric and labels.items() <= sample.labels.items():
                return None if math.isnan(sample.value) else sample.value
        return None

    verdicts = [name for name in ("drift", "no drift") if value("kanary_drift_verdict", verdict=name) == 1]
    drifting = sorted(
        sample.labels["feature"]
        for sample in kept
        if sample.labels["__name__"] == "kanary_drift_detected" and sample.value == 1
    )
    return Evidence(
        namespace="",
        service="",
        version="",
        verdict=verdicts[0] if verdicts else "unknown",
        drifting=tuple(drifting),
        accuracy=value("kanary_drift_accuracy", bound="value"),
        accuracy_high=value("kanary_drift_accuracy", bound="high"),
        accuracy_rows=int(value("kanary_drift_accuracy_rows") or 0),
        baseline=value("kanary_drift_accuracy_baseline"),
        new_rows=int(max(counted)) if counted else None,
    )
