"""What is promised where nothing drifts: uniform p-values, alarms within the budget, run times as they were told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.drift import budget
from serving.drift.findings import Multivariate, Score, agreeing, judged
from serving.drift.table import Column, Table, standardised
from tests.drift.rig import NEEDS_ALIBI
from tests.drift.stream import WEATHERS, rows

pytestmark = [NEEDS_ALIBI, pytest.mark.timeout(1800)]
DRAWS, WINDOW = 200, 300
CHANCE = 1e-6
MULTIVARIATE: tuple[Multivariate, ...] = ("mmd", "lsdd", "classifier")
COLUMNS = (Column("price"), Column("demand"), Column("transfer"), Column("weather", 1 + len(WEATHERS)))
ONLINE_ERT = 150


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the service's worker has it: beside other tests two threads wait for each other far longer than they work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def table(number: int, seed: int, shift: dict[str, float] | None = None) -> Table:
    """So many rows of the market."""
    found = [
        [row["price"], row["demand"], row["transfer"], 1 + WEATHERS.index(row["weather"])]
        for row in rows(number, seed, shift)
    ]
    return Table(COLUMNS, np.array(found, dtype=np.float64))


def univariate(reference: Table, window: Table, seed: int) -> list[Score]:
    from serving.drift import detectors

    return detectors.univariate(reference, window)


def together(test: Multivariate) -> Callable[[Table, Table, int], list[Score]]:
    def scores(reference: Table, window: Table, seed: int) -> list[Score]:
        from serving.drift import detectors

        return detectors.multivariate(test, reference, window, 100, seed)

    return scores


@pytest.mark.parametrize("level", [0.1, 0.5])
def test_p_values_of_every_column_are_uniform_where_nothing_drifts(level: float) -> None:
    _are_uniform(univariate, level)


@pytest.mark.soak
@pytest.mark.parametrize("test", MULTIVARIATE)
def test_p_values_of_all_columns_together_are_uniform_where_nothing_drifts(test: Multivariate) -> None:
    _are_uniform(together(test), 0.1)


def _are_uniform(scores: Callable[[Table, Table, int], list[Score]], level: float) -> None:
    """Each draw has a reference of its own: then draws are independent, and their number binomial."""
    from scipy.stats import binom

    low = Counter[str]()
    for draw in range(DRAWS):
        for one in scores(table(1000, 2 * draw), table(WINDOW, 2 * draw + 1), draw):
            assert one.p_value is not None
            low[one.name] += one.p_value <= level
    # KS is computed without ties, which whole numbers have: it says drift less often, never more.
    for name, found in low.items():
        assert binom.ppf(CHANCE, DRAWS, level) * (name != "transfer") <= found <= binom.ppf(1 - CHANCE, DRAWS, level), (
            name,
            found,
        )


@pytest.mark.parametrize("test", ["none", *(pytest.param(test, marks=pytest.mark.soak) for test in MULTIVARIATE)])
def test_a_world_that_stands_still_raises_no_more_alarms_over_two_hundred_windows_than_promised(
    test: Multivariate,
) -> None:
    """As the service judges them: one reference, windows one after the other, levels by the account."""
    from scipy.stats import poisson

    from serving.drift import detectors

    reference = table(4000, 1)
    tests = detectors.prepared(reference, WINDOW)
    account, drifting, alarms = budget.Account(1.0, 0.0), tuple[str, ...](), 0
    newest: tuple[float, ...] = ()
    for number in range(DRAWS):
        window = table(WINDOW, 1000 + number)
        scores = tests.scores(window)
        for one in detectors.multivariate(test, reference, window, 100, number):
            assert one.p_value is not None
            newest = (*newest, one.p_value)[-3:]
            p_value = one.p_value if test == "classifier" else agreeing(newest)
            scores.append(Score(one.name, one.kind, one.test, one.distance, p_value))
        findings = judged(scores, budget.level(account, len(scores)), drifting)
        drifting = tuple(one.score.name for one in findings if one.detected)
        found = sum(one.alarm for one in findings)
        account, alarms = budget.settled(account, found), alarms + found
    assert account.spent <= 1.0 + budget.REWARD * alarms
    # More than that happens by chance less than once in a million times.
    assert alarms <= poisson.ppf(1 - CHANCE, account.spent)


@pytest.mark.parametrize("test", ["mmd", "lsdd"])
def test_online_tests_keep_their_expected_run_time_and_find_drift_within_a_few_rows(
    test: Multivariate, tmp_path: Path
) -> None:
    from scipy.stats import poisson

    from serving.drift import calibration
    from serving.drift.worker import _fed

    reference = table(2000, 1)
    known = standardised(reference, reference)
    moved = table(2 * calibration.WINDOW, 6, {"demand": 2.0})
    thresholds = []
    for seed in (5, 7):  # the second time as after a restart: what was calibrated is kept
        detector = calibration.online(test, known, ONLINE_ERT, tmp_path)  # type: ignore[arg-type]
        steady = _fed(detector, standardised(reference, table(20 * ONLINE_ERT, seed)))
        # Thresholds are drawn, too, and the reference is a sample: a run time within a factor of two counts as kept.
        assert poisson.ppf(CHANCE, 20 / 2) <= steady["detections"] <= poisson.ppf(1 - CHANCE, 20 * 2)
        assert _fed(detector, standardised(reference, moved))["detections"] >= 1
        thresholds.append([float(one) for one in detector.thresholds])
    assert thresholds[0] == thresholds[1]
    assert len(list(tmp_path.iterdir())) == 1
