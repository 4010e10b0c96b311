"""Failures that come in clumps in one arm: how much more the arms differ than independent requests would let them."""

from __future__ import annotations

import numpy as np

from kanary.judge.bets import Array

FIGURES = 6  # kept of each stream
# So many windows' worth of belief that requests are independent; no window says more against it than this.
_EVEN, _LARGEST = 10.0, 50.0


def effect(spread: Array) -> Array:
    """(..., streams), 1 or more: by how much more events differ between the arms than independent requests would.

    The design effect (Kish 1965), from the windows so far. Gains are divided by it: a bet's capital to the power of
    1 / effect is still a fair bet, and one that stands failures which come in clumps in one arm only.
    """
    squares, number = spread[..., 0], spread[..., 1]
    found = (_EVEN + squares) / (_EVEN + number)
    return np.asarray(np.maximum(1.0, found - np.sqrt(2 / (_EVEN + number))))


def after(spread: Array, tally: Array) -> Array:
    """(..., streams, 6) after one window: squares, number, weighted difference of the arms, weight; last difference
    and its squared standard error (0 before there is one).

    Squares are of the change of the difference since the window before, in standard errors of independent requests:
    a canary that is simply worse, and a burst that hits both arms, change nothing. A canary that turns bad shows once.
    """
    n_c, x_c, n_s, x_s = np.moveaxis(tally, -1, 0)
    squares, number, gaps, weights, last, before = np.moveaxis(spread, -1, 0)
    n, x = np.maximum(n_c + n_s, 1.0), x_c + x_s
    told = (n_c > 0) & (n_s > 0) & (x > 0) & (x < n)
    weight = n_c * n_s / n
    gap = x_c / np.maximum(n_c, 1.0) - x_s / np.maximum(n_s, 1.0)
    usual = (gaps + weight * gap) / np.maximum(weights + weight, 1e-9)
    # Both arms' events together, and the usual difference, tell what each arm's rate was in this window.
    least = 0.1 * x / n
    stable = np.clip((x - n_c * usual) / n, least, 1 - least)
    canary = np.clip(stable + usual, least, 1 - least)
    error = canary * (1 - canary) / np.maximum(n_c, 1.0) + stable * (1 - stable) / np.maximum(n_s, 1.0)
    square = np.minimum((gap - last) ** 2 / np.maximum(error + before, 1e-12), _LARGEST)
    paired = before > 0
    figures = [squares + square * paired, number + paired, gaps + weight * gap, weights + weight, gap, error]
    return np.where(told[..., None], np.stack(figures, axis=-1), spread)
