from __future__ import annotations

import json
import math
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.ingest.table import ingest_table
from components.validate.checks import Check, column_checks, repeated, typed_column
from components.validate.dataset import judge, validate_dataset
from kanary.dataschema import Field, TableSchema, load
from kanary.errors import DataError, InputError

SHARED = Path(__file__).parents[3] / "shared" / "data"

LABEL = Field("label", "string", role="target", enum=("no", "yes"))


def schema(*fields: Field, key: tuple[str, ...] = (), missing: tuple[str, ...] = ("",)) -> TableSchema:
    return TableSchema("things", (*fields, LABEL), "label", primary_key=key, missing_values=missing)


def written(folder: Path, table: pa.Table) -> Path:
    pq.write_table(table, folder / "data.parquet")
    return folder / "data.parquet"


def labelled(folder: Path, **columns: Any) -> Path:
    """The columns beside a faultless target, as a dataset of text or of whatever Arrow makes of them."""
    count = len(next(iter(columns.values())))
    labels = ["no", "no", "yes", "yes", *["yes"] * count][: max(count, 4)]
    assert len(labels) == count, "give four rows at least"
    return written(folder, pa.table({**columns, "label": labels}))


def failed(dataset: Path, table_schema: TableSchema, shown: int = 20) -> list[Check]:
    return [check for check in judge(dataset, table_schema, shown).checks if not check.passed]


def only(dataset: Path, table_schema: TableSchema) -> tuple[str, str, int, tuple[int, ...], tuple[str, ...]]:
    """The one check that fails: what it says."""
    (check,) = failed(dataset, table_schema)
    return check.column, check.expectation, check.broken, check.rows, check.values


def test_text_that_is_no_number_is_named_with_its_rows(tmp_path: Path) -> None:
    data = labelled(tmp_path, size=["1", "abc", "1e400", "", "nan", "-inf", "2,5", " 7 "])
    column, expectation, broken, rows, values = only(data, schema(Field("size", "number")))
    assert (column, expectation, broken) == ("size", "a finite number", 5)
    assert rows == (2, 3, 5, 6, 7)
    assert values == ("'abc'", "'1e400'", "'nan'", "'-inf'", "'2,5'")


@pytest.mark.parametrize(
    ("field", "good", "bad", "expectation"),
    [
        (Field("x", "integer"), "12.0", "12.5", "a whole number of 64 bits"),
        (Field("x", "integer"), str(2**63 - 1), str(2**63), "a whole number of 64 bits"),
        (Field("x", "boolean"), "true", "maybe", "true or false"),
        (Field("x", "datetime", role="time"), "2024-02-29T10:00Z", "2023-02-29", "an ISO 8601 date or time"),
        (Field("x", "number", minimum=0.0), "0", "-0.001", "at least 0"),
        (Field("x", "number", maximum=0.1), "0.1", "0.10000000000000002", "at most 0.1"),
        (Field("x", "integer", minimum=18), "18", "17", "at least 18"),
        (Field("x", "integer", maximum=2**60), str(2**60), str(2**60 + 1), f"at most {2**60}"),
        (
            Field("x", "datetime", role="time", minimum="2024-01-01"),
            "2024-01-01",
            "2023-12-31T23:59:59",
            "at least 2024-01-01",
        ),
        (Field("x", "string", enum=("red", "blue")), "red", " red", "one of 'red', 'blue'"),
        (Field("x", "integer", enum=(1, 2)), "1.0", "3", "one of 1, 2"),
        (Field("x", "number", enum=(0.5, 1.0)), "1", "2", "one of 0.5, 1.0"),
        (Field("x", "boolean", enum=(True,)), "1", "0", "one of True"),
        (Field("x", "number", required=True), "0", "", "a value in every row"),
        (Field("x", "string", role="id", required=True), " ", "", "a value in every row"),
    ],
)
def test_a_broken_expectation_names_column_row_and_value(
    tmp_path: Path, field: Field, good: str, bad: str, expectation: str
) -> None:
    data = labelled(tmp_path, x=[good, good, bad, good])
    assert only(data, schema(field)) == ("x", expectation, 1, (3,), (repr(bad),))


