"""List requests in KFP's terms (page_token, page_size, sort_by, filter), turned into one bounded SQL query.

Pages go by key, not by offset: what is added or deleted between two pages makes none repeat or vanish.
"""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from urllib.parse import unquote

from sandbox.documents import parse_json
from sandbox.errors import InvalidSpec
from sandbox.runstore.database import Database

Record = TypeVar("Record")

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 200
MAX_PAGE_BYTES = 32 * 1024 * 1024  # as much as one spec may have
_MOST_PREDICATES = 100
_MOST_VALUES = 1000

# Operators of KFP's filter.proto by number; clients send either the number or the name.
_OPERATION_NUMBERS = {
    1: "EQUALS",
    2: "NOT_EQUALS",
    3: "GREATER_THAN",
    5: "GREATER_THAN_EQUALS",
    6: "LESS_THAN",
    7: "LESS_THAN_EQUALS",
    8: "IN",
    9: "IS_SUBSTRING",
}
_OPERATIONS = {str(number): name for number, name in _OPERATION_NUMBERS.items()} | {
    name: name for name in _OPERATION_NUMBERS.values()
}
_COMPARISONS = {
    "EQUALS": "=",
    "NOT_EQUALS": "<>",
    "GREATER_THAN": ">",
    "GREATER_THAN_EQUALS": ">=",
    "LESS_THAN": "<",
    "LESS_THAN_EQUALS": "<=",
}
# A tag's key as far as it can stand inside a string of SQL and of a JSON path; KFP allows no dot in it, either.
_TAG = re.compile(r"tags\.([^.'\"\\\x00-\x1f]{1,63})")
_SCALARS = ("int_value", "long_value", "string_value", "timestamp_value")
_VECTORS = ("int_values", "long_values", "string_values")


@dataclass(frozen=True)
class Table:
    """What a kind of record allows: its table and key, the column behind each API field, and which hold times."""

    name: str
    key: str
    fields: Mapping[str, str]
    times: frozenset[str]
    tagged: bool = False


RUNS = Table(
    "runs",
    "run_id",
    {
        "run_id": "run_id",
        "id": "run_id",
        "name": "display_name",
        "display_name": "display_name",
        "description": "description",
        "created_at": "created_at",
        "scheduled_at": "scheduled_at",
        "finished_at": "ifnull(finished_at, 0)",
        "state": "state",
        "status": "state",
        "storage_state": "storage_state",
        "experiment_id": "experiment_id",
        "namespace": "namespace",
        "pipeline_id": "pipeline_id",
        "pipeline_version_id": "pipeline_version_id",
        "recurring_run_id": "recurring_run_id",
    },
    frozenset({"created_at", "scheduled_at", "finished_at"}),
)
RECURRING_RUNS = Table(
    "recurring_runs",
    "recurring_run_id",
    {
        "recurring_run_id": "recurring_run_id",
        "id": "recurring_run_id",
        "name": "display_name",
        "display_name": "display_name",
        "description": "description",
        "created_at": "created_at",
        "updated_at": "updated_at",
        "experiment_id": "experiment_id",
        "namespace": "namespace",
        "pipeline_id": "pipeline_id",
        "pipeline_version_id": "pipeline_version_id",
        "status": "iif(enabled, 'ENABLED', 'DISABLED')",
    },
    frozenset({"created_at", "updated_at"}),
)
EXPERIMENTS = Table(
    "experiments",
    "experiment_id",
    {
        "experiment_id": "experiment_id",
        "id": "experiment_id",
        "name": "display_name",
        "display_name": "display_name",
        "description": "description",
        "created_at": "created_at",
        "last_run_created_at": "last_run_created_at",
        "storage_state": "storage_state",
        "namespace": "namespace",
    },
    frozenset({"created_at", "last_run_created_at"}),
)
PIPELINES = Table(
    "pipelines",
    "pipeline_id",
    {
        "pipeline_id": "pipeline_id",
        "id": "pipeline_id",
        "name": "name",
        "display_name": "display_name",
        "description": "description",
        "created_at": "created_at",
        "namespace": "namespace",
    },
    frozenset({"created_at"}),
    tagged=True,
)
VERSIONS = Table(
    "versions",
    "pipeline_version_id",
    {
        "pipeline_version_id": "pipeline_version_id",
        "id": "pipeline_version_id",
        "pipeline_id": "pipeline_id",
        "name": "name",
        "display_name": "display_name",
        "description": "description",
        "created_at": "created_at",
    },
    frozenset({"created_at"}),
    tagged=True,
)
ARTIFACTS = Table(
    "artifacts",
    "artifact_id",
    {
        "artifact_id": "artifact_id",
        "id": "artifact_id",
        "name": "name",
        "type": "type",
        "uri": "uri",
        "created_at": "created_at",
        "namespace": "namespace",
        "run_id": "run_id",
        "task_id": "task_id",
    },
    frozenset({"created_at"}),
)
TASKS = Table(
    "tasks",
    "task_id",
    {
        "task_id": "task_id",
        "id": "task_id",
        "name": "name",
        "display_name": "display_name",
        "created_at": "created_at",
        "create_time": "created_at",
        "state": "iif(cached, 'CACHED', state)",
        "parent_task_id": "parent_task_id",
    },
    frozenset({"created_at", "create_time"}),
)


