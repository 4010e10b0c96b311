"""What a rollout has shown so far: counts by step, and the capital of the bets against each null. O(1), JSON.

`update` takes one window, or one window of each of many simulated rollouts at once (arrays). Nothing here reads a
clock, a file or a network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from kanary.errors import InputError
from kanary.judge import clumps
from kanary.judge.bets import ALIKE, WORSE, Array, gains, grow, labels, stakes
from kanary.judge.counters import Counts
from kanary.judge.margins import Limits, Margins

ERRORS, LATENCY, CLASSES, LIMITS = "errors", "latency", "classes", "limits"
SILENT, SPLIT = "silent", "split"
FORMAT = "kanary-evidence/1"
# A rollback's capital starts half in cash. Restarts: 1 / (windows so far + this) of it at each window.
_CASH, _RESTARTS = 0.5, 32.0
# Silent: of all successes the canary has less than half of its share; bets on a quarter of that, a twentieth, none.
_OWED, _SILENT_ODDS = 0.5, np.array([0.25, 0.05, 1e-4])
# The split may be off by so much (odds) before it is called broken; bets on more, and on less.
_SPLIT_TOLERANCE, _SPLIT_ODDS = 1.1, np.array([1.15, 1.5, 4.0])
# Standard errors by which a window's requests may be split otherwise than the traffic is, by chance.
_UNLIKE = 2.5
_LIMIT_ODDS = np.array([1.3, 2.0, 5.0, 25.0])
# What stable's rates are thought to be before there is a window: errors are rare, of the others nothing is known.
_RARE, _RARE_WEIGHT, _ANY, _ANY_WEIGHT = 0.005, 200.0, 0.5, 2.0


@dataclass(frozen=True)
class Stream:
    """One kind of outcome, yes or no per request. `what`: the edge (latency) or the class; `fewer`: "no" is counted."""

    family: str
    margin: float
    what: str = ""
    fewer: bool = False

    @property
    def name(self) -> str:
        """For a person: "errors", "slower than 50 ms", "class cat"."""
        if self.family == LATENCY:
            return f"slower than {self.what}"
        return self.family if self.family == ERRORS else f"class {self.what} {'less' if self.fewer else 'more'} often"


@dataclass(frozen=True)
class Portfolio:
    """Capital bet against one null: `log` (...,) of the e-value; `weights` (..., 1 + bets) of it, cash first."""

    log: Array
    weights: Array


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is kept of a rollout.

    shares   the canary's shares of the traffic that counts were made at (0..1), as rows of `tallies`
    edges    upper edges of the latency histogram, without +Inf; classes: names, in the order of `streams`
    sticky   requests of one user go to one arm: the split is not random per request, and no guarantee holds
    tallies  (..., shares, streams, 4): n, x of the canary, n, x of stable
    against  family -> what is bet against "within all margins of this family": it may be rolled back at 1 / alpha
    within   (..., streams): what is bet against "beyond the margin", one portfolio per stream, for a promotion
    spread   (..., streams, 6): how unevenly its events fell on the arms, see `clumps`
    windows  how many have been counted
    """

    margins: Margins
    shares: tuple[float, ...]
    edges: tuple[float, ...]
    classes: tuple[str, ...]
    sticky: bool
    streams: tuple[Stream, ...]
    tallies: Array
    against: Mapping[str, Portfolio]
    within: Portfolio
    spread: Array
    windows: Array

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; of one rollout, not of many at once."""
        if self.windows.ndim:
            raise InputError("the evidence of many rollouts at once is not written down.")
        margins = asdict(self.margins)
        margins["limits"]["slower"] = sorted(self.margins.limits.slower.items())
        return {
            "format": FORMAT,
            "margins": margins,
            "shares": list(self.shares),
            "edges": list(self.edges),
            "classes": list(self.classes),
            "sticky": self.sticky,
            "tallies": self.tallies.tolist(),
            "against": {name: _written(portfolio) for name, portfolio in self.against.items()},
            "within": _written(self.within),
            "spread": self.spread.tolist(),
            "windows": float(self.windows),
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Evidence:
        """From what `to_json` gave. Raises InputError where it is something else."""
        if document.get("format") != FORMAT:
            raise InputError(
                f"the stored evidence of a rollout has the format {document.get('format')!r}, not {FORMAT!r}.",
                "Begin the rollout anew: evidence of another format cannot be added to.",
            )
        try:
            margins = dict(document["margins"])
            limits = margins["limits"]
            margins["limits"] = Limits(limits["errors"], {float(edge): share for edge, share in limits["slower"]})
            empty = start(
                Margins(**margins), document["shares"], document["edges"], document["classes"], document["sticky"]
            )
            return replace(
                empty,
                # In the order in which they came: the rows of the tallies.
                shares=tuple(float(share) for share in document["shares"]),
                tallies=_like(empty.tallies, document["tallies"]),
                against={name: _read(part, document["against"][name]) for name, part in empty.against.items()},
                within=_read(empty.within, document["within"]),
                spread=_like(empty.spread, document["spread"], lowest=-np.inf),
                windows=np.float64(document["windows"]) + np.zeros(()),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the stored evidence of a rollout is incomplete or damaged: {error}") from error


def start(
    margins: Margins,
    shares: Sequence[float],
    edges: Sequence[float] = (),
    classes: Sequence[str] = (),
    sticky: bool = False,
    rollouts: tuple[int, ...] = (),
) -> Evidence:
    """Evidence of a rollout that has not begun; of an array of `rollouts` where their shape is given.

    `shares`: the canary's shares of the policy's steps, 0..1 (others may come); `edges`: of the latency histogram, in
    ms; `classes`: none where predictions are not counted by class: then they are not judged.
    """
    if list(edges) != sorted(set(edges)):
        raise InputError(f"the edges of the latency histogram do not ascend: {list(edges)}.")
    streams = [Stream(ERRORS, margins.errors)]
    if margins.latency is not None:
        streams += [Stream(LATENCY, margins.latency, f"{edge:g}") for edge in edges]
    if margins.classes is not None and margins.on_classes != "ignore":
        streams += [Stream(CLASSES, margins.classes, name, fewer) for name in classes for fewer in (False, True)]
    bets = {family: len(WORSE) * sum(s.family == family for s in streams) for family in (ERRORS, LATENCY, CLASSES)}
    bets[LIMITS] = len(_LIMIT_ODDS) * (len(margins.limits.slower) + (margins.limits.errors is not None))
    bets[SILENT], bets[SPLIT] = len(_SILENT_ODDS), 2 * len(_SPLIT_ODDS)
    known = tuple(sorted({float(share) for share in shares}))
    return Evidence(
        margins=margins,
        shares=known,
        edges=tuple(float(edge) for edge in edges),
        classes=tuple(classes),
        sticky=sticky,
        streams=tuple(streams),
        tallies=np.zeros((*rollouts, len(known), len(streams), 4)),
        against={family: _new(rollouts, number) for family, number in bets.items() if number},
        within=_new((*rollouts, len(streams)), len(ALIKE)),
        spread=np.zeros((*rollouts, len(streams), clumps.FIGURES)),
        windows=np.zeros(rollouts),
    )


def update(evidence: Evidence, counts: Counts, share: Any) -> Evidence:
    """The evidence after one more window, in which the canary had `share` (0..1) of the traffic.

    Numbers of `counts` and `share` may be arrays of the shape that the evidence was started with.
    """
    split = np.asarray(share, dtype=np.float64)
    if not bool(np.all((split >= 0) & (split <= 1))):
        raise InputError(
            f"the canary's share of the traffic is {share}.", "Give a part between 0 and 1, not a percentage."
        )
    evidence = _with_share(evidence, split)
    tally = _tally(evidence, counts)
    expected = _expected(evidence, tally, split)
    level, margin = levels(evidence), np.array([stream.margin for stream in evidence.streams])
    gain = gains(tally, stakes(level, expected, margin, worse=True)) / clumps.effect(evidence.spread)[..., None]
    restart = 1.0 / (evidence.windows + _RESTARTS)
    row = np.abs(np.array(evidence.shares) - split[..., None]) < 1e-9
    return replace(
        evidence,
        tallies=evidence.tallies + row[..., None, None] * tally[..., None, :, :],
        against=_against(evidence, tally, split, gain, level, restart),
        within=_within(evidence, tally, expected, level, margin, restart),
        spread=clumps.after(evidence.spread, tally),
        windows=evidence.windows + 1.0,
    )


def _expected(evidence: Evidence, tally: Array, split: Array) -> Array:
    """(..., streams): the canary's share of a window's requests that bets go by, the split unless that is beside it.

    By the split a request of stable alone tells something, which one of the canary will take back. So where the arms
    were not counted alike, bets go by what was counted in each: classes are counted by each model server, scraped
    on its own; what a slow canary is still at is not counted at the proxy either. Where an arm has no share, what it
    still counts is no comparison.
    """
    both = tally[..., 0] + tally[..., 2]
    even = split[..., None]
    unlike = np.abs(tally[..., 0] - even * both) > _UNLIKE * np.sqrt(even * (1 - even) * both)
    classes = np.array([stream.family == CLASSES for stream in evidence.streams])
    own = evidence.sticky | ((even > 0) & (even < 1) & (classes | unlike))
    counted = tally[..., 0] / np.maximum(both, 1.0)
    return np.where((both > 0) & own, counted, even)


def levels(evidence: Evidence) -> Array:
    """(..., streams): what stable's rates are thought to be, from all windows so far."""
    n, x = evidence.tallies[..., 2].sum(axis=-2), evidence.tallies[..., 3].sum(axis=-2)
    rare = np.array([stream.family == ERRORS for stream in evidence.streams])
    weight = np.where(rare, _RARE_WEIGHT, _ANY_WEIGHT)
    return np.asarray((x + weight * np.where(rare, _RARE, _ANY)) / (n + weight))


