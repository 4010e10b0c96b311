"""The drift that elec2 has by nature, in time order: prices and demands of two states, a benchmark of the field."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from serving.drift import budget
from serving.drift.findings import judged
from serving.drift.table import Column, Table
from tests.drift.rig import NEEDS_ALIBI

ELEC = Path(__file__).parents[3] / "shared" / "data" / "elec.csv.gz"
pytestmark = [NEEDS_ALIBI, pytest.mark.skipif(not ELEC.is_file(), reason="the shared data are not here")]
REFERENCE, WINDOW = 8000, 1000
# Until then Victoria had no market: its columns hold one value each. Source: Harries, SPLICE-2 (1999).
VICTORIA_JOINS = 17_424


def test_prices_drift_with_the_seasons_and_victoria_s_columns_from_the_day_it_joined() -> None:
    from serving.drift import detectors

    with gzip.open(ELEC, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in ("class", "period")]
    columns = tuple(Column(name) for name in names)
    values = np.array([[float(row[name]) for name in names] for row in rows])
    assert len(values) == 45_312
    tests = detectors.prepared(Table(columns, values[:REFERENCE]), WINDOW)
    account, found = budget.Account(1.0, 0.0), {}
    for at in range(REFERENCE, len(values) - WINDOW, WINDOW):
        findings = judged(
            tests.scores(Table(columns, values[at : at + WINDOW])), budget.level(account, len(columns)), ()
        )
        account = budget.settled(account, 0)
        found[at] = {one.score.name for one in findings if one.detected}
    victoria = {"vicprice", "vicdemand", "transfer"}
    for at, drifting in found.items():
        assert "nswprice" in drifting
        assert drifting & victoria == (victoria if at + WINDOW > VICTORIA_JOINS else set()), at