@dataclass(frozen=True)
class Condition:
    """One term of a WHERE clause with the values bound to it."""

    sql: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Query:
    """One page to fetch: rows of `table` that meet every condition, after the (sort value, key) a token names."""

    table: Table
    page_size: int = DEFAULT_PAGE_SIZE
    sort_column: str = "created_at"
    descending: bool = False
    filter: str = ""
    conditions: tuple[Condition, ...] = ()
    after: tuple[Any, str] | None = None

    def where(self, column: str, value: str) -> Query:
        """The same query with one more condition; "" asks for nothing and changes nothing."""
        if not value:
            return self
        return replace(self, conditions=(*self.conditions, Condition(f"{column} = ?", (value,))))


@dataclass(frozen=True)
class Page(Generic[Record]):
    """A page of records, how many there are in all, and the token of the next page ("" on the last)."""

    records: list[Record]
    total: int
    next_page_token: str


def parse_query(table: Table, parameters: Mapping[str, str]) -> Query:
    """The query that a list request asks for. Raises InvalidSpec naming the parameter at fault."""
    column, descending = _parse_sort(table, parameters.get("sort_by", ""))
    wanted = parameters.get("filter", "")
    query = Query(table, _parse_size(parameters.get("page_size", "")), column, descending, wanted)
    token = parameters.get("page_token", "")
    if token:
        query = _continue(query, token, bool(parameters.get("sort_by")))
    return replace(query, conditions=_parse_filter(table, query.filter))


