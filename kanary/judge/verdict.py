"""The verdict on one rollout, with its reasons: in figures, and in one sentence that a person understands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kanary.judge.decide import KINDS, NEED_DATA, PAUSE, PROMOTE, ROLLBACK, approved, decide, rejected
from kanary.judge.evidence import Evidence
from kanary.judge.forecast import Needs, needs
from kanary.judge.reasons import Quantile, Reason, Test, quantiles, reasons_of, tests_of
from kanary.judge.sentences import notes, sentence

__all__ = [
    "KINDS", "NEED_DATA", "PAUSE", "PROMOTE", "ROLLBACK",
    "Needs", "Quantile", "Reason", "Test", "Verdict", "approved", "decide", "rejected", "verdict",
]  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """One of KINDS, why in one sentence for a person, and the figures behind it.

    notes  what else a person should know: what is not judged, what is not resolvable, which guarantee does not hold
    """

    kind: str
    sentence: str
    reasons: tuple[Reason, ...]
    tests: tuple[Test, ...]
    latency: tuple[Quantile, ...] = ()
    notes: tuple[str, ...] = ()
    needs: Needs | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; figures that are not finite are None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def verdict(evidence: Evidence, share: float, rate: float | None = None, forecast: bool = True) -> Verdict:
    """The verdict on one rollout whose canary has `share` (0..1) of the traffic; `rate`: requests/s of both arms.

    With `forecast`, "need data" says how much: some tenths of a second of computing. Whoever asks decides when it is
    too late: a deadline leads to hold, never to a promotion. At a share of 1 there is no verdict "promote" any more.
    """
    kind = KINDS[int(decide(evidence, share))]
    counted = bool(evidence.tallies.any())
    wanted = needs(evidence, share, rate) if forecast and counted and kind == NEED_DATA and 0 < share < 1 else None
    tests = tests_of(evidence)
    return Verdict(
        kind=kind,
        sentence=sentence(evidence, kind, share, tests, wanted),
        reasons=reasons_of(evidence),
        tests=tests,
        latency=quantiles(evidence),
        notes=notes(evidence, share),
        needs=wanted,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