def test_a_long_list_of_choices_is_cut_short(tmp_path: Path) -> None:
    field = Field("x", "integer", enum=tuple(range(20)))
    assert only(labelled(tmp_path, x=["1", "1", "1", "99"]), schema(field))[1].endswith("10, 11 and 8 more")


def test_values_written_as_missing_are_missing_and_nothing_else(tmp_path: Path) -> None:
    data = labelled(tmp_path, size=["NA", " ? ", "1", ""], kind=["a", "?", " ?", "NA"])
    table_schema = schema(Field("size", "number"), Field("kind", "string", enum=("a",)), missing=("NA", "?", ""))
    assert only(data, table_schema) == ("kind", "one of 'a'", 1, (3,), ("' ?'",))
    strict = schema(
        Field("size", "number", required=True), Field("kind", "string", enum=("a",)), missing=("NA", "?", " ?")
    )
    assert {(check.column, check.broken, check.rows) for check in failed(data, strict)} == {
        ("size", 2, (1, 2)),
        ("size", 1, (4,)),
    }


def test_a_missing_value_written_with_blanks_is_missing_in_numbers_too(tmp_path: Path) -> None:
    data = labelled(tmp_path, size=[" ?", "1", "2", "3"])
    assert not failed(data, schema(Field("size", "number"), missing=(" ?",)))


def test_values_of_a_unique_column_that_repeat_are_named(tmp_path: Path) -> None:
    data = labelled(tmp_path, id=["1", "2", "01", "", "", "3"])
    table_schema = schema(Field("x", "number"), Field("id", "integer", role="id", unique=True))
    checks = {(check.column, check.expectation): check for check in failed(data, table_schema)}
    assert checks["id", "no value twice"].rows == (1, 3)


def test_a_primary_key_of_two_columns_is_judged_together(tmp_path: Path) -> None:
    data = labelled(tmp_path, day=["1", "1", "2", "1"], shop=["a", "b", "a", "b"], x=["1"] * 4)
    fields = (Field("day", "integer", role="id"), Field("shop", "string", role="id"), Field("x", "number"))
    assert only(data, schema(*fields, key=("day", "shop"))) == (
        "day + shop",
        "no primary key twice",
        2,
        (2, 4),
        ("1, 'b'", "1, 'b'"),
    )


def test_a_part_of_the_primary_key_may_not_be_missing(tmp_path: Path) -> None:
    data = labelled(tmp_path, day=["1", "", "", "4"], x=["1"] * 4)
    fields = (Field("day", "integer", role="id"), Field("x", "number"))
    assert only(data, schema(*fields, key=("day",))) == ("day", "a value in every row", 2, (2, 3), ("''", "''"))


def test_missing_and_unexpected_columns_are_named(tmp_path: Path) -> None:
    data = written(tmp_path, pa.table({"Size": ["1"] * 4, "label": ["no", "no", "yes", "yes"], "x": ["1"] * 4}))
    found = failed(data, schema(Field("size", "number"), Field("kind", "boolean"), key=("size",)))
    assert [(check.column, check.expectation) for check in found] == [
        ("size", "one column of this name"),
        ("kind", "one column of this name"),
        ("Size", "no column beside the schema's"),
        ("x", "no column beside the schema's"),
    ]


def test_a_column_that_is_there_twice_is_not_guessed_at(tmp_path: Path) -> None:
    labels = ["no", "no", "yes", "yes"]
    data = written(tmp_path, pa.table([["1"] * 4, ["2"] * 4, labels], names=["size", "size", "label"]))
    assert only(data, schema(Field("size", "number")))[:2] == ("size", "one column of this name")


