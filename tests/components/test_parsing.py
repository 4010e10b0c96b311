from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components import parsing


def text(*values: str | None) -> pa.Array:
    return pa.array(values, type=pa.string())


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
@settings(deadline=None)
def test_every_finite_float_is_read_back_exactly(values: list[float]) -> None:
    assert parsing.numbers(text(*map(repr, values))).to_pylist() == values


@given(st.lists(st.from_regex(r"\A[+-]?[0-9]{1,400}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,3})?\Z"), min_size=1))
@settings(deadline=None)
def test_a_decimal_is_read_as_python_reads_it_or_is_not_finite(values: list[str]) -> None:
    expected = [float(value) if math.isfinite(float(value)) else None for value in values]
    assert parsing.numbers(text(*values)).to_pylist() == expected


@pytest.mark.parametrize(
    "value", ["abc", "1e400", "-1e400", "nan", "inf", "1,5", "1_000", "0x10", "1e", "", ".", "1 2", "٣"]
)
def test_what_is_no_finite_number_becomes_null(value: str) -> None:
    assert parsing.numbers(text(value, "1")).to_pylist() == [None, 1.0]


@pytest.mark.parametrize(
    ("value", "number"), [(" 5 ", 5.0), ("+5", 5.0), ("5.", 5.0), (".5", 0.5), ("1E5", 1e5), ("-0", 0.0)]
)
def test_a_number_may_be_written_in_any_usual_way(value: str, number: float) -> None:
    assert parsing.numbers(text(value, None)).to_pylist() == [number, None]


@given(
    st.lists(st.integers(-(2**65), 2**65), min_size=1), st.sampled_from(["{}", "{}.0", "{}.", " {} ", "{:+}", "{:030}"])
)
@settings(deadline=None)
def test_an_integer_is_read_exactly_when_it_fits_into_64_bits(values: list[int], form: str) -> None:
    expected = [value if -(2**63) <= value < 2**63 else None for value in values]
    assert parsing.integers(text(*(form.format(value) for value in values))).to_pylist() == expected


@pytest.mark.parametrize("value", ["1.5", "1e3", "abc", "", "-", "1.0.0", "9" * 5000])
def test_what_is_no_whole_number_becomes_null(value: str) -> None:
    assert parsing.integers(text(value, "7")).to_pylist() == [None, 7]


def test_booleans_are_the_words_of_the_standard() -> None:
    read = parsing.booleans(text("true", "True", "TRUE", "1", "false", "False", "FALSE", "0", "yes", "tRUE", "", None))
    assert read.to_pylist() == [True] * 4 + [False] * 4 + [None] * 4


offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
span = (datetime(2, 1, 1), datetime(9998, 12, 31))
times = st.datetimes(*span) | st.datetimes(*span, timezones=offsets)


@given(st.lists(times, min_size=1), st.sampled_from(["T", " "]))
@settings(deadline=None)
def test_a_moment_is_read_as_python_writes_it(values: list[datetime], separator: str) -> None:
    expected = [value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC) for value in values]
    assert parsing.moments(text(*(value.isoformat(separator) for value in values))).to_pylist() == expected


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
        ("2024-05-06T07:08Z", datetime(2024, 5, 6, 7, 8, tzinfo=UTC)),
        ("2024-05-06T07:08:09.123456789Z", datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)),
        ("2024-05-06 07:08:09.1+0200", datetime(2024, 5, 6, 5, 8, 9, 100000, tzinfo=UTC)),
    ],
)
def test_a_moment_may_leave_parts_out(value: str, moment: datetime) -> None:
    assert parsing.moments(text(value)).to_pylist() == [moment]


@pytest.mark.parametrize(
    "value",
    ["2023-02-29", "2024-13-01", "2024-00-10", "2024-01-00", "2024-01-01T24:00", "2024-01-01T10:60", "2024-1-1", "2024",
     "01.02.2024", "today", "2024-01-01T10:00+25:00", "2024-01-01Z", ""],
)  # fmt: skip
def test_what_is_no_moment_becomes_null(value: str) -> None:
    assert parsing.moments(text(value, "2024-01-01")).to_pylist() == [None, datetime(2024, 1, 1, tzinfo=UTC)]


@pytest.mark.parametrize("parse", [parsing.numbers, parsing.integers, parsing.booleans, parsing.moments])
def test_no_rows_and_rows_of_nothing_are_read(parse: object) -> None:
    assert callable(parse)
    assert len(parse(text())) == 0
    assert parse(text(None, None)).null_count == 2
