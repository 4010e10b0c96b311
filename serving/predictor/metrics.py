"""What the predictor tells Prometheus, in the registry that KServe's /metrics shows.

Labels hold the served name, the model's version, names from model.json and words from fixed lists: nothing that a
client chooses.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from prometheus_client import Counter, Histogram

from kanary.modelspec import ModelSpec
from serving.model.preprocess import Encoded
from serving.predictor.refusal import REASONS, Reason

PROTOCOLS = ("v1", "v2", "grpc")
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

_MODEL = ("service", "version")
_PREDICTIONS = Counter("kanary_predictions", "Rows predicted, by the class that came out", (*_MODEL, "class"))
_FILLED = Counter(
    "kanary_filled_values",
    "Values missing, or categories unknown to training, that were treated as training did, by feature",
    (*_MODEL, "feature"),
)
_BATCH = Histogram("kanary_batch_rows", "Rows that went through the network together", _MODEL, buckets=ROWS)
_REQUESTS = Counter(
    "kanary_requests", "Inference requests answered, by HTTP or gRPC status", (*_MODEL, "protocol", "code")
)
_ERRORS = Counter("kanary_request_errors", "Inference requests refused, by reason", (*_MODEL, "protocol", "reason"))
_SECONDS = Histogram(
    "kanary_request_duration_seconds",
    "From an inference request's headers to the end of its answer",
    (*_MODEL, "protocol"),
    buckets=BUCKETS,
)


class Metrics:
    """The series of one model, served as `service`.

    Every series that a rate may be asked of stands at 0 from the start, so that its first event is an increase.
    """

    def __init__(self, service: str, spec: ModelSpec) -> None:
        model = (service, spec.version)
        self._classes = [_PREDICTIONS.labels(*model, name) for name in spec.classes]
        self._numeric = [_FILLED.labels(*model, feature.name) for feature in spec.numeric]
        self._categorical = [_FILLED.labels(*model, feature.name) for feature in spec.categorical]
        self._batch = _BATCH.labels(*model)
        # Looking a series up by its labels costs more than counting in it.
        self._request = cache(lambda protocol, code: _REQUESTS.labels(*model, protocol, str(code)))
        self._error = cache(lambda protocol, reason: _ERRORS.labels(*model, protocol, reason))
        self._seconds = cache(lambda protocol: _SECONDS.labels(*model, protocol))
        for protocol in PROTOCOLS:
            self._request(protocol, "OK" if protocol == "grpc" else 200)
            self._seconds(protocol)
            for reason in REASONS:
                self._error(protocol, reason)

    def predicted(self, rows: Encoded, probabilities: npt.NDArray[np.float64]) -> None:
        """Count the rows of one batch, by the class that came out, and what was filled in them."""
        self._batch.observe(len(rows))
        for series, count in zip(self._classes, np.bincount(probabilities.argmax(axis=1)).tolist(), strict=False):
            if count:
                series.inc(count)
        for columns, filled in ((self._numeric, np.isnan(rows.numbers)), (self._categorical, rows.indices == 0)):
            if filled.any():
                for series, count in zip(columns, filled.sum(axis=0).tolist(), strict=True):
                    series.inc(count)

    def answered(self, protocol: str, code: int | str, seconds: float, reason: Reason | None = None) -> None:
        """Count one request, and why it was refused where it was. `code`: HTTP status, or gRPC's name for its."""
        self._request(protocol, code).inc()
        self._seconds(protocol).observe(seconds)
        if reason is not None:
            self._error(protocol, reason).inc()
