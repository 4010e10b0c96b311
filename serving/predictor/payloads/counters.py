"""What the payload log tells Prometheus. Labels hold the served name, the version and words from fixed lists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

OUTCOMES = (
    "sent",
    "sampled_out",
    "dropped_queue_full",  # more than the sender takes: a slow sink, or a busy machine
    "dropped_refused",  # the sink answered 4xx
    "dropped_failed",  # the sink failed at it every time
    "dropped_unredactable",
    "dropped_sender_died",
)

_MODEL = ("service", "version")
_EVENTS = Counter(
    "kanary_payload_events", "Events of the payload log, by what became of them", (*_MODEL, "type", "outcome")
)
_WAITING = Gauge("kanary_payload_queue_events", "Events of the payload log that wait to be sent", _MODEL)
_BYTES = Gauge("kanary_payload_queue_bytes", "Bytes of the payload log that wait to be sent", _MODEL)


@dataclass(frozen=True)
class Counters:
    """The series of one model's payload log."""

    service: str
    version: str

    def open(self, kinds: Iterable[str]) -> None:
        """Put every series at 0, so that its first event is an increase."""
        for kind in kinds:
            for outcome in OUTCOMES:
                _EVENTS.labels(self.service, self.version, kind, outcome)
        self.waiting(0, 0)

    def add(self, kind: str, outcome: str, number: int) -> None:
        """Count events."""
        _EVENTS.labels(self.service, self.version, kind, outcome).inc(number)

    def waiting(self, events: int, size: int) -> None:
        """Say how many events wait, and how many bytes."""
        _WAITING.labels(self.service, self.version).set(events)
        _BYTES.labels(self.service, self.version).set(size)