def test_the_target_is_there_and_among_its_classes(tmp_path: Path) -> None:
    data = written(tmp_path, pa.table({"x": ["1"] * 6, "label": ["no", "", "yes", "Yes", "no", "yes"]}))
    assert [(check.column, check.expectation, check.rows) for check in failed(data, schema(Field("x", "number")))] == [
        ("label", "a value in every row", (2,)),
        ("label", "one of 'no', 'yes'", (4,)),
    ]


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (["no", "no", "yes"], ("'yes' in 1 row",)),
        (["no", "no", "no"], ("'yes' in 0 rows",)),
        (["no"], ("'no' in 1 row", "'yes' in 0 rows")),
    ],
)
def test_each_class_needs_two_rows(tmp_path: Path, labels: list[str], values: tuple[str, ...]) -> None:
    data = written(tmp_path, pa.table({"x": ["1"] * len(labels), "label": labels}))
    found = only(data, schema(Field("x", "number")))
    assert found == ("label", "each class in two rows or more", len(values), (), values)


@pytest.mark.parametrize(
    ("kind", "classes", "labels"),
    [("integer", (0, 1), ["0", "1", "1.0", "0"]), ("boolean", (), ["false", "true", "1", "0"])],
)
def test_classes_may_be_integers_or_booleans(
    tmp_path: Path, kind: str, classes: tuple[int, ...], labels: list[str]
) -> None:
    data = written(tmp_path, pa.table({"x": ["1"] * 4, "label": labels}))
    target = Field("label", kind, role="target", enum=classes)
    table_schema = TableSchema("things", (Field("x", "number"), target), "label")
    validate_dataset(data, table_schema, tmp_path / "valid.parquet", tmp_path / "report.html")
    assert pq.read_table(tmp_path / "valid.parquet").column("label").to_pylist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("field", "column", "bad"),
    [
        (Field("x", "number"), pa.array([1.0, math.nan, math.inf, None]), (2, 3)),
        (Field("x", "number"), pa.array([1, 2, 3, None]), ()),
        (Field("x", "integer"), pa.array([1.0, 2.5, 1e30, None]), (2, 3)),
        (Field("x", "integer"), pa.array([True, None, False, True]), (1, 3, 4)),
        (Field("x", "boolean"), pa.array([1, 0, 1, None]), (1, 2, 3)),
        (Field("x", "boolean"), pa.array([True, False, None, True]), ()),
        (Field("x", "string", role="id"), pa.array([1, 2, 3, None]), (1, 2, 3)),
        (Field("x", "datetime", role="time"), pa.array([datetime(2024, 1, 1)] * 3 + [None]), ()),
        (Field("x", "number"), pa.array([datetime(2024, 1, 1)] * 3 + [None]), (1, 2, 3)),
    ],
)
def test_typed_columns_of_parquet_must_be_of_the_fields_type(
    tmp_path: Path, field: Field, column: pa.Array, bad: tuple[int, ...]
) -> None:
    data = labelled(tmp_path, x=column, y=["1"] * 4)
    found = failed(data, schema(field, Field("y", "number")))
    assert [(check.column, check.rows) for check in found] == ([("x", bad)] if bad else [])


def test_every_violation_is_reported_at_once(tmp_path: Path) -> None:
    data = labelled(tmp_path, size=["-1", "abc", "99", ""], kind=["a", "b", "<script>", ""], more=["1"] * 4)
    fields = (
        Field("size", "number", required=True, minimum=0, maximum=50),
        Field("kind", "string", required=True, enum=("a", "b")),
        Field("gone", "number"),
    )
    report = tmp_path / "report.html"
    with pytest.raises(DataError) as caught:
        validate_dataset(data, schema(*fields), tmp_path / "valid.parquet", report)
    message = caught.value.message
    assert "8 of" in message
    for line in (
        "column 'gone': expected one column of this name: found 0",
        "column 'more': expected no column beside the schema's",
        "column 'size': expected a finite number; broken in 1 row: 2 ('abc')",
        "column 'size': expected a value in every row; broken in 1 row: 4 ('')",
        "column 'size': expected at least 0; broken in 1 row: 1 ('-1')",
        "column 'size': expected at most 50; broken in 1 row: 3 ('99')",
        "column 'kind': expected a value in every row; broken in 1 row: 4 ('')",
        "column 'kind': expected one of 'a', 'b'; broken in 1 row: 3 ('<script>')",
    ):
        assert line in message
    assert not (tmp_path / "valid.parquet").exists()
    html = report.read_text(encoding="utf-8")
    assert "8 of" in html
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert not re.search(r"(src|href)\s*=", html), "the page loads nothing"


