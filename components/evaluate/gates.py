"""Gates: whether a model is good enough, decided by pure functions. In doubt a gate is closed.

A gate that cannot be judged as it is written (an unknown metric, a bound that is no number, no gate at all)
is a GateError; a metric that has no value fails its gate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from components.evaluate.metrics import NAMES
from kanary.errors import GateError

_HINT = 'write gates like {"accuracy": {"min": 0.9}, "log_loss": {"max": 0.3}}'


@dataclass(frozen=True)
class Gate:
    """One bound on one metric: `min` is the least that passes, `max` the most."""

    metric: str
    bound: str
    limit: float


@dataclass(frozen=True)
class Verdict:
    """What one gate says. `value` is None where the metric is undefined; `reason` is a sentence."""

    metric: str
    value: float | None
    expectation: str
    passed: bool
    reason: str


def parse(gates: Mapping[str, Any]) -> tuple[Gate, ...]:
    """The gates written as {metric: {"min"|"max": number}}. GateError names what cannot be judged."""
    if not isinstance(gates, Mapping) or not gates:
        raise GateError("no gate is given, so nothing would vouch for the model", _HINT)
    parsed = []
    for metric, bounds in gates.items():
        if metric not in NAMES:
            raise GateError(f"gate {metric!r}: there is no such metric", f"metrics are {', '.join(NAMES)}")
        if not isinstance(bounds, Mapping) or not bounds:
            raise GateError(f'gate {metric}: {bounds!r} is no {{"min": ...}} or {{"max": ...}}', _HINT)
        for bound, limit in bounds.items():
            if bound not in ("min", "max"):
                raise GateError(f"gate {metric}: {bound!r} is neither 'min' nor 'max'", _HINT)
            # Written so that NaN and integers too large for a float fail as well.
            if isinstance(limit, bool) or not isinstance(limit, int | float) or not -1e300 < limit < 1e300:
                raise GateError(f"gate {metric}: the {bound} {limit!r} is no finite number", _HINT)
            parsed.append(Gate(metric, bound, float(limit)))
    return tuple(parsed)


def judge(gates: Iterable[Gate], metrics: Mapping[str, float]) -> tuple[Verdict, ...]:
    """One verdict for each gate, in order. A metric that is missing or not finite never passes."""
    return tuple(_verdict(gate, metrics.get(gate.metric, math.nan)) for gate in gates)


def passed(verdicts: Iterable[Verdict]) -> bool:
    """Whether every gate is open, and there is one at all."""
    results = [verdict.passed for verdict in verdicts]
    return bool(results) and all(results)


def _verdict(gate: Gate, value: float) -> Verdict:
    minimum = gate.bound == "min"
    asked = f"{'at least' if minimum else 'at most'} {gate.limit:.12g}"
    if not math.isfinite(value):
        return Verdict(
            gate.metric, None, asked, False, f"{gate.metric} is undefined on this test set; {asked} is asked."
        )
    shown = _shown(value, gate.limit)
    if value >= gate.limit if minimum else value <= gate.limit:
        return Verdict(gate.metric, value, asked, True, f"{gate.metric} is {shown}; {asked} is asked.")
    fault = f"below the minimum of {gate.limit:.12g}" if minimum else f"above the maximum of {gate.limit:.12g}"
    return Verdict(gate.metric, value, asked, False, f"{gate.metric} is {shown}, {fault}.")


def _shown(value: float, limit: float) -> str:
    """The value in four digits, or in full where rounding would make it look like the limit."""
    short = f"{value:.4g}"
    return short if float(short) != limit or value == limit else repr(value)
