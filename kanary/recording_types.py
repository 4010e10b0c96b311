"""Dataclasses as plain JSON, and back again with every type checked: a file may hold anything. Pure."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar, get_args, get_origin

from kanary.errors import InputError

T = TypeVar("T")


def plain(value: Any) -> Any:
    """Plain JSON types; of a dataclass the fields that differ from their defaults; no number that JSON has not."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            entry.name: plain(held)
            for entry in dataclasses.fields(value)
            if entry.init and (held := getattr(value, entry.name)) != _default(entry)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def restored(kind: type[T], value: Any) -> T:
    """A dataclass from its plain JSON. Raises InputError where a part is of another type than it should be."""
    found: T = _restored(kind, value, kind.__name__)
    return found


def _restored(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _object(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _restored(next(one for one in arguments if one is not type(None)), value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_restored(arguments[0], part, where) for part in value)
    if isinstance(value, dict) and isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _restored(arguments[1], part, f"{where}.{key}"[:80]) for key, part in value.items()}
    if kind is datetime and isinstance(value, str):
        return _moment(value, where)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (str, int, bool) and type(value) is kind:
        return value
    raise InputError(f"{where} is not what it should be.")


def _object(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{where} is not what it should be.")
    hints = _hints(kind)
    given = {name: _restored(hints[name], part, f"{where}.{name}") for name, part in value.items() if name in hints}
    try:
        return kind(**given)
    except TypeError as error:
        raise InputError(f"{where} is incomplete.") from error


@lru_cache(None)
def _hints(kind: Any) -> Mapping[str, Any]:
    hints = typing.get_type_hints(kind)
    return {name: hints[name] for name, entry in kind.__dataclass_fields__.items() if entry.init}


def _moment(text: str, where: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where} is no moment.") from error


def _default(entry: dataclasses.Field[Any]) -> Any:
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    return entry.default
