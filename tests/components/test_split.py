from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.content import content_hash
from components.split.dataset import Part, split_dataset
from components.split.rows import random_rows, time_rows
from kanary.dataschema import Field, TableSchema
from kanary.errors import DataError, InputError

TIMED = TableSchema(
    "things",
    (
        Field("row", "integer"),
        Field("at", "datetime", role="time"),
        Field("label", "string", role="target", enum=("no", "yes")),
    ),
    "label",
)
UNTIMED = TableSchema("things", (TIMED.fields[0], TIMED.fields[2]), "label")


def dataset(folder: Path, labels: list[str], times: list[datetime | None] | None = None) -> Path:
    table = pa.table({"row": list(range(len(labels))), "label": labels})
    if times is not None:
        table = table.append_column("at", pa.array(times, type=pa.timestamp("us", tz="UTC")))
    pq.write_table(table, folder / "data.parquet")
    return folder / "data.parquet"


def split(folder: Path, data: Path, schema: TableSchema, **options: Any) -> tuple[Part, Part]:
    return split_dataset(data, schema, folder / "train.parquet", folder / "test.parquet", **options)


def rows(path: Path) -> list[int]:
    found: list[int] = pq.read_table(path).column("row").to_pylist()
    return found


def test_a_random_split_keeps_the_proportion_of_classes_and_says_so(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["no", "no", "no", "yes"] * 50)
    train, test = split(tmp_path, data, UNTIMED, test_fraction=0.2, seed=7)
    assert (train.rows, train.classes) == (160, {"no": 120, "yes": 40})
    assert (test.rows, test.classes) == (40, {"no": 30, "yes": 10})
    whole = pq.read_table(data)
    assert train.parent_sha256 == test.parent_sha256 == content_hash(whole)
    assert train.sha256 == content_hash(pq.read_table(tmp_path / "train.parquet"))
    assert train.sha256 != test.sha256
    assert sorted(rows(tmp_path / "train.parquet") + rows(tmp_path / "test.parquet")) == list(range(200))
    assert rows(tmp_path / "test.parquet") == sorted(rows(tmp_path / "test.parquet"))


def test_the_same_seed_gives_the_same_parts_and_another_seed_others(tmp_path: Path) -> None:
    data = dataset(tmp_path, ["no", "yes"] * 50)
    parts = [split(tmp_path, data, UNTIMED, seed=seed) for seed in (3, 3, 4)]
    assert parts[0] == parts[1]
    assert parts[0] != parts[2]
    first = (tmp_path / "train.parquet").read_bytes()
    split(tmp_path, data, UNTIMED, seed=4)
    assert (tmp_path / "train.parquet").read_bytes() == first


def test_the_draw_stays_the_same_over_versions() -> None:
    _, test = random_rows(np.array([0, 1] * 6), 0.34, seed=2026)
    assert test.tolist() == [0, 4, 7, 9]


def test_a_split_by_time_tests_on_the_latest_rows(tmp_path: Path) -> None:
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    times: list[datetime | None] = [begin + timedelta(hours=hour) for hour in (5, 1, 4, 2, 3, 0, 9, 8, 7, 6)]
    data = dataset(tmp_path, ["no", "yes"] * 5, times)
    train, test = split(tmp_path, data, TIMED, test_fraction=0.3, by="time")
    assert rows(tmp_path / "train.parquet") == [5, 1, 3, 4, 2, 0, 9]
    assert rows(tmp_path / "test.parquet") == [8, 7, 6]
    assert (train.rows, test.rows) == (7, 3)


def test_rows_of_one_moment_stay_together() -> None:
    train, test = time_rows(np.array([1, 2, 2, 2, 2, 2, 2, 3, 3, 4]), 0.4)
    assert (train.tolist(), test.tolist()) == (list(range(7)), [7, 8, 9])


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"by": "group"}, "'group'"),
        ({"test_fraction": 0.0}, "test_fraction is 0"),
        ({"test_fraction": 1}, "test_fraction is 1"),
        ({"test_fraction": float("nan")}, "test_fraction is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"by": "time"}, "has no time field"),
    ],
)
def test_a_wrong_argument_is_refused(tmp_path: Path, options: dict[str, Any], fault: str) -> None:
    data = dataset(tmp_path, ["no", "yes"] * 5)
    with pytest.raises(InputError, match=fault):
        split(tmp_path, data, UNTIMED, **options)
    assert [item.name for item in tmp_path.iterdir()] == ["data.parquet"]


def test_rows_that_cannot_be_parted_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few to part"):
        split(tmp_path, dataset(tmp_path, ["no"]), UNTIMED)
    with pytest.raises(DataError, match="1 of 2 classes have one row only"):
        split(tmp_path, dataset(tmp_path, ["no", "no", "yes"]), UNTIMED)
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    with pytest.raises(DataError, match="the same time"):
        split(tmp_path, dataset(tmp_path, ["no", "yes"], [moment, moment]), TIMED, by="time")
    with pytest.raises(DataError, match=r"'at' is empty in 1 rows.*: 2"):
        split(tmp_path, dataset(tmp_path, ["no", "yes"], [moment, None]), TIMED, by="time")
    with pytest.raises(DataError, match="no column 'at'"):
        split(tmp_path, dataset(tmp_path, ["no", "yes"]), TIMED, by="time")


fractions = st.floats(0, 1, exclude_min=True, exclude_max=True)


classes = st.lists(st.integers(0, 4), min_size=1, max_size=80).map(lambda labels: [*labels, *2 * sorted(set(labels))])


@given(classes, fractions, st.integers(0, 2**70))
@settings(deadline=None)
def test_any_random_split_is_a_partition_with_every_class_on_both_sides(
    labels: list[int], fraction: float, seed: int
) -> None:
    train, test = random_rows(np.array(labels), fraction, seed)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(labels)))
    tested = Counter(labels[row] for row in test)
    for label, count in Counter(labels).items():
        assert 1 <= tested[label] <= count - 1
        assert abs(tested[label] - count * fraction) <= 1


@given(st.lists(st.integers(0, 20), min_size=1, max_size=80), fractions)
@settings(deadline=None)
def test_any_split_by_time_is_a_partition_into_earlier_and_later(earlier: list[int], fraction: float) -> None:
    times = [21, *earlier]
    train, test = time_rows(np.array(times), fraction)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(times)))
    assert max(times[row] for row in train) < min(times[row] for row in test)
