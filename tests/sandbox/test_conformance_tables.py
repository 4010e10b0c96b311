"""The conformance tables in the sandbox's READMEs name tests that there are.

In a column `test`, code is a file (`test_watch.py`), a file of vectors (`vectors/create`, and after it plain names), or
(the beginning of) a test's name; after a file, in parentheses, parts of the names of tests in that file. The pipelines'
tables and that of the sandbox as a whole name tests; a file alone is not enough there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
READMES = sorted((ROOT / "sandbox").rglob("README.md"))
CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Row:
    """A row of a table with a column of tests."""

    readme: Path
    line: int
    behaviour: str
    tests: str


def rows(readme: Path, text: str) -> Iterator[Row]:
    column = -1
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] if line.startswith("|") else []
        if not cells:
            column = -1
        elif "test" in cells:
            column = cells.index("test")
        elif column >= 0 and not set(line) <= set("|-: "):
            yield Row(readme, number, cells[0], cells[column] if column < len(cells) else "")


def names_of_tests(path: Path) -> list[str]:
    return re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)


FILES: dict[str, list[Path]] = {}  # by name, which several may have
for path in TESTS.rglob("test_*.py"):
    FILES.setdefault(path.name, []).append(path)
NAMES = {name for paths in FILES.values() for path in paths for name in names_of_tests(path)}
TESTS_ARE_NAMED = {"sandbox", "engine", "kfp"}
VECTORS = {path.stem for path in TESTS.rglob("vectors/*.json*")}


def missing(cell: str, file_is_enough: bool = True) -> list[str]:
    """What a cell names and there is not; a cell that names nothing misses everything."""
    found = CODE.findall(cell)
    gone = []
    within: list[Path] = []
    of_vectors = False
    alone = ""  # a file of which no test was named yet
    for code in found:
        name = code.removesuffix("…").removesuffix("...")
        if name.endswith(".py"):
            gone += [alone] if alone else []
            within, of_vectors = FILES.get(Path(name).name, []), False
            exists = bool(within)
            alone = code if exists and not file_is_enough else ""
        elif name.startswith("vectors/"):
            of_vectors, exists = True, name.removeprefix("vectors/") in VECTORS
        elif name.startswith("test_"):
            is_file = f"{name}.py" in FILES
            exists = file_is_enough if is_file else any(test.startswith(name) for test in NAMES)
        elif of_vectors:
            exists = name in VECTORS
        else:
            exists = any(name in test for path in within for test in names_of_tests(path))
            alone = ""
        if not exists:
            gone.append(code)
    gone += [alone] if alone else []
    return gone if found else ["a test"]


ROWS = [row for readme in READMES for row in rows(readme, readme.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.readme.parent.name}:{row.line}")
def test_every_row_names_tests_that_there_are(row: Row) -> None:
    named = row.readme.parent.name in TESTS_ARE_NAMED
    assert missing(row.tests, file_is_enough=not named) == [], (
        f"{row.readme.relative_to(ROOT)}:{row.line}: {row.behaviour}"
    )


def test_every_file_of_vectors_stands_in_the_apis_table() -> None:
    table = " ".join(row.tests for row in ROWS if row.readme.parent.name == "kubernetes")
    beside = {"shared", "admission", "kubectl"}  # what the others are made of, and what other tests read
    assert VECTORS - beside <= set(re.findall(r"[\w-]+", table))


@pytest.mark.parametrize(
    ("cell", "gone"),
    [
        ("`test_conformance_tables.py` (`names_tests_that_there_are`)", []),
        ("`test_every_row_names_…`, `test_conformance_tables`", []),
        ("`vectors/create`, `read`, `test_watch.py`", []),
        ("", ["a test"]),
        ("`test_nosuch.py`", ["test_nosuch.py"]),
        ("`vectors/nosuch`, `read`, `neither`", ["vectors/nosuch", "neither"]),
        ("`test_conformance_tables.py` (`no_such_behaviour`)", ["no_such_behaviour"]),
        ("`test_no_such_behaviour`", ["test_no_such_behaviour"]),
    ],
)
def test_what_is_not_there_is_found(cell: str, gone: list[str]) -> None:
    assert missing(cell) == gone


@pytest.mark.parametrize(
    ("cell", "gone"),
    [
        ("`test_conformance_tables.py` (`names_tests_that_there_are`)", []),
        ("`test_every_row_names_tests`", []),
        ("`test_conformance_tables.py`", ["test_conformance_tables.py"]),
        ("`test_conformance_tables`", ["test_conformance_tables"]),
        ("`test_watch.py`, `test_conformance_tables.py` (`every_row`)", ["test_watch.py"]),
        ("`test_conformance_tables.py` (`every_row`), `test_watch.py`", ["test_watch.py"]),
    ],
)
def test_a_file_is_not_enough_where_tests_are_to_be_named(cell: str, gone: list[str]) -> None:
    assert missing(cell, file_is_enough=False) == gone


def test_only_tables_with_a_column_of_tests_are_read() -> None:
    text = "| a | b |\n|---|---|\n| 1 | 2 |\n\n| behaviour | test |\n|---|---|\n| does | `t` |\n\n| does not | x |\n"
    assert [(row.behaviour, row.tests) for row in rows(Path("R"), text)] == [("does", "`t`")]
