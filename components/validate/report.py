"""What a validation says: a page for the Kubeflow UI, and the bounded message a failing step ends with."""

from __future__ import annotations

from collections.abc import Sequence

from components import page
from components.profile import ColumnProfile, column_table
from components.validate.checks import Check
from kanary.dataschema import TableSchema

_ROWS_IN_MESSAGE = 5


def report_page(schema: TableSchema, rows: int, checks: Sequence[Check], columns: Sequence[ColumnProfile]) -> str:
    """The report: the verdict, every violation with its first rows, the profile of the columns, every check."""
    broken = [check for check in checks if not check.passed]
    if broken:
        verdict = page.Cell(f"not valid: {len(broken):,} of {len(checks):,} checks failed", "bad")
    else:
        verdict = page.Cell(f"valid: {len(checks):,} checks passed", "good")
    facts = [("rows", f"{rows:,}"), ("schema", schema.name), ("schema SHA-256", schema.digest())]
    if schema.unchecked:
        facts.append(("parts of the schema that are not checked", ", ".join(schema.unchecked)))
    return page.page(
        f"Validation of {schema.name}",
        page.table(("verdict", ""), [(verdict, ""), *facts]),
        *(_violations(broken) if broken else ()),
        page.heading("Columns"),
        page.paragraph("As typed by the schema; what is not of its type is missing here."),
        column_table(columns),
        page.heading("Checks"),
        page.table(
            ("column", "expected", "verdict"), [(check.column, check.expectation, _verdict(check)) for check in checks]
        ),
    )


def _violations(broken: Sequence[Check]) -> tuple[str, ...]:
    lines = [
        (check.column, check.expectation, f"{check.broken:,}", _where(check, len(check.values))) for check in broken
    ]
    return (
        page.heading("Violations"),
        page.paragraph("Rows count from 1, the header not counted. In brackets: the value found there."),
        page.table(("column", "expected", "times broken", "first rows"), lines),
    )


def _verdict(check: Check) -> page.Cell:
    return page.Cell("passed", "good") if check.passed else page.Cell("failed", "bad")


def message(schema: TableSchema, checks: Sequence[Check], shown: int) -> str:
    """The violations as text, one a line: column, expectation, rows with their values; at most `shown` lines."""
    broken = [check for check in checks if not check.passed]
    lines = [f"the data break their schema {schema.name!r}: {len(broken):,} of {len(checks):,} checks failed"]
    lines += [f"  {_line(check)}" for check in broken[:shown]]
    if len(broken) > shown:
        lines.append(f"  and {len(broken) - shown:,} more, in the report")
    return "\n".join(lines)


def _line(check: Check) -> str:
    text = f"column {check.column!r:.80}: expected {check.expectation}"
    where = _where(check, _ROWS_IN_MESSAGE)
    if not check.rows:
        return f"{text}: {where}" if where else text
    return f"{text}; broken in {check.broken:,} {'row' if check.broken == 1 else 'rows'}: {where}"


def _where(check: Check, limit: int) -> str:
    if not check.rows:
        return ", ".join(check.values[:limit])
    named = [f"{row} ({value})" for row, value in zip(check.rows[:limit], check.values[:limit], strict=True)]
    return ", ".join(named) + (", …" if check.broken > len(named) else "")
