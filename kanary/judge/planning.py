"""What a rollout can find, at each of its steps, in how many requests: from the traffic that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kanary.judge.margins import Margins


@dataclass(frozen=True)
class Baseline:
    """What stable does: `errors` (share of the requests), `slower` per edge and `classes` (shares), where known."""

    errors: float = 0.001
    edges: tuple[float, ...] = ()
    slower: tuple[float, ...] = ()
    classes: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class StepPlan:
    """One step. Requests are those of both arms together, at this step alone.

    requests   expected during the bake
    finds      share of failing requests above which a canary is rolled back with 95 % within the bake; None: none is
    within     requests within which 95 % of canaries are rolled back that fail `size` more than stable
    promotes   requests within which 90 % of canaries that equal stable may be promoted
    """

    share: float
    bake_s: float
    requests: float
    finds: float | None
    size: float
    within: float
    within_s: float
    promotes: float
    promotes_s: float
    note: str = ""


def plan(
    rate_per_s: float,
    steps: Sequence[float],
    bakes: Sequence[float],
    margins: Margins,
    baseline: Baseline,
    size: float = 0.02,
) -> tuple[StepPlan, ...]:
    """What each step (`steps`: shares 0..1, `bakes`: seconds) can find. `size`: the regression that N is told for."""
    raise NotImplementedError
