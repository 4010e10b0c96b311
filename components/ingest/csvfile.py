"""A CSV file (RFC 4180, UTF-8, comma, plain or gzip) as batches of text columns. Types nothing, repairs nothing."""

from __future__ import annotations

import contextlib
import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from kanary.errors import DataError

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_NOT_TEXT = "expected CSV in UTF-8 (plain or gzip), or Parquet; iconv -f LATIN1 -t UTF-8 converts"

# Cells of one batch as Python strings take about 60 bytes each: some 30 MB.
_CELLS = 500_000


@contextlib.contextmanager
def open_csv(path: Path, shown: str) -> Iterator[tuple[list[str], Iterator[pa.RecordBatch]]]:
    """The header's cells, and the rows below it in batches of text columns; `shown` names the file in errors.

    Every cell is kept as it is written, an empty one as an empty string. Blank lines are skipped. DataError, with
    the line number of the file, for an empty file, wrong encoding, ragged rows and broken quoting or compression.
    """
    with path.open("rb") as stream:
        packed = stream.read(len(_GZIP)) == _GZIP
    with gzip.open(path, "rb") if packed else path.open("rb") as stream:
        records = _records(_lines(stream, shown), shown)
        _, names = next(records, (0, []))
        if not names:
            raise DataError(f"{shown} is empty", "expected CSV: a line of column names and the rows below it")
        yield names, _batches(records, len(names), shown)


def _batches(records: Iterator[tuple[int, list[str]]], width: int, shown: str) -> Iterator[pa.RecordBatch]:
    limit = max(1, _CELLS // width)
    rows: list[list[str]] = []
    for line, row in records:
        if len(row) != width:
            fields = "1 field" if len(row) == 1 else f"{len(row)} fields"
            raise DataError(
                f"{shown}, line {line}: {fields}, but the header has {width}",
                "a value that holds a comma or a line break must stand in double quotes",
            )
        rows.append(row)
        if len(rows) == limit:
            yield _batch(rows)
            rows = []
    if rows:
        yield _batch(rows)


def _batch(rows: list[list[str]]) -> pa.RecordBatch:
    columns = [pa.array(column, type=pa.string()) for column in zip(*rows, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=[str(index) for index in range(len(columns))])


def _records(lines: Iterator[str], shown: str) -> Iterator[tuple[int, list[str]]]:
    """Each record with the number of the line it begins on."""
    reader = csv.reader(lines, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{shown}, line {line}: {error}", "is a double quote out of place or left open?") from error
        if row:
            yield line, row


def _lines(stream: Iterable[bytes], shown: str) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(stream, 1):
            yield _decoded(line.removeprefix(_BOM) if number == 1 else line, number, shown)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{shown}: the gzip data break off or are damaged after line {number}") from error


def _decoded(line: bytes, number: int, shown: str) -> str:
    if b"\0" in line:
        raise DataError(f"{shown}, line {number}: a zero byte, so this is not UTF-8 text", _NOT_TEXT)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        at = f"byte {error.start + 1} (0x{line[error.start]:02x})"
        raise DataError(f"{shown}, line {number}: {at} is not UTF-8", _NOT_TEXT) from error
