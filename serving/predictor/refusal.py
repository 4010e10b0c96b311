"""A request that is answered with a 4xx. Its reason is one of a fixed few, so that it can label a metric."""

from __future__ import annotations

import typing
from typing import Any, Literal

from kanary.errors import InputError

Reason = Literal[
    "malformed",  # no JSON, or none of the protocol's shape
    "content",  # content type or encoding
    "shape",  # empty, ragged, or of other dimensions than the model's
    "column",  # a column is missing, or is none of the model's
    "type",
    "null",  # a value that the schema requires
    "range",  # not finite, or beyond its datatype
    "too_large",
    "busy",  # too many long requests at once
    "not_found",  # another model, version or operation
    "method",
    "internal",  # not the request's fault: the only one that is a 5xx
]
REASONS: tuple[Reason, ...] = typing.get_args(Reason)

_SHOWN = 40


class Refused(InputError):
    """What is wrong with a request. `status` is the HTTP status it gets, `reason` the class it counts in."""

    def __init__(self, reason: Reason, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.status = status


def shown(value: Any) -> str:
    """A JSON value as an error message names it: short, and never the inside of a list or an object."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, str) and len(value) > _SHOWN:
        return f"{value[:_SHOWN]!r}..."
    return f"{value!r:.{_SHOWN}}"


def listed(names: typing.Iterable[str], most: int = 5) -> str:
    """Names with commas, `most` of them at the most, each cut where it is long."""
    every = [name if len(name) <= _SHOWN else name[:_SHOWN] + "..." for name in names]
    more = len(every) - most
    return ", ".join(every[:most]) + (f" and {more} more" if more > 0 else "")
