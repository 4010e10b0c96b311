from __future__ import annotations

import numpy as np
import pytest

from serving.drift.findings import Score
from serving.drift.shapes import BINS, as_json, from_json, shapes, worst
from serving.drift.table import Column, Table


def table(columns: dict[str, tuple[int, list[float]]]) -> Table:
    made = tuple(Column(name, size) for name, (size, _) in columns.items())
    return Table(made, np.array([values for _, values in columns.values()], dtype=np.float64).T)


def test_a_numbers_bins_are_the_references_and_hold_every_row() -> None:
    rng = np.random.default_rng(1)
    before = table({"age": (0, rng.normal(50, 10, 2000).tolist())})
    after = table({"age": (0, rng.normal(90, 10, 300).tolist())})
    (one,) = shapes(before, after, "feature", ["age"], {})
    (other,) = shapes(before, before, "feature", ["age"], {})
    assert len(one.bins) == len(one.reference) == len(one.current) == BINS
    assert one.bins == other.bins
    assert one.bins[0].startswith("below ")
    assert one.bins[-1].startswith("from ")
    assert one.reference == other.current
    assert sum(one.current) == pytest.approx(1) == sum(one.reference)
    assert one.current[-1] > 0.8


def test_a_number_of_few_values_has_a_bin_for_each() -> None:
    before = table({"children": (0, [0, 0, 1, 2])})
    after = table({"children": (0, [2, 2, 2, 7])})
    (one,) = shapes(before, after, "feature", ["children"], {})
    assert (one.bins, one.reference, one.current) == (("0", "1", "2"), (0.5, 0.25, 0.25), (0, 0, 1))
    (constant,) = shapes(table({"c": (0, [3, 3])}), table({"c": (0, [4, 3])}), "feature", ["c"], {})
    assert (constant.bins, constant.current) == (("3",), (1,))


def test_rare_categories_count_as_others_and_what_is_unknown_has_its_name() -> None:
    names = [f"c{number}" for number in range(30)]
    common = [index for index in range(1, 12) for _ in range(5)]
    before = table({"plan": (31, [*common, *range(12, 31)])})
    after = table({"plan": (31, [0, 1, 30, 30])})
    (one,) = shapes(before, after, "feature", ["plan"], {"plan": names})
    assert one.bins == (*names[:11], "(others)")
    assert one.current == (0.25, *[0] * 10, 0.75)
    few = shapes(table({"p": (3, [1, 2, 2])}), table({"p": (3, [0, 0, 1])}), "feature", ["p"], {"p": ("a", "b")})
    assert few[0].bins == ("(missing or unknown)", "a", "b")
    labels = shapes(
        table({"label": (2, [0, 1])}), table({"label": (2, [1, 1])}), "prediction", ["label"], {"label": ("a", "b")}
    )
    assert (labels[0].bins, labels[0].current) == (("a", "b"), (0, 1))
    assert from_json(as_json([*few, *labels])) == (*few, *labels)


def test_only_the_columns_that_drift_most_are_drawn() -> None:
    scores = [Score(f"f{number}", "feature", "ks", 0.1, number / 100) for number in range(50)]
    scores += [Score("label", "prediction", "chi2", 0.2, 0.0), Score("all features", "multivariate", "mmd", 0.0, 0.0)]
    assert worst(scores, "feature", 3) == ["f0", "f1"]
    assert worst(scores, "prediction", 3) == ["label"]
    assert worst(scores, "feature", 0) == []