def _against(
    evidence: Evidence, tally: Array, split: Array, gain: Array, level: Array, restart: Array
) -> dict[str, Portfolio]:
    grown = {}
    for family, portfolio in evidence.against.items():
        if family == LIMITS:
            gained, prior = _limit_gains(evidence, tally, split), None
        elif family == SPLIT:
            gained, prior = _split_gains(evidence, tally, split), None
        elif family == SILENT:
            gained, prior = _silent_gains(tally, split), None
        else:
            chosen = [i for i, stream in enumerate(evidence.streams) if stream.family == family]
            gained = gain[..., chosen, :].reshape(*gain.shape[:-2], -1)
            # An edge that hardly any or nearly all requests pass tells little: less is staked on it.
            spread = level[..., chosen] * (1 - level[..., chosen]) + 0.01
            prior = np.repeat(spread / spread.sum(axis=-1, keepdims=True), len(WORSE), axis=-1) / len(WORSE)
        grown[family] = Portfolio(*grow(portfolio.log, portfolio.weights, gained, _prior(gained, prior), restart))
    return grown


def _within(
    evidence: Evidence, tally: Array, expected: Array, level: Array, margin: Array, restart: Array
) -> Portfolio:
    gained = gains(tally, stakes(level, expected, margin, worse=False)) / clumps.effect(evidence.spread)[..., None]
    portfolio = evidence.within
    return Portfolio(*grow(portfolio.log, portfolio.weights, gained, _prior(gained, None), restart[..., None]))


