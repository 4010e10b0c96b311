"""What the predictor tells Prometheus, in the registry that KServe's /metrics shows.

Labels hold the served name, the model's version and words from fixed lists: nothing that a client chooses.
"""

from __future__ import annotations

from collections import Counter as Counted
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import Counter, Histogram

from serving.predictor.refusal import REASONS, Reason

PROTOCOLS = ("v1", "v2")
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_MODEL = ("service", "version")
_PREDICTIONS = Counter("kanary_predictions", "Rows predicted, by the class that came out", (*_MODEL, "class"))
_REQUESTS = Counter("kanary_requests", "Inference requests answered, by status", (*_MODEL, "protocol", "code"))
_ERRORS = Counter("kanary_request_errors", "Inference requests refused, by reason", (*_MODEL, "protocol", "reason"))
_SECONDS = Histogram(
    "kanary_request_duration_seconds",
    "From an inference request's headers to the end of its answer",
    (*_MODEL, "protocol"),
    buckets=BUCKETS,
)


@dataclass(frozen=True)
class Metrics:
    """The series of one model, by its served name and version."""

    service: str
    version: str

    def open(self, classes: Sequence[str]) -> None:
        """Put every series that a rate may be asked of at 0, so that its first event is an increase."""
        for name in classes:
            _PREDICTIONS.labels(self.service, self.version, name)
        for protocol in PROTOCOLS:
            _REQUESTS.labels(self.service, self.version, protocol, "200")
            _SECONDS.labels(self.service, self.version, protocol)
            for reason in REASONS:
                _ERRORS.labels(self.service, self.version, protocol, reason)

    def predicted(self, labels: Sequence[str]) -> None:
        """Count the rows of one answer by class."""
        for label, rows in Counted(labels).items():
            _PREDICTIONS.labels(self.service, self.version, label).inc(rows)

    def answered(self, protocol: str, code: int, seconds: float, reason: Reason | None = None) -> None:
        """Count one request, and why it was refused where it was."""
        _REQUESTS.labels(self.service, self.version, protocol, str(code)).inc()
        _SECONDS.labels(self.service, self.version, protocol).observe(seconds)
        if reason is not None:
            _ERRORS.labels(self.service, self.version, protocol, reason).inc()
