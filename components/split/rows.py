"""Which rows go to the test part: pure functions of values, the same answer for the same input."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kanary.errors import DataError

Rows = npt.NDArray[np.int64]


def random_rows(classes: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Rows of the training and of the test part, each in order, with every class in both in like proportion.

    `classes` [n] holds class numbers. DataError when a class has one row only.
    """
    kinds, codes, counts = np.unique(classes, return_inverse=True, return_counts=True)
    if (counts < 2).any():
        raise DataError(
            f"{int((counts < 2).sum())} of {len(kinds)} classes have one row only, so one part would lack them"
        )
    takes = _test_counts(counts, fraction)
    draw = np.random.default_rng(seed).random(len(codes))
    test = np.zeros(len(codes), dtype=np.bool_)
    for kind, take in enumerate(takes):
        members = np.flatnonzero(codes == kind)
        test[members[np.argsort(draw[members], kind="stable")[:take]]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)


def time_rows(times: npt.NDArray[np.int64] | npt.NDArray[np.float64], fraction: float) -> tuple[Rows, Rows]:
    """Rows of the training part (the earlier) and of the test part (the later), each in time order.

    Rows of one moment stay together, so the test part may be a little smaller or larger than asked for.
    DataError when all rows are of one moment.
    """
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    wanted = len(times) - int(np.clip(round(len(times) * fraction), 1, len(times) - 1))
    cuts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    if not len(cuts):
        raise DataError("all rows have the same time, so none is earlier than another")
    cut = int(cuts[np.argmin(np.abs(cuts - wanted))])
    return order[:cut], order[cut:]


def _test_counts(counts: Rows, fraction: float) -> Rows:
    """How many rows of each class are tested: largest remainders, at least one, and at least one left to train on."""
    exact = counts * fraction
    takes = np.floor(exact).astype(np.int64)
    lacking = round(float(counts.sum()) * fraction) - int(takes.sum())
    takes[np.argsort(takes - exact, kind="stable")[:lacking]] += 1
    bounded: Rows = np.clip(takes, 1, counts - 1)
    return bounded