def _limit_gains(evidence: Evidence, tally: Array, split: Array) -> Array:
    """Bets against "within the absolute limits", of windows that have no stable arm to compare with."""
    limits, parts = evidence.margins.limits, []
    bounds = [] if limits.errors is None else [(0, limits.errors)]
    bounds += [(stream_of(evidence, edge), limit) for edge, limit in limits.slower.items()]
    for stream, limit in bounds:
        n, x = tally[..., stream, 0], tally[..., stream, 1]
        parts.append(labels(x, n - x, np.full(n.shape, limit), _LIMIT_ODDS))
    return np.where(split[..., None] < 1, 0.0, np.concatenate(parts, axis=-1))


def stream_of(evidence: Evidence, edge: float) -> int:
    """The index of the stream "slower than `edge`". Raises InputError where it is not judged."""
    for index, stream in enumerate(evidence.streams):
        if stream.family == LATENCY and stream.what == f"{edge:g}":
            return index
    known = ", ".join(f"{e:g}" for e in evidence.edges) or "none"
    raise InputError(
        f"limits: {edge:g} is no edge of the latency histogram, which has {known}.",
        "Set the limit at an edge, and let the margins judge latency.",
    )


def _silent_gains(tally: Array, split: Array) -> Array:
    """Bets on the canary having far fewer of the successes than its share: a canary that answers nothing has failed.

    Within the margins it has more than half of its share, unless stable fails nearly everything.
    """
    answered = tally[..., 0, 0::2] - tally[..., 0, 1::2]
    inside = (split > 0) & (split < 1)
    return np.where(inside[..., None], labels(answered[..., 0], answered[..., 1], split * _OWED, _SILENT_ODDS), 0.0)


