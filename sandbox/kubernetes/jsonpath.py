"""The part of JSONPath that printer columns use: fields, [*], [n] and [?(@.field=='value')]."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

STEP = re.compile(
    r"""\.(?P<field>[A-Za-z0-9_\\./-]+?)(?=[.\[]|$)
    |\[(?P<every>\*)\]
    |\[(?P<index>\d+)\]
    |\[\?\(@\.(?P<left>[\w.]+)==(?P<right>[^)]+)\)\]""",
    re.VERBOSE,
)


@cache
def steps(path: str) -> tuple[tuple[str, str, str], ...]:
    """(kind, operand, value) of each step. Raises ValueError for what is not understood."""
    found, at = [], 0
    while at < len(path):
        step = STEP.match(path, at)
        if not step:
            raise ValueError(f"JSONPath not understood at {path[at:]!r}")
        kind = next(name for name in ("field", "every", "index", "left") if step[name] is not None)
        found.append((kind, step[kind], step["right"] or ""))
        at = step.end()
    return tuple(found)


def first(value: Any, path: str) -> Any:
    """The first value at a path, None if there is none."""
    values = [value]
    for kind, operand, right in steps(path):
        values = [inner for item in values for inner in _step(item, kind, operand, right)]
    return values[0] if values else None


def _step(item: Any, kind: str, operand: str, right: str) -> list[Any]:
    if kind == "field":
        return [item[operand]] if isinstance(item, dict) and operand in item else []
    if not isinstance(item, list):
        return []
    if kind == "every":
        return item
    if kind == "index":
        return item[int(operand) : int(operand) + 1]
    wanted: Any = right == "true" if right in ("true", "false") else right.strip("'\"")
    return [inner for inner in item if isinstance(inner, dict) and inner.get(operand) == wanted]
