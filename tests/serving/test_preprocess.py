from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanary.errors import DataError, InputError
from kanary.modelspec import CategoricalFeature, NumericFeature
from serving.model.preprocess import CLIP, category_text, class_indices, fit_numeric, numbers, transform

WIDTH = NumericFeature("width", "number", mean=10.0, std=2.0, fill=12.0)
SOIL = CategoricalFeature("soil", "string", ("clay", "sand"))
WILD = CategoricalFeature("wild", "boolean", ("false", "true"))
GRADE = CategoricalFeature("grade", "integer", ("1", "2", "3"))


def test_numbers_are_standardised_and_missing_ones_filled_with_the_median() -> None:
    arrays = transform([WIDTH], {"width": [10, 12.0, None, math.nan, "", "14"]})
    assert arrays.numeric[:, 0].tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 2.0]
    assert arrays.numeric.dtype == np.float32
    assert arrays.categorical.shape == (6, 0)


def test_categories_have_their_index_and_missing_or_unknown_ones_zero() -> None:
    values = {
        "soil": ["clay", "sand", None, "peat", "", math.nan, 3],
        "wild": [True, "true", False, "false", None, 1, 2],
    }
    arrays = transform([SOIL, WILD], values)
    assert arrays.categorical[:, 0].tolist() == [1, 2, 0, 0, 0, 0, 0]
    assert arrays.categorical[:, 1].tolist() == [2, 2, 1, 1, 0, 2, 0]


def test_a_numeric_category_is_found_by_value_and_by_text() -> None:
    arrays = transform([GRADE], {"grade": np.array([1.0, 2.0, np.nan, 3.0, 2.5])})
    assert arrays.categorical[:, 0].tolist() == [1, 2, 0, 3, 0]
    assert transform([GRADE], {"grade": ["2", 2]}).categorical[:, 0].tolist() == [2, 2]


def test_a_wild_value_is_cut_and_stays_finite() -> None:
    arrays = transform([WIDTH], {"width": [1e308, -1e308]})
    assert arrays.numeric[:, 0].tolist() == [CLIP, -CLIP]


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)


@given(st.lists(VALUES, max_size=6), st.floats(-1e300, 1e300), st.floats(1e-300, 1e300))
@settings(deadline=None)
def test_whatever_is_sent_is_refused_or_becomes_finite(values: list[Any], mean: float, std: float) -> None:
    feature = NumericFeature("width", "number", mean=mean, std=std, fill=mean)
    try:
        arrays = transform([feature, SOIL], {"width": values, "soil": values})
    except InputError:
        return
    assert len(arrays) == len(values)
    assert (np.abs(arrays.numeric) <= CLIP).all()
    assert set(arrays.categorical[:, 0].tolist()) <= {0, 1, 2}


def test_lists_tuples_and_arrays_give_the_same() -> None:
    values: list[Any] = [1.0, 2.0, 3.0]
    expected = transform([WIDTH], {"width": values}).numeric
    for same in (tuple(values), np.array(values), np.array(values, dtype=object), np.array(["1", "2", "3"])):
        assert np.array_equal(transform([WIDTH], {"width": same}).numeric, expected)


@pytest.mark.parametrize("value", ["abc", [1.0], {"a": 1}, math.inf, "-inf", 10**400, object()])
def test_what_is_no_number_is_refused_with_column_and_row(value: Any) -> None:
    with pytest.raises(InputError, match=r"column width, row 2 "):
        transform([WIDTH], {"width": [1.0, value, 3.0]})


def test_a_column_of_lists_is_no_column_of_numbers() -> None:
    with pytest.raises(InputError, match=r"column width, row 1 "):
        transform([WIDTH], {"width": [[1.0], [2.0]]})


@pytest.mark.parametrize("value", [["clay"], {"soil": 1}, ([],)])
def test_what_is_no_category_is_refused_with_column_and_row(value: Any) -> None:
    with pytest.raises(InputError, match=r"column soil, row 2 "):
        transform([SOIL], {"soil": ["clay", value]})


@pytest.mark.parametrize("column", ["clay", b"clay", 3.0, None, {"a": 1}, np.zeros((2, 2)), np.array(3.0)])
def test_what_is_no_column_is_refused(column: Any) -> None:
    with pytest.raises(InputError, match="column width"):
        transform([WIDTH], {"width": column})


def test_missing_and_ragged_columns_are_named() -> None:
    with pytest.raises(InputError, match="missing: soil, wild"):
        transform([WIDTH, SOIL, WILD], {"width": [1.0]})
    with pytest.raises(InputError, match="soil has 1 of 2 rows"):
        transform([WIDTH, SOIL], {"width": [1.0, 2.0], "soil": ["clay"]})


def test_no_rows_and_unasked_columns_are_no_fault() -> None:
    arrays = transform([WIDTH, SOIL], {"soil": [], "width": [], "other": ["x"]})
    assert arrays.numeric.shape == (0, 1)
    assert arrays.categorical.shape == (0, 1)


def test_a_fitted_feature_has_the_moments_of_what_is_there() -> None:
    feature = fit_numeric("width", "number", [1.0, None, 3.0, 8.0])
    assert feature.mean == 4.0
    assert feature.std == pytest.approx(np.std([1.0, 3.0, 8.0]))
    assert feature.fill == 3.0


@pytest.mark.parametrize("values", [[0.1] * 7, [None, None], [], [5.0, None, 5.0]])
def test_a_column_that_tells_nothing_becomes_zero(values: list[Any]) -> None:
    feature = fit_numeric("width", "number", values)
    assert feature.std == 1.0
    assert transform([feature], {"width": [*values, None]}).numeric == pytest.approx(0.0)


def test_a_column_too_large_to_standardise_is_refused() -> None:
    with pytest.raises(InputError, match="column width"):
        fit_numeric("width", "number", [1e308, -1e308])


def test_numbers_keeps_missing_values_apart() -> None:
    assert numbers("width", [1, None]).tolist()[0] == 1.0
    assert np.isnan(numbers("width", [1, None])).tolist() == [False, True]


def test_classes_are_found_whatever_their_type() -> None:
    assert class_indices("y", "string", ("a", "b"), ["b", "a"]).tolist() == [1, 0]
    assert class_indices("y", "integer", ("0", "1"), np.array([1, 0, 1])).tolist() == [1, 0, 1]
    assert class_indices("y", "boolean", ("false", "true"), np.array([True, False])).tolist() == [1, 0]
    assert [category_text(value) for value in (True, 3, "x", 2.5)] == ["true", "3", "x", "2.5"]


@pytest.mark.parametrize("value", [None, "c"])
def test_a_row_without_a_known_class_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match=r"column y, row 2 .* a, b"):
        class_indices("y", "string", ("a", "b"), ["a", value])
