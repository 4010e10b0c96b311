"""Raw data from a path or URL to one Parquet file, with its content hash and the profile of its columns.

CSV stays text (validation judges it against the schema, row by row); Parquet keeps its types. Nothing is dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from components import page, source
from components.content import ContentHash, canonical_batches, canonical_type, open_parquet, write_table
from components.ingest.csvfile import open_csv
from components.profile import ColumnProfile, Profiler, column_table
from kanary.errors import DataError, InputError

FORMATS = ("csv", "parquet")

# An artifact's metadata go through gRPC and a database: a very wide table keeps the profile of its first columns.
_PROFILED_COLUMNS = 200


@dataclass(frozen=True)
class Ingested:
    """What was read: where from, as what, how much, its content hash (components.content) and its columns."""

    uri: str
    format: str
    rows: int
    sha256: str
    columns: tuple[ColumnProfile, ...]

    def metadata(self) -> dict[str, Any]:
        """For the dataset artifact: plain JSON values."""
        return {
            "uri": self.uri,
            "format": self.format,
            "rows": self.rows,
            "columns": len(self.columns),
            "sha256": self.sha256,
            "profile": {column.name: column.as_dict() for column in self.columns[:_PROFILED_COLUMNS]},
        }


def ingest_table(uri: str, dataset: Path, format: str = "") -> Ingested:
    """Reads the table at `uri` (a local path or what fsspec opens) and writes it to `dataset` as Parquet.

    `format` is csv or parquet; by default the name tells, else the content. A column without a name becomes
    `column_<position>`, from 1. InputError when there is nothing to read, DataError (with the line where there are
    lines) when it is not a table: empty, without rows, duplicate names, ragged, wrongly encoded, damaged.
    """
    shown = source.shown(uri)
    if format and format not in FORMATS:
        raise InputError(f"no format is called {format!r}", "the formats are " + ", ".join(FORMATS))
    dataset.parent.mkdir(parents=True, exist_ok=True)
    with source.local_copy(uri, beside=dataset.parent) as path:
        kind = format or _format(uri, path)
        with _opened(path, kind, shown) as (schema, batches):
            content = ContentHash(schema)
            profilers = [Profiler(field.name, field.type) for field in schema]
            write_table(dataset, schema, _observed(batches, schema, content, profilers, shown))
    columns = tuple(profiler.profile() for profiler in profilers)
    return Ingested(shown, kind, columns[0].rows, content.hexdigest(), columns)


def profile_page(ingested: Ingested) -> str:
    """The profile as an HTML page for the Kubeflow UI."""
    facts = [("source", ingested.uri), ("format", ingested.format), ("rows", f"{ingested.rows:,}")]
    facts += [("columns", f"{len(ingested.columns):,}"), ("content SHA-256", ingested.sha256)]
    return page.page(
        "Ingested data",
        page.table(("", ""), facts),
        page.heading("Columns"),
        page.paragraph(
            "As read, before validation. In CSV an empty field is missing; figures are of the numbers alone."
        ),
        column_table(ingested.columns),
    )


def _format(uri: str, path: Path) -> str:
    name = source.path_of(uri).lower()
    if name.endswith((".csv", ".csv.gz")):
        return "csv"
    if name.endswith((".parquet", ".pq")):
        return "parquet"
    with path.open("rb") as stream:
        return "parquet" if stream.read(4) == b"PAR1" else "csv"


@contextlib.contextmanager
def _opened(path: Path, kind: str, shown: str) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    if kind == "csv":
        with open_csv(path, shown) as (header, batches):
            yield pa.schema([pa.field(name, pa.string()) for name in _names(header, shown)]), batches
    else:
        with open_parquet(path, shown) as parquet:
            raw = parquet.schema_arrow
            names = _names(raw.names, shown)
            kinds = [canonical_type(field.type, name) for name, field in zip(names, raw, strict=True)]
            yield pa.schema(zip(names, kinds, strict=True)), canonical_batches(parquet, shown)


def _names(header: list[str], shown: str) -> list[str]:
    names = [name or f"column_{position}" for position, name in enumerate(header, 1)]
    positions: dict[str, list[str]] = {}
    for position, name in enumerate(names, 1):
        positions.setdefault(name, []).append(str(position))
    repeated = [f"{name!r} (columns {', '.join(found)})" for name, found in positions.items() if len(found) > 1]
    if repeated:
        raise DataError(f"{shown}: duplicate column names: {', '.join(repeated)}")
    return names


def _observed(
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    content: ContentHash,
    profilers: list[Profiler],
    shown: str,
) -> Iterator[pa.RecordBatch]:
    rows = 0
    for batch in batches:
        named = pa.RecordBatch.from_arrays(batch.columns, schema=schema)
        content.update(named)
        for profiler, column in zip(profilers, named.columns, strict=True):
            profiler.update(column)
        rows += batch.num_rows
        yield named
    if not rows:
        raise DataError(f"{shown} has column names and no rows")