def test_message_and_report_are_bounded(tmp_path: Path) -> None:
    columns = {f"c{index}": ["x" * 1000] * 400 for index in range(30)}
    data = labelled(tmp_path, **columns)
    fields = [Field(name, "number") for name in columns]
    with pytest.raises(DataError) as caught:
        validate_dataset(data, schema(*fields), tmp_path / "valid.parquet", tmp_path / "report.html", shown=7)
    message = caught.value.message
    assert message.count("\n") == 8
    assert message.endswith("and 23 more, in the report")
    assert len(message) < 5_000
    assert "broken in 400 rows: 1 ('xxx" in message
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(f"<td>{name}</td>" in html for name in columns)
    assert len(html) < 100_000
    assert "400" in html


def test_no_violation_is_shown_where_none_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_violations_shown is 0"):
        validate_dataset(tmp_path / "x", schema(Field("x", "number")), tmp_path / "y", tmp_path / "z", shown=0)


def test_a_valid_dataset_is_written_typed_in_the_schemas_order(tmp_path: Path) -> None:
    columns = {
        "id": ["7", "8", "9", "10"],
        "at": ["2024-01-01", "2024-01-01T12:00+02:00", "", "9999-12-31"],
        "ok": ["true", "0", "", "1"],
        "size": ["1", " 2.5 ", "", "1e3"],
        "kind": ["a", "b", "", "a"],
    }
    fields = (
        Field("size", "number"),
        Field("kind", "string", enum=("a", "b")),
        Field("ok", "boolean"),
        Field("id", "integer", role="id", unique=True),
        Field("at", "datetime", role="time"),
    )
    found = validate_dataset(
        labelled(tmp_path, **columns), schema(*fields), tmp_path / "valid.parquet", tmp_path / "report.html"
    )
    table = pq.read_table(tmp_path / "valid.parquet")
    moment = pa.timestamp("us", tz="UTC")
    assert table.column_names == ["size", "kind", "ok", "id", "at", "label"]
    assert table.schema.types == [pa.float64(), pa.string(), pa.bool_(), pa.int64(), moment, pa.string()]
    assert table.column("size").to_pylist() == [1.0, 2.5, None, 1000.0]
    assert table.column("ok").to_pylist() == [True, False, None, True]
    assert table.column("at").to_pylist()[1] == datetime(2024, 1, 1, 10, tzinfo=UTC)
    assert (found.rows, found.checks) == (4, 18)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "valid: 18 checks passed" in html


