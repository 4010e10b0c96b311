"""Logged requests to rows: JSON files as payload logs leave them, of the V1 and the V2 protocol. Guesses nothing.

What KServe's agent stores is its LogRequest as Go writes it (kserve/kserve, pkg/logger/types.go and store.go); a
CloudEvent is one in the structured mode of its JSON format (CloudEvents 1.0). Responses are passed over.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.content import canonical, write_table
from components.source import contents_below, shown
from kanary.errors import DataError

_REQUEST = "inference.request"
_ENDINGS = (".json", ".jsonl", ".ndjson")
Row = Mapping[str, Any]


class Unreadable(ValueError):
    """A request that is not what it should be; its text says why."""


@dataclass(frozen=True)
class Log:
    """What was found: rows, the requests they came from, requests refused, and the commonest reason for that."""

    rows: int
    requests: int
    refused: int
    why: str

    def metadata(self) -> dict[str, Any]:
        """For the dataset artifact: plain JSON values."""
        return asdict(self)


def read_log(uri: str, dataset: Path, service: str = "", namespace: str = "", columns: Sequence[str] = ()) -> Log:
    """Write the rows of all requests of a service below `uri` to the Parquet file `dataset`.

    Requests that cannot be read, or have other columns than the first, are counted. InputError where the URI cannot be
    read; DataError where there is no row, or a column holds values of several kinds.
    """
    rows: list[Row] = []
    requests, refused = 0, Counter[str]()
    for name, content in contents_below(uri, _ENDINGS):
        for body in _bodies(name, content, service, namespace, refused):
            try:
                found = _rows(body, columns)
                first = (rows or found)[0].keys()
                if other := next((row for row in found if row.keys() != first), None):
                    raise Unreadable(f"it has the columns {', '.join(sorted(other))[:200]}")
            except Unreadable as error:
                refused[str(error)] += 1
                continue
            requests += 1
            rows += found
    why = f"({refused.most_common(1)[0][0]})" if refused else ""
    if not rows:
        raise DataError(f"{shown(uri)} holds no request that can be read", why or "is it the log of that service?")
    table = _table(rows, shown(uri))
    write_table(dataset, table.schema, table.to_batches())
    return Log(len(rows), requests, refused.total(), why)


def _bodies(name: str, content: bytes, service: str, namespace: str, refused: Counter[str]) -> Iterator[Any]:
    """The JSON of every request in a file."""
    for entry in _entries(name, content, refused):
        try:
            told = _unwrapped(entry)
        except (ValueError, TypeError, RecursionError) as error:
            refused[f"{name}: {error}"[:300]] += 1
            continue
        if told is not None and service in ("", told[0]) and namespace in ("", told[1]):
            yield told[2]


def _entries(name: str, content: bytes, refused: Counter[str]) -> Iterator[Any]:
    """A file's JSON: all of it, a list's members, or line by line."""
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        for number, line in enumerate(content.splitlines(), 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                refused[f"{name}, line {number}: {error}"[:300]] += 1
        return
    yield from whole if isinstance(whole, list) else [whole]


def _unwrapped(entry: Any) -> tuple[str, str, Any] | None:
    """Service, namespace and body of a request; None for an event that is none."""
    if not isinstance(entry, dict):
        raise Unreadable("an entry is no JSON object")
    if "ReqType" in entry:  # KServe's agent
        if not str(entry["ReqType"]).endswith(_REQUEST):
            return None
        body = json.loads(base64.b64decode(entry.get("Bytes") or "", validate=True))
        return str(entry.get("InferenceService") or ""), str(entry.get("Namespace") or ""), body
    if "specversion" in entry:  # CloudEvents
        if not str(entry.get("type")).endswith(_REQUEST):
            return None
        body = entry.get("data")
        if "data_base64" in entry:
            body = base64.b64decode(entry["data_base64"], validate=True)
        if isinstance(body, str | bytes):
            body = json.loads(body)
        return str(entry.get("inferenceservicename") or ""), str(entry.get("namespace") or ""), body
    return None if "predictions" in entry or "outputs" in entry else ("", "", entry)


def _rows(body: Any, columns: Sequence[str]) -> list[Row]:
    """The rows of a V1 or V2 request. Raises Unreadable."""
    if not isinstance(body, dict) or not isinstance(body.get("instances", body.get("inputs")), list):
        raise Unreadable("a request has neither instances nor inputs")
    found = [_named(one, columns) for one in body["instances"]] if "instances" in body else _columns(body["inputs"])
    if not found:
        raise Unreadable("a request has no rows")
    return found


def _named(instance: Any, columns: Sequence[str]) -> Row:
    if isinstance(instance, dict):
        return instance
    if not columns:
        raise Unreadable("an instance is a list: name its columns")
    if not isinstance(instance, list) or len(instance) != len(columns):
        raise Unreadable(f"an instance is not {len(columns)} values")
    return dict(zip(columns, instance, strict=True))


def _columns(inputs: list[Any]) -> list[Row]:
    """V2's tensors, one a column, as rows."""
    values = {}
    for tensor in inputs:
        try:
            name, shape, data = tensor["name"], tensor["shape"], tensor["data"]
            if prod(shape) != shape[0] or len(data) != shape[0]:
                raise Unreadable(f"the input {name} is no column: its shape is {shape}")
            values[name] = data
        except (KeyError, TypeError, IndexError):
            raise Unreadable("an input has no name, shape or data: binary tensors are not read") from None
    if len({len(data) for data in values.values()}) != 1:
        raise Unreadable("the inputs have different numbers of rows")
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _table(rows: Sequence[Row], where: str) -> pa.Table:
    arrays = {}
    for name in rows[0]:
        try:
            array = pa.array([row[name] for row in rows])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise DataError(f"{where}: the column {name!r} holds values of several kinds: {error}") from error
        if not pa.types.is_null(array.type):  # a sensitive column, which the log leaves out
            arrays[name] = array
    return pa.Table.from_batches([canonical(batch) for batch in pa.table(arrays).to_batches()])
