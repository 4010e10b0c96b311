"""The judges and figures of `bench.judge`, against scipy, and a small run of it."""

from __future__ import annotations

import numpy as np
import pytest

from bench.judge import OURS, TUNED, judges, lower_bound, run
from bench.judges import _high, _shifts, quantile
from bench.rollouts import HEALTHY, REGRESSIONS, above


def test_the_lower_bound_is_clopper_and_pearson_s() -> None:
    from scipy import stats

    for count, number in ((1, 50), (130, 10_000), (20, 20)):
        wanted = stats.beta.ppf(0.01, count, number - count + 1)
        assert lower_bound(count, number) == pytest.approx(wanted, rel=1e-6)
    assert lower_bound(0, 10) == 0


def test_latency_is_log_normal() -> None:
    from scipy import stats

    for edge in (10.0, 50.0, 100.0):
        wanted = stats.lognorm.sf(edge, 0.5, scale=40.0)
        assert above(edge, np.array([40.0]))[0] == pytest.approx(wanted, abs=1e-6)


def test_mann_whitney_says_what_scipy_s_says() -> None:
    from scipy import stats

    rng = np.random.default_rng(1)
    for shift in (0.0, 0.4, 3.0):
        canary, stable = rng.normal(1 + shift, 0.3, 20), rng.normal(1.0, 0.3, 20)
        high = _high([_shifts(np.stack([canary, stable])[None])], 2.326)[0]
        p = stats.mannwhitneyu(canary, stable, alternative="greater").pvalue
        # Kayenta asks for more than significance: for a shift that is known well enough.
        assert not high or p < 0.01
        assert high or p > 1e-6


def test_a_quantile_of_a_histogram_is_interpolated() -> None:
    counts = np.array([[0, 10, 10, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 5]])
    assert quantile(counts, 0.75).tolist() == [37.5, 0.0, 500.0]


def test_kanary_rolls_back_what_is_bad_and_promotes_what_is_well() -> None:
    begin = judges({1: (0.3, 460.0)}, 3.1, 1)
    bad = next(scenario for scenario in REGRESSIONS if scenario.fails == 0.05)
    well, worse = (run(scenario, begin, 40, 5, horizon=60)[0] for scenario in (HEALTHY[0], bad))
    assert well[OURS].rolled_back == 0
    assert well[OURS].promoted > 30
    assert well[OURS].minutes is not None
    assert worse[OURS].rolled_back == 40
    assert worse[OURS].bad < worse[TUNED[0]].bad