def test_the_report_names_what_of_the_schema_is_not_checked(tmp_path: Path) -> None:
    document = {
        "name": "things",
        "target": "label",
        "fields": [
            {"name": "x", "type": "number", "constraints": {"exclusiveMinimum": 0}},
            {"name": "label", "type": "string", "constraints": {"enum": ["no", "yes"]}},
        ],
    }
    data = labelled(tmp_path, x=["1"] * 4)
    validate_dataset(data, load(json.dumps(document)), tmp_path / "valid.parquet", tmp_path / "report.html")
    assert "$.fields[0].constraints.exclusiveMinimum" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_csv_and_parquet_of_the_same_values_are_the_same_when_valid(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("size,label\n1,no\n2.50,no\n,yes\n4,yes\n", encoding="utf-8")
    typed = labelled(tmp_path, size=[1.0, 2.5, None, 4.0])
    hashes = set()
    for uri in (str(tmp_path / "data.csv"), str(typed)):
        ingest_table(uri, tmp_path / "raw.parquet")
        valid = validate_dataset(
            tmp_path / "raw.parquet", schema(Field("size", "number")), tmp_path / "valid.parquet", tmp_path / "r.html"
        )
        hashes.add(valid.sha256)
    assert len(hashes) == 1


def test_columns_whose_names_look_like_paths_are_told_apart(tmp_path: Path) -> None:
    data = labelled(tmp_path, **{"a": ["1"] * 4, "a.b": ["x"] * 4, "a.b.c": ["2"] * 4})
    fields = (Field("a", "number"), Field("a.b", "number"), Field("a.b.c", "number"))
    assert only(data, schema(*fields))[0] == "a.b"


def test_what_is_no_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.parquet").write_bytes(b"a,b\n")
    with pytest.raises(DataError, match="not a Parquet file"):
        judge(tmp_path / "data.parquet", schema(Field("x", "number")))


numbers = st.floats() | st.integers(-5, 5).map(float)


def test_minus_zero_is_zero(tmp_path: Path) -> None:
    data = labelled(tmp_path, x=["-0", "0.0", "1", "2"], y=pa.array([-0.0, 0.0, 0.0, -0.0]))
    fields = (Field("x", "number", unique=True), Field("y", "number", enum=(-0.0,)))
    assert only(data, schema(*fields)) == ("x", "no value twice", 2, (1, 2), ("'-0'", "'0.0'"))


@given(st.lists(st.none() | numbers, min_size=1), st.integers(-5, 5), st.integers(0, 5), st.booleans())
@settings(deadline=None)
def test_rows_reported_are_those_a_loop_over_rows_finds(
    values: list[float | None], low: int, width: int, required: bool
) -> None:
    field = Field("x", "number", required=required, unique=True, minimum=low, maximum=low + width)
    text = pa.array(["" if value is None else repr(value) for value in values])
    column = typed_column(text, field, [""])
    checks = {check.expectation: check for check in column_checks(column, schema(field), shown=len(values))}
    finite = {row: value for row, value in enumerate(values, 1) if value is not None and math.isfinite(value)}
    times = Counter(finite.values())
    expected = {
        "a finite number": [row for row, value in enumerate(values, 1) if value is not None and row not in finite],
        f"at least {low}": [row for row, value in finite.items() if value < low],
        f"at most {low + width}": [row for row, value in finite.items() if value > low + width],
        "no value twice": [row for row, value in finite.items() if times[value] > 1],
    }
    if required:
        expected["a value in every row"] = [row for row, value in enumerate(values, 1) if value is None]
    assert {name: list(check.rows) for name, check in checks.items()} == expected
    assert all(check.broken == len(expected[name]) for name, check in checks.items())


keys = st.tuples(st.none() | st.integers(0, 3), st.none() | st.sampled_from(["a", "b"]), st.booleans())


@given(st.lists(keys, min_size=1, max_size=30))
@settings(deadline=None)
def test_repeated_keys_are_those_a_count_finds(rows: list[tuple[Any, ...]]) -> None:
    kinds = [pa.int64(), pa.string(), pa.bool_()]
    columns = [pa.array(column, type=kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
    times = Counter(rows)
    assert repeated(columns).tolist() == [None not in row and times[row] > 1 for row in rows]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_real_data_with_dirt_are_judged_as_their_schema_says(tmp_path: Path) -> None:
    ingested = ingest_table(str(SHARED / "adult.csv.gz"), tmp_path / "raw.parquet")
    numeric = ("column_1", "age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
    fields = tuple(
        Field(column.name, "integer", required=True)
        if column.name in numeric
        else Field(column.name, "string", role="ignored")
        for column in ingested.columns
        if column.name != "income"
    )
    target = Field("income", "string", role="target", enum=("<=50K", ">50K"))
    table_schema = TableSchema("adult", (*fields, target), "income", missing_values=("", " ?"))
    found = failed(tmp_path / "raw.parquet", table_schema, shown=1)
    assert [(check.column, check.broken, check.values) for check in found] == [
        ("income", 32_561, ("' <=50K'",)),
        ("income", 2, ("'<=50K' in 0 rows", "'>50K' in 0 rows")),
    ]
    spelt = Field("income", "string", role="target", enum=(" <=50K", " >50K"))
    assert not failed(tmp_path / "raw.parquet", TableSchema("adult", (*fields, spelt), "income"))
