"""The batch component: what it compares, what it finds, what its page shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.drift.report import report_page
from components.drift.tables import pair
from kanary.errors import InputError
from tests.drift.rig import NEEDS_ALIBI
from tests.drift.stream import rows


def written(path: Path, found: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(found), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A reference, the same world later, and another world."""
    folder = tmp_path_factory.mktemp("data")
    moved = rows(800, seed=3, shift={"demand": 0.8, "weather": 0.3})
    return (
        written(folder / "reference.parquet", rows(2000, seed=1)),
        written(folder / "same.parquet", rows(800, seed=2)),
        written(folder / "moved.parquet", moved),
    )


@NEEDS_ALIBI
@pytest.mark.parametrize("correction", ["bonferroni", "fdr"])
def test_columns_that_drift_are_ranked_first_and_named(files: tuple[Path, Path, Path], correction: str) -> None:
    from components.drift.comparison import compare

    reference, same, moved = files
    still = compare(pair(reference, same), 1e-6, correction, "none")
    assert (still.drifts, still.names) == (False, [])
    found = compare(pair(reference, moved), 1e-3, correction, "classifier")
    assert found.drifts
    assert found.drifts_together
    assert set(found.names) == {"demand", "weather"}
    assert [one.feature.name for one in found.columns[:2]] == found.names
    assert found.threshold <= 1e-3


@NEEDS_ALIBI
def test_the_page_shows_ranks_tests_correction_and_both_distributions(
    files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    from components.drift.comparison import compare

    reference, _, _ = files
    other = rows(800, seed=3, shift={"demand": 0.8})
    evil = written(tmp_path / "evil.parquet", [row | {"<b>&": 1.0, "weather": "<script>"} for row in other])
    found = pair(reference, evil)
    html = report_page("Drift", found, compare(found, 0.05, "fdr", "none"))
    assert "<script>" not in html
    assert "<b>" not in html
    assert "http" not in html
    assert "Benjamini-Hochberg" in html
    assert "Kolmogorov-Smirnov" in html
    assert "the reference does not have it" in html
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        rectangles = ElementTree.fromstring(drawing).findall("rect")
        assert len(rectangles) >= 4
        assert all(float(one.attrib["height"]) >= 0 for one in rectangles)
    assert html.index("<td>demand</td>") < html.index("<td>price</td>")


@NEEDS_ALIBI
def test_what_is_no_level_correction_or_test_is_refused(files: tuple[Path, Path, Path]) -> None:
    from components.drift.comparison import compare

    found = pair(files[0], files[1])
    for p_value, correction, test in ((0.0, "fdr", "none"), (0.05, "holm", "none"), (0.05, "fdr", "magic")):
        with pytest.raises(InputError):
            compare(found, p_value, correction, test)


def test_columns_are_typed_by_the_reference_and_others_left_out_with_a_reason(tmp_path: Path) -> None:
    before = [{"n": float(i), "c": "ab"[i % 2], "id": f"row {i}", "gone": 1, "flag": i % 2 == 0} for i in range(60)]
    now = [{"n": i, "c": "x" if i else None, "id": f"row {i}", "extra": 1, "flag": True} for i in range(60)]
    found = pair(written(tmp_path / "a.parquet", before), written(tmp_path / "b.parquet", now))
    assert [one.name for one in found.features] == ["n", "c", "flag"]
    assert found.features[1].categories == ("a", "b", "(new)")
    assert found.features[1].missing == (0, 1)
    assert set(found.current.values[:, 1].tolist()) == {0.0, 3.0}
    assert dict(found.left_out) == {
        "id": "more than 50 different texts",
        "gone": "the current data do not have it",
        "extra": "the reference does not have it",
    }


def test_too_few_rows_and_unknown_columns_are_refused(tmp_path: Path) -> None:
    few = written(tmp_path / "few.parquet", [{"a": 1.0}] * 5)
    many = written(tmp_path / "many.parquet", [{"a": 1.0}] * 50)
    with pytest.raises(InputError, match="the current data has 5 rows"):
        pair(many, few)
    with pytest.raises(InputError, match="lacks b"):
        pair(many, many, ["b"])
