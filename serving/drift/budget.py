"""How sure a test must be, so that all alarms of a month together are false no more often than was promised. Pure.

An account spends significance on batches, one batch being the tests of one window, and earns some back with every
alarm: LORD++ with an initial wealth that is a number of alarms (mFDR with eta, so that it may exceed 1). The tests of a
batch share its level evenly and none earns before the batch is over, so that they may depend on each other in any way.

Sources: Ramdas, Yang, Wainwright, Jordan, "Online control of the false discovery rate with decaying memory", NeurIPS
2017 (LORD++); Javanmard, Montanari, Annals of Statistics 46 (2018), the sequence gamma; Foster, Stine, JRSS B 70
(2008), mFDR_eta; Zrnic, Ramdas, Jordan, "Asynchronous online testing of multiple hypotheses", JMLR 22 (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import exp, log, sqrt

MONTH_S = 30 * 24 * 3600.0
# Of every alarm so much is earned back: with drift about, this share of the alarms may be false besides the budget.
REWARD = 0.1
_NORM = 0.0772


@dataclass(frozen=True)
class Account:
    """`budget` is the expected number of false alarms in a month of `started` + 30 days in which nothing drifts.

    `batches` have been tested in it, `alarms` holds, for each alarm, after how many; `spent` is the sum of the levels.
    """

    budget: float
    started: float
    batches: int = 0
    alarms: tuple[int, ...] = ()
    spent: float = 0.0


def level(account: Account, tests: int) -> float:
    """What a p-value must not exceed in the next batch, of `tests` tests, to be an alarm."""
    return min(1.0, _batch(account) / tests) if tests else 0.0


def settled(account: Account, alarms: int) -> Account:
    """The account after a batch in which so many alarms were raised."""
    batches = account.batches + 1
    return replace(
        account,
        batches=batches,
        spent=account.spent + _batch(account),
        alarms=account.alarms + (batches,) * alarms,
    )


def current(account: Account, now: float) -> Account:
    """The account as of `now` (seconds since the epoch): a new one when its month is over."""
    if account.started <= now < account.started + MONTH_S:
        return account
    return Account(account.budget, now)


def rejected(p_values: Sequence[float | None], threshold: float) -> list[bool]:
    """Which tests are alarms; a test without a p-value is none."""
    return [p is not None and p <= threshold for p in p_values]


def _batch(account: Account) -> float:
    """The level of the next batch as a whole. Their sum is at most budget + REWARD x (alarms - false ones allowed for).

    The wealth is lowered by what false alarms earn: E[false] <= wealth + REWARD x E[false] where all alarms are false.
    """
    at = account.batches + 1
    wealth = account.budget * (1 - REWARD)
    return wealth * _gamma(at) + REWARD * sum(_gamma(at - alarm) for alarm in account.alarms)


@lru_cache(maxsize=1 << 16)
def _gamma(at: int) -> float:
    """A decreasing sequence from 1 on, that sums to 1."""
    return _NORM * log(max(at, 2)) / (at * exp(sqrt(log(at))))
