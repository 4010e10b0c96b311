from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanary.judge.bets import gains, grow, labels, stakes
from kanary.judge.intervals import log_beta_binomial
from tests.judge.drawing import unhurried

RATES = st.floats(min_value=0.0, max_value=1.0)
SHARES = st.floats(min_value=0.001, max_value=0.999)
MARGINS = st.floats(min_value=0.0005, max_value=0.4)


def expected(stake: tuple[Any, ...], share: float, canary: float, stable: float) -> float:
    """What the best of the bets is multiplied by, on average, by one request that falls into either arm."""
    outcomes = [(share * canary, [1, 1, 0, 0]), (share * (1 - canary), [1, 0, 0, 0])]
    outcomes += [((1 - share) * stable, [0, 0, 1, 1]), ((1 - share) * (1 - stable), [0, 0, 1, 0])]
    parts = [chance * np.exp(gains(np.array(tally, dtype=float), stake)) for chance, tally in outcomes]
    return float(np.max(sum(parts)))


@unhurried
@given(level=RATES, share=SHARES, margin=MARGINS, stable=RATES, inside=RATES)
def test_no_bet_wins_against_a_canary_within_its_margin(
    level: float, share: float, margin: float, stable: float, inside: float
) -> None:
    canary = inside * min(1.0, stable + margin)
    stake = stakes(np.array(level), np.array(share), np.array(margin), worse=True)
    if stable + margin <= 1:
        assert expected(stake, share, canary, stable) <= 1 + 1e-9


@unhurried
@given(level=RATES, share=SHARES, margin=MARGINS, stable=RATES, beyond=RATES)
def test_no_bet_for_a_promotion_wins_against_a_canary_beyond_its_margin(
    level: float, share: float, margin: float, stable: float, beyond: float
) -> None:
    canary = stable + margin + beyond * (1 - stable - margin)
    stake = stakes(np.array(level), np.array(share), np.array(margin), worse=False)
    if stable + margin <= 1:
        assert expected(stake, share, canary, stable) <= 1 + 1e-9


@unhurried
@given(level=RATES, share=SHARES, margin=MARGINS)
def test_no_window_can_ruin_a_bet(level: float, share: float, margin: float) -> None:
    for worse in (True, False):
        stake = stakes(np.array(level), np.array(share), np.array(margin), worse)
        for tally in ([1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 0]):
            assert np.all(np.isfinite(gains(np.array(tally, dtype=float), stake)))


@pytest.mark.parametrize(("level", "share", "gap"), [(0.001, 0.5, 0.03), (0.02, 0.05, 0.05), (0.3, 0.5, 0.2)])
def test_some_bet_wins_against_a_canary_beyond_its_margin(level: float, share: float, gap: float) -> None:
    stake = stakes(np.array(level), np.array(share), np.array(0.005), worse=True)
    assert expected(stake, share, level + gap, level) > 1


def test_with_nothing_to_compare_with_nothing_is_bet() -> None:
    for share in (0.0, 1.0):
        stake = stakes(np.array(0.01), np.array(share), np.array(0.005), worse=True)
        arm = [0.0, 0.0, 900.0, 30.0] if share == 0 else [900.0, 400.0, 0.0, 0.0]
        assert np.allclose(gains(np.array(arm), stake), 0.0, atol=1e-5)


@unhurried
@given(bound=st.floats(0.01, 0.99), odds=st.floats(0.001, 50.0), true=RATES)
def test_bets_on_labels_are_fair(bound: float, odds: float, true: float) -> None:
    within = true <= bound if odds > 1 else true >= bound
    one, none = np.array(1.0), np.array(0.0)
    gain = [np.exp(labels(*pair, np.array(bound), np.array([odds])))[0] for pair in ((one, none), (none, one))]
    assert not within or true * gain[0] + (1 - true) * gain[1] <= 1 + 1e-9


@unhurried
@given(gain=st.lists(st.floats(-300, 300), min_size=2, max_size=2), restart=st.floats(0, 1))
def test_a_portfolio_earns_what_its_parts_earn(gain: list[float], restart: float) -> None:
    weights, prior = np.array([0.2, 0.5, 0.3]), np.array([0.5, 0.25, 0.25])
    log, after = grow(np.array(1.5), weights, np.array(gain), prior, np.array(restart))
    spread = (1 - restart) * weights + restart * prior
    top = max(0.0, *gain)
    total = sum(part * math.exp(g - top) for part, g in zip(spread, [0.0, *gain], strict=True))
    assert log == pytest.approx(1.5 + math.log(total) + top)
    assert after.sum() == pytest.approx(1.0)


@unhurried
@given(x=st.integers(0, 500), more=st.integers(0, 500), p=st.floats(0.01, 0.99))
def test_the_mixture_of_likelihood_ratios_is_what_scipy_says(x: int, more: int, p: float) -> None:
    from scipy import special

    n = x + more
    wanted = special.betaln(x + 0.5, more + 0.5) - special.betaln(0.5, 0.5) - x * math.log(p) - more * math.log1p(-p)
    assert log_beta_binomial(x, n, p) == pytest.approx(wanted, abs=1e-8)