def _split_gains(evidence: Evidence, tally: Array, split: Array) -> Array:
    """Bets on more, and on fewer, requests in the canary arm than the split in force gives it."""
    if evidence.sticky:
        return np.zeros((*split.shape, 2 * len(_SPLIT_ODDS)))
    odds = np.clip(split, 1e-9, 1 - 1e-9) / np.clip(1 - split, 1e-9, 1)
    bounds = [odds * _SPLIT_TOLERANCE, odds / _SPLIT_TOLERANCE]
    n = tally[..., 0, 0], tally[..., 0, 2]
    more, fewer = (b / (1 + b) for b in bounds)
    both = np.concatenate([labels(*n, more, _SPLIT_ODDS), labels(*n, fewer, 1 / _SPLIT_ODDS)], axis=-1)
    inside = (split > 0) & (split < 1)
    return np.where(inside[..., None], both, 0.0)


def _tally(evidence: Evidence, counts: Counts) -> Array:
    """(..., streams, 4) of one window."""
    rows = []
    for stream in evidence.streams:
        row: list[Array] = []
        for arm in (counts.canary, counts.stable):
            if stream.family == ERRORS:
                n, x = _number(arm.requests), _number(arm.errors)
            elif stream.family == LATENCY:
                place = [f"{edge:g}" for edge in evidence.edges].index(stream.what)
                slower = arm.slower[place] if len(arm.slower) else 0
                n, x = _number(arm.measured), _number(slower)
            else:
                n = np.asarray(sum(_number(count) for count in arm.classes.values()), dtype=np.float64)
                x = _number(arm.classes.get(stream.what, 0))
                x = n - x if stream.fewer else x
            row += [n, x]
        rows.append(np.stack(np.broadcast_arrays(*row), axis=-1))
    tally = np.stack(np.broadcast_arrays(*rows), axis=-2)
    tally = np.broadcast_to(tally, (*np.broadcast_shapes(tally.shape[:-2], evidence.windows.shape), *tally.shape[-2:]))
    if bool(np.any(tally < 0)) or bool(np.any(tally[..., 1::2] > tally[..., 0::2])):
        raise InputError("a window holds a negative count, or more failures (slower requests) than requests.")
    return tally


def _with_share(evidence: Evidence, split: Array) -> Evidence:
    """With a row for each share that is met for the first time."""
    new = sorted({float(s) for s in np.unique(split)} - set(evidence.shares))
    new = [s for s in new if min((abs(s - known) for known in evidence.shares), default=1.0) >= 1e-9]
    if not new:
        return evidence
    shape = (*evidence.tallies.shape[:-3], len(new), *evidence.tallies.shape[-2:])
    tallies = np.concatenate([evidence.tallies, np.zeros(shape)], axis=-3)
    return replace(evidence, shares=(*evidence.shares, *new), tallies=tallies)


def _prior(gain: Array, bets: Array | None) -> Array:
    """Half in cash, and the other half over the bets: as `bets` say (..., bets), or evenly."""
    even = np.full(gain.shape, 1.0 / gain.shape[-1]) if bets is None else np.broadcast_to(bets, gain.shape)
    return np.concatenate([np.full((*gain.shape[:-1], 1), _CASH), (1 - _CASH) * even], axis=-1)


def _new(shape: tuple[int, ...], bets: int) -> Portfolio:
    return Portfolio(np.zeros(shape), _prior(np.zeros((*shape, bets)), None))


def _number(value: Any) -> Array:
    return np.asarray(value, dtype=np.float64)


def _written(portfolio: Portfolio) -> dict[str, Any]:
    return {"log": portfolio.log.tolist(), "weights": portfolio.weights.tolist()}


def _read(empty: Portfolio, document: Mapping[str, Any]) -> Portfolio:
    log, weights = _number(document["log"]), _number(document["weights"])
    if log.shape != empty.log.shape or weights.shape != empty.weights.shape or not np.all(np.isfinite(weights)):
        raise ValueError("a portfolio has another shape, or holds something that is no number")
    return Portfolio(log, weights)


def _like(empty: Array, document: Any, lowest: float = 0.0) -> Array:
    numbers = _number(document)
    if numbers.shape != empty.shape or not bool(np.all(np.isfinite(numbers) & (numbers >= lowest))):
        raise ValueError("the counts have another shape, or are not counts")
    return numbers
