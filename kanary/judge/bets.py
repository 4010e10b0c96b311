"""Betting against a null on the difference of two Bernoulli streams whose requests are split at random.

One request pays `1 + t (y - c)` in the canary arm and `1 - u (y - s)` in the stable arm, with c = s + margin and
w t = (1 - w) u: at most 1 on average under the null, whatever the rates are and however they move. See README.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Odds of a canary beyond its margin, against stable's shifted by the margin: from a little to far too much.
WORSE = np.array([1.25, 2.0, 4.0, 15.0, 80.0])
# Of the stake that is best for a canary that equals stable: the rates are never known exactly.
ALIKE = np.array([1.0, 0.6, 0.3])
# A part of every portfolio is not staked, so that no window can ruin it.
_MOST = 0.97  # of the stake at which a request could lose everything
_TINY = 1e-9


def stakes(level: Array, share: Array, margin: Array, worse: bool) -> tuple[Array, Array, Array, Array]:
    """(t, u, c, s) of each bet: arrays `level.shape + (bets,)`, u and t negative for bets on "not worse".

    `level`: what stable's rate is thought to be, from earlier windows only; `share`: the canary's, 0..1; all
    broadcast. The stakes are near those that make the capital grow fastest (Turner and Gruenwald 2023, closed form
    for small margins); whatever they are, the bet is fair.
    """
    level, share, margin = (np.asarray(part, dtype=np.float64)[..., None] for part in (level, share, margin))
    share = np.clip(share, _TINY, 1.0)
    level = np.clip(level, _TINY, 1 - _TINY - margin)
    if worse:
        shifted = level + margin
        odds = shifted / (1 - shifted) * WORSE
        target = odds / (1 + odds)
        s = np.clip(level + share * (target - shifted), 0.0, 1 - _TINY - margin)
        c = s + margin
        t = (target - c) / (c * (1 - c))
        # Neither arm's factor may reach 0: the canary's succeeds, or stable's fails.
        t = np.minimum(t, _MOST * np.minimum(1 / c, (1 - share) / (share * (1 - s))))
    else:
        s = np.clip(level - share * margin, 0.0, 1 - _TINY - margin)
        c = s + margin
        t = -(c - level) / (c * (1 - c)) * ALIKE
        # The canary's fails, or stable's succeeds.
        t = -np.minimum(-t, _MOST * np.minimum(1 / (1 - c), (1 - share) / (share * np.maximum(s, _TINY))))
    u = np.where(share < 1, share * t / np.maximum(1 - share, _TINY), 0.0)
    return np.where(share < 1, t, 0.0), u, c, s


def gains(tally: Array, stake: tuple[Array, Array, Array, Array]) -> Array:
    """Logarithm of what each bet's capital is multiplied by: `tally` (..., 4) gives n, x of canary, n, x of stable."""
    t, u, c, s = stake
    canary_n, canary_x, stable_n, stable_x = (tally[..., i, None] for i in range(4))
    return np.asarray(
        canary_x * np.log1p(t * (1 - c))
        + (canary_n - canary_x) * np.log1p(-t * c)
        + stable_x * np.log1p(-u * (1 - s))
        + (stable_n - stable_x) * np.log1p(u * s)
    )


def labels(canary: Array, stable: Array, bound: Array, odds: Array) -> Array:
    """Logarithmic gains of bets on the label: is the canary's part of all beyond `bound`? One per entry of `odds`.

    Odds ratios above 1 bet against "at most `bound`", those below against "at least" (Lindon and Malek 2022).
    """
    bound = np.clip(np.asarray(bound, dtype=np.float64)[..., None], _TINY, 1 - _TINY)
    told = bound * odds / (bound * odds + 1 - bound)
    return np.asarray(canary[..., None] * np.log(told / bound) + stable[..., None] * np.log((1 - told) / (1 - bound)))


def grow(log_wealth: Array, weights: Array, gain: Array, prior: Array, restart: Array) -> tuple[Array, Array]:
    """A portfolio after one window: its logarithm (...,), and how it is spread over cash and bets (..., 1 + bets).

    `restart`: the part (0..1) that is spread anew over `prior` beforehand, so that a canary that turns bad late is
    found as soon as one that was bad from the start (fixed share: Herbster and Warmuth 1998). The rest is kept in cash
    or stays with the bets that have won.
    """
    spread = (1 - restart[..., None]) * weights + restart[..., None] * prior
    gain = np.concatenate([np.zeros((*gain.shape[:-1], 1)), gain], axis=-1)
    top = gain.max(axis=-1, keepdims=True)
    grown = spread * np.exp(gain - top)
    total = grown.sum(axis=-1, keepdims=True)
    return log_wealth + (np.log(total) + top)[..., 0], grown / total