def _parse_size(text: str) -> int:
    try:
        size = int(text or 0)
    except ValueError:
        raise InvalidSpec(f"{text!r} is not a whole number", "page_size") from None
    if size < 0:
        raise InvalidSpec("the page size must not be negative", "page_size")
    return min(size, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE


def _parse_sort(table: Table, text: str) -> tuple[str, bool]:
    words = text.split()
    if not words:
        return table.fields["created_at"], False
    if len(words) > 2 or (len(words) == 2 and words[1].lower() not in ("asc", "desc")):
        raise InvalidSpec(f"{text!r} is not of the form 'field', 'field asc' or 'field desc'", "sort_by")
    return _column(table, words[0], "sort_by"), words[-1].lower() == "desc" and len(words) == 2


def _column(table: Table, field: str, where: str) -> str:
    # The real server takes the field bare or qualified by its kind, as in pipelines.created_at.
    name = field.removeprefix(f"{table.name}.")
    if name not in table.fields:
        raise InvalidSpec(f"{field!r} is not a field of {table.name}", where)
    return table.fields[name]


def _parse_filter(table: Table, text: str) -> tuple[Condition, ...]:
    if not text:
        return ()
    document = _filter_document(text)
    predicates = document.get("predicates", [])
    if not isinstance(predicates, list):
        raise InvalidSpec("predicates is not a list", "filter")
    if len(predicates) > _MOST_PREDICATES:
        raise InvalidSpec(f"more than {_MOST_PREDICATES} predicates", "filter")
    return tuple(_parse_predicate(table, value, f"filter.predicates[{i}]") for i, value in enumerate(predicates))


def _filter_document(text: str) -> dict[str, Any]:
    # The API document has the filter URL-encoded once more than a query parameter is anyway; clients do either.
    document = parse_json(text if text.lstrip().startswith("{") else unquote(text), "filter")
    if not isinstance(document, dict):
        raise InvalidSpec("not a JSON object", "filter")
    return document


def _parse_predicate(table: Table, predicate: Any, where: str) -> Condition:
    if not isinstance(predicate, dict):
        raise InvalidSpec("the predicate is not an object", where)
    terms = {_snake(str(name)): value for name, value in predicate.items()}
    field = terms.get("key")
    if not isinstance(field, str):
        raise InvalidSpec("the predicate has no key", where)
    column = _filtered(table, field, f"{where}.key")
    operation = _operation(terms.get("operation"), where)
    given = [name for name in (*_SCALARS, *_VECTORS) if terms.get(name) is not None]
    if len(given) != 1:
        raise InvalidSpec("the predicate needs exactly one value", where)
    is_time = field.split(".")[-1] in table.times
    value = terms[given[0]]
    if operation == "IN":
        return _membership(column, given[0], value, is_time, where)
    if given[0] in _VECTORS:
        raise InvalidSpec(f"{operation} takes one value, not a list", where)
    bound = _bind(given[0], value, is_time, where)
    if operation == "IS_SUBSTRING":
        if not isinstance(bound, str):
            raise InvalidSpec("IS_SUBSTRING takes a string_value", where)
        # LIKE, ten times as quick as instr(lower()): in ASCII it does not tell capitals, as MySQL on a cluster.
        pattern = re.sub(r"([\\%_])", r"\\\1", bound)
        return Condition(f"{column} LIKE ? ESCAPE '\\'", (f"%{pattern}%",))
    return Condition(f"{column} {_COMPARISONS[operation]} ?", (bound,))


def _filtered(table: Table, field: str, where: str) -> str:
    tag = _TAG.fullmatch(field.removeprefix(f"{table.name}.")) if table.tagged else None
    return f"ifnull(json_extract(tags, '$.\"{tag[1]}\"'), '')" if tag else _column(table, field, where)


def _operation(given: Any, where: str) -> str:
    name = _OPERATIONS.get(str(given))
    if name is None:
        raise InvalidSpec(f"{given!r} is not an operation", f"{where}.operation")
    return name


def _membership(column: str, kind: str, value: Any, is_time: bool, where: str) -> Condition:
    values = value.get("values") if isinstance(value, dict) else None
    if kind not in _VECTORS or not isinstance(values, list):
        raise InvalidSpec("IN takes a list of values", where)
    if len(values) > _MOST_VALUES:
        raise InvalidSpec(f"more than {_MOST_VALUES} values", where)
    bound = tuple(_bind(kind.removesuffix("s"), item, is_time, where) for item in values)
    return Condition(f"{column} IN ({', '.join('?' * len(bound))})", bound)


def _bind(kind: str, value: Any, is_time: bool, where: str) -> str | float:
    try:
        if kind == "timestamp_value" or (is_time and kind == "string_value"):
            return seconds(str(value))
        if kind not in ("int_value", "long_value"):
            if not isinstance(value, str):
                raise TypeError
            return value
        return float(int(value))  # a number of any size compares; an integer beyond 64 bits would not even bind
    except (ValueError, TypeError, OverflowError):
        raise InvalidSpec(f"{value!r} is not a {kind.removesuffix('_value')}", where) from None


def seconds(text: str) -> float:
    """An RFC 3339 time as seconds since the epoch. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def shown_time(moment: float) -> float:
    """A time as precise as clients see it, in microseconds: so that a filter with a time they saw means that one."""
    return round(moment, 6)


def _snake(name: str) -> str:
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _token_after(database: Database, query: Query, key: str) -> str:
    table = query.table
    row = database.row(f"SELECT {query.sort_column} AS value FROM {table.name} WHERE {table.key} = ?", (key,))
    value = row["value"] if row else ""
    value = value if isinstance(value, str) else float(value)
    state = [table.name, query.sort_column, query.descending, query.filter, value, key]
    return base64.urlsafe_b64encode(json.dumps(state).encode()).decode()


def _continue(query: Query, token: str, sort_given: bool) -> Query:
    """The query at the place the token marks. The token carries order and filter; a client may repeat them or not."""
    try:
        state = parse_json(base64.urlsafe_b64decode(token.encode()), "page_token")
        table, column, descending, wanted, value, key = state
    except (ValueError, TypeError):
        raise InvalidSpec("not a token that this server has given", "page_token") from None
    known = table == query.table.name and column in query.table.fields.values() and isinstance(wanted, str)
    if not known or not isinstance(value, str | float) or not isinstance(key, str):
        raise InvalidSpec("not a token of this list", "page_token")
    if sort_given and (column, bool(descending)) != (query.sort_column, query.descending):
        raise InvalidSpec("sort_by differs from the one that the token was made with", "page_token")
    if query.filter not in ("", wanted):
        raise InvalidSpec("the filter differs from the one that the token was made with", "page_token")
    return replace(query, sort_column=column, descending=bool(descending), filter=wanted, after=(value, key))


def page_of(
    database: Database,
    query: Query,
    record: Callable[[sqlite3.Row], Record],
    weight: Callable[[Record], int] = lambda record: 0,
) -> Page[Record]:
    """The page that `query` describes, each row turned into a record.

    It is shorter than asked for where the records become too heavy: `weight` is what one takes, in bytes.
    """
    clauses = [condition.sql for condition in query.conditions]
    values = [value for condition in query.conditions for value in condition.values]
    matching = f" WHERE {' AND '.join(clauses)}" if clauses else ""
    counted = database.row(f"SELECT count(*) AS total FROM {query.table.name}{matching}", tuple(values))
    beyond, direction = ("<", "DESC") if query.descending else (">", "ASC")
    column, key = query.sort_column, query.table.key
    if query.after is not None:
        clauses.append(f"({column}, {key}) {beyond} (?, ?)")
        values.extend(query.after)
    where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
    rows = database.rows(
        f"SELECT * FROM {query.table.name}{where} ORDER BY {column} {direction}, {key} {direction} LIMIT ?",
        (*values, query.page_size + 1),
    )
    records: list[Record] = []
    carried = 0
    for row in rows[: query.page_size]:
        made = record(row)
        carried += weight(made)
        if records and carried > MAX_PAGE_BYTES:
            break
        records.append(made)
    token = _token_after(database, query, rows[len(records) - 1][key]) if len(rows) > len(records) else ""
    return Page(records, counted["total"] if counted else 0, token)
