"""What the evidence allows, as arrays: which nulls are rejected, and the verdict that follows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kanary.judge.bets import Array
from kanary.judge.evidence import CLASSES, LIMITS, SILENT, SPLIT, Evidence, Portfolio

PROMOTE, ROLLBACK, PAUSE, NEED_DATA = "promote", "rollback", "pause", "need data"
KINDS = (NEED_DATA, PROMOTE, PAUSE, ROLLBACK)
# Chance that a split in force within its tolerance is called broken.
SPLIT_ALPHA = 0.001
# Silence shows within some hundred requests at any level: it needs little of alpha.
_SILENT_PART = 0.05
_BEYOND_DOUBT = 5.0  # standard errors


def p_values(evidence: Evidence) -> dict[str, Array]:
    """Family -> anytime-valid p-value (...,) of "all within the margins"."""
    return {family: np.exp(np.minimum(0.0, -portfolio.log)) for family, portfolio in evidence.against.items()}


def rejected(evidence: Evidence) -> dict[str, npt.NDArray[np.bool_]]:
    """Family -> whether its null is rejected (...,).

    "Silent" has a twentieth of alpha, the others share the rest by Holm's procedure. The split is tested on its own.
    """
    found = p_values(evidence)
    alpha = evidence.margins.alpha
    alone = {SILENT: found.pop(SILENT) <= alpha * _SILENT_PART, SPLIT: found.pop(SPLIT) <= SPLIT_ALPHA}
    names, ps = list(found), np.stack(list(found.values()), axis=-1)
    order = np.argsort(ps, axis=-1, kind="stable")
    steps = alpha * (1 - _SILENT_PART) / np.arange(len(names), 0, -1)
    passed = np.logical_and.accumulate(np.take_along_axis(ps, order, axis=-1) <= steps, axis=-1)
    result = np.zeros(ps.shape, dtype=np.bool_)
    np.put_along_axis(result, order, passed, axis=-1)
    return {**{name: result[..., i] for i, name in enumerate(names)}, **alone}


def decide(evidence: Evidence, share: Any) -> npt.NDArray[np.int64]:
    """Indices into KINDS (...,), for a canary that has `share` (0..1) of the traffic now.

    Promotion is an intersection-union test (Berger 1982): every stream must have shown, at level beta, that it is
    within its margin. No data never passes: nor at a share at which the canary has not answered `least` requests.
    """
    split = np.asarray(share, dtype=np.float64)
    found = acting(evidence)
    stop, pause = found[ROLLBACK], found[PAUSE]
    go = np.all(evidence.within.log >= math.log(1 / evidence.margins.beta), axis=-1)
    go = go & (answered(evidence, split) >= evidence.margins.least) & (split < 1)
    return np.where(stop.any(axis=-1), 3, np.where(pause.any(axis=-1), 2, np.where(go, 1, 0)))


def acting(evidence: Evidence) -> dict[str, npt.NDArray[np.bool_]]:
    """ROLLBACK and PAUSE -> (..., families in the order of `evidence.against`): which tests ask for it.

    Where the split is not the one in force, the comparison may be off: then a test rolls back only if the plain
    rates, by the requests counted in each arm, show the same beyond doubt. Otherwise a person looks.
    """
    found = rejected(evidence)
    broken = found[SPLIT]
    stop, pause = [], []
    for family, rejects in found.items():
        pauses = family == SPLIT or (family == CLASSES and evidence.margins.on_classes == "pause")
        if not pauses and family not in (SILENT, LIMITS) and bool(broken.any()):
            rejects = rejects & (~broken | (_excess(evidence, family) > _BEYOND_DOUBT))
        stop.append(rejects & (not pauses))
        pause.append(rejects & pauses)
    order = [list(found).index(family) for family in evidence.against]
    return {kind: np.stack([parts[i] for i in order], axis=-1) for kind, parts in ((ROLLBACK, stop), (PAUSE, pause))}


def approved(evidence: Evidence) -> Evidence:
    """The evidence of one rollout once a person has let pass what the judge paused for: that is judged no more.

    Classes that differ are left out from then on. A split that is not the one in force is taken as it is counted, like
    a sticky one, and the comparison begins anew. What was not found is judged as before.
    """
    found = rejected(evidence)
    if bool(found[SPLIT]):
        # What was won by a split that was not there counts no more; limits never looked at it.
        against = {n: p if n == LIMITS else _emptied(p) for n, p in evidence.against.items()}
        evidence = replace(evidence, sticky=True, against=against, within=_emptied(evidence.within))
    if CLASSES not in found or not bool(found[CLASSES]):
        return evidence
    kept = [i for i, stream in enumerate(evidence.streams) if stream.family != CLASSES]
    return replace(
        evidence,
        margins=replace(evidence.margins, classes=None),
        classes=(),
        streams=tuple(evidence.streams[i] for i in kept),
        tallies=evidence.tallies[..., kept, :],
        against={name: portfolio for name, portfolio in evidence.against.items() if name != CLASSES},
        within=Portfolio(evidence.within.log[..., kept], evidence.within.weights[..., kept, :]),
        spread=evidence.spread[..., kept, :],
    )


def _emptied(portfolio: Portfolio) -> Portfolio:
    return replace(portfolio, log=np.zeros_like(portfolio.log))


def _excess(evidence: Evidence, family: str) -> Array:
    """(...,): standard errors by which the plain rates of a family go beyond its margin, where they do most."""
    chosen = [i for i, stream in enumerate(evidence.streams) if stream.family == family]
    margin = np.array([evidence.streams[i].margin for i in chosen])
    return np.asarray(excess(evidence.tallies[..., chosen, :], margin).max(axis=(-1, -2)))


def excess(tally: Array, margin: Array) -> Array:
    """Standard errors by which canary's plain rate exceeds stable's plus `margin`; -inf where an arm has no requests.

    `tally`: (..., 4), n, x of canary, n, x of stable. A description, no test: it does not stand being looked at often.
    """
    n, x = tally[..., 0::2], tally[..., 1::2]
    rate = (x + 0.5) / (n + 1)
    error = np.sqrt((rate * (1 - rate) / np.maximum(n, 1)).sum(axis=-1))
    plain = x / np.maximum(n, 1)
    return np.where((n > 0).all(axis=-1), (plain[..., 0] - plain[..., 1] - margin) / error, -np.inf)


def answered(evidence: Evidence, split: Array) -> Array:
    """Requests that the canary has answered, or failed, at this share (...,)."""
    row = np.abs(np.array(evidence.shares) - split[..., None]) < 1e-9
    return np.asarray((evidence.tallies[..., 0, 0] * row).sum(axis=-1))
