"""A dataset judged against its schema: the report always, the typed dataset only when it is valid."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from components.content import content_hash, open_parquet, read_column, write_table
from components.files import write_text
from components.profile import ColumnProfile, Profiler
from components.validate.checks import Check, column_checks, header_checks, key_check, typed_column
from components.validate.report import message, report_page
from kanary.dataschema import TableSchema
from kanary.errors import DataError, InputError


@dataclass(frozen=True)
class Judgement:
    """Every check with its breaches, the profiles of the typed columns and the typed columns themselves."""

    rows: int
    checks: tuple[Check, ...]
    profiles: tuple[ColumnProfile, ...]
    table: pa.Table


@dataclass(frozen=True)
class Validated:
    """A valid dataset: rows, number of checks it passed, content hash (components.content) of its typed columns."""

    rows: int
    checks: int
    sha256: str


def judge(dataset: Path, schema: TableSchema, shown: int = 20) -> Judgement:
    """Judges a Parquet file column by column, so that one raw column at a time is in memory.

    Each check names its first `shown` breaches. DataError only when the file cannot be read.
    """
    profiles: list[ColumnProfile] = []
    typed: dict[str, pa.Array] = {}
    with open_parquet(dataset, str(dataset)) as file:
        rows = int(file.metadata.num_rows)
        names = Counter(file.schema_arrow.names)
        checks = list(header_checks(file.schema_arrow.names, schema))
        for field in schema.fields:
            if names[field.name] != 1:
                continue
            column = typed_column(read_column(file, field.name, str(dataset)), field, schema.missing_values)
            checks += column_checks(column, schema, shown)
            profiler = Profiler(field.name, column.values.type)
            profiler.update(column.values)
            profiles.append(profiler.profile())
            typed[field.name] = column.values
    if schema.primary_key and all(name in typed for name in schema.primary_key):
        checks.append(key_check(schema.primary_key, [typed[name] for name in schema.primary_key], shown))
    return Judgement(rows, tuple(checks), tuple(profiles), pa.table(typed))


def validate_dataset(dataset: Path, schema: TableSchema, validated: Path, report: Path, shown: int = 20) -> Validated:
    """Judges `dataset`, writes the HTML `report`, and, when every check passes, the typed Parquet file `validated`.

    Its columns are the schema's, in the schema's order: float64, int64, string, bool, timestamps in UTC; missing
    values are null. Otherwise DataError names each violation (up to `shown`) by column, expectation and rows.
    """
    if shown < 1:
        raise InputError(f"max_violations_shown is {shown}", "give 1 or more")
    judgement = judge(dataset, schema, shown)
    write_text(report, report_page(schema, judgement.rows, judgement.checks, judgement.profiles))
    if not all(check.passed for check in judgement.checks):
        hint = "rows count from 1, the header not counted; the step's report lists every violation"
        raise DataError(message(schema, judgement.checks, shown), hint)
    write_table(validated, judgement.table.schema, judgement.table.to_batches(max_chunksize=1 << 16))
    return Validated(judgement.rows, len(judgement.checks), content_hash(judgement.table))
