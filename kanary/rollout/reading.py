"""How values of a project file become checked ones: readers, and the walk through a section that names faults."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from kanary.errors import ConfigError

T = TypeVar("T")
Reader = Callable[[Any], Any]
BEFORE_PROMOTION = "promotion"
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Field:
    """One value: `read` gives the checked one or raises ValueError or TypeError; `allowed` says what it takes."""

    read: Reader
    allowed: str


def section(kind: type[T], fields: Mapping[str, Any], given: Any, where: str) -> T:
    """The dataclass `kind` of a mapping. Raises ConfigError for a key it does not know and a value that it refuses."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} is {_shown(given)}, and should be a mapping.", f"Its keys: {', '.join(fields)}.")
    values = {}
    for key, raw in given.items():
        entry = fields.get(key)
        if entry is None:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Its keys: {', '.join(fields)}."
            raise ConfigError(f"{where} has no key {key!r}.", hint)
        if isinstance(entry, Field):
            values[key] = _value(entry, raw, f"{where}.{key}")
        elif raw is not None:
            values[key] = section(entry[0], entry[1], raw, f"{where}.{key}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{where} lacks a value: {error}", f"Its keys: {', '.join(fields)}.") from error


def _value(entry: Field, raw: Any, where: str) -> Any:
    try:
        return entry.read(raw)
    except (ValueError, TypeError, KeyError, OverflowError):
        raise ConfigError(f"{where} is {_shown(raw)}.", f"Allowed: {entry.allowed}.") from None


def number(raw: Any) -> float:
    """A finite number that is no truth value."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
        raise ValueError
    return float(raw)


def inside(low: float, high: float) -> Reader:
    """A number between `low` and `high`, neither allowed."""

    def read(raw: Any) -> float:
        value = number(raw)
        if not low < value < high:
            raise ValueError
        return value

    return read


def optional(read: Reader) -> Reader:
    """None, or what `read` takes."""
    return lambda raw: None if raw is None else read(raw)


def duration(raw: Any) -> float:
    """Seconds of at least 0: a number, or text such as `15m`, `1h30m`."""
    if isinstance(raw, str):
        if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", raw):
            raise ValueError
        return float(sum(float(amount) * _UNITS[unit] for amount, _, unit in re.findall(r"(\d+(\.\d+)?)([smhd])", raw)))
    value = number(raw)
    if value < 0:
        raise ValueError
    return value


def positive_duration(raw: Any) -> float:
    """Seconds above 0."""
    value = duration(raw)
    if value <= 0:
        raise ValueError
    return value


def interval(raw: Any) -> float:
    """Seconds above 0, at most 30."""
    value = positive_duration(raw)
    if value > 30:
        raise ValueError
    return value


def count(raw: Any) -> int:
    """A whole number of at least 0. KFP hands every number on as a float."""
    value = number(raw)
    if value < 0 or not value.is_integer():
        raise ValueError
    return int(value)


def at_least_one(raw: Any) -> int:
    """A whole number above 0."""
    value = count(raw)
    if not value:
        raise ValueError
    return value


def edges(raw: Any) -> dict[float, float]:
    """Shares by latency. JSON has no numbers for keys."""
    found = {float(edge): inside(0, 1)(share) for edge, share in dict(raw).items()}
    if not all(0 < edge < math.inf for edge in found):
        raise ValueError
    return found


def truth(raw: Any) -> bool:
    """True or false, nothing that merely looks like it."""
    if not isinstance(raw, bool):
        raise ValueError
    return raw


def text(raw: Any) -> str:
    """Text."""
    if not isinstance(raw, str):
        raise ValueError
    return raw


def texts(raw: Any) -> dict[str, str]:
    """A mapping of text to text."""
    return {text(key): text(value) for key, value in dict(raw).items()}


def header(raw: Any) -> str:
    """A header's value: printable, so that it cannot add another header."""
    if not text(raw).isascii() or not raw.isprintable():
        raise ValueError
    return text(raw)


def headers(raw: Any) -> dict[str, str]:
    """Headers by name."""
    found = {text(key): header(value) for key, value in dict(raw).items()}
    if not all(re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) for name in found):
        raise ValueError
    return found


def labels(raw: Any) -> dict[str, str]:
    """Label matchers by the label's name."""
    found = texts(raw)
    if not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in found):
        raise ValueError
    return found


def one_of(*words: str) -> Reader:
    """One of these words."""

    def read(raw: Any) -> str:
        if raw not in words:
            raise ValueError
        return str(raw)

    return read


def url(raw: Any) -> str:
    """An HTTP address without credentials; empty for none."""
    if text(raw) == "":
        return ""
    parts = urlsplit(raw)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise ValueError
    return str(raw).rstrip("/")


def steps(raw: Any) -> tuple[int, ...]:
    """Rising shares in percent, at least two, the last of them 100: without data nothing is promoted."""
    if not isinstance(raw, list | tuple):
        raise ValueError
    found = tuple(count(entry) for entry in raw)
    rising = all(before < after for before, after in itertools.pairwise(found))
    if len(found) < 2 or found[0] < 1 or found[-1] != 100 or not rising:
        raise ValueError
    return found


def approvals(raw: Any) -> tuple[int, ...]:
    """The steps before which a person is asked; `promotion` is 100."""
    given = raw if isinstance(raw, list | tuple) else [raw]
    return tuple(sorted({100 if entry == BEFORE_PROMOTION else count(entry) for entry in given}))


def plain(value: Any) -> Any:
    """Mappings and lists all the way down: what JSON and KFP hand on."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def _shown(raw: Any) -> str:
    shown = repr(raw)
    return shown if len(shown) <= 80 else shown[:79] + "…"
