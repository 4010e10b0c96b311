"""Prometheus' two kinds of queries as operations, and its answers read with care. Asks nothing but queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kanary.errors import ApiError
from kanary.operations import Operation, Request

Labels = Mapping[str, str]


def instant(query: str, at: float | None = None) -> Operation[list[tuple[Labels, float]]]:
    """The series of a query at one moment, by their labels; a scalar as one series without any. Raises ApiError."""
    params = {"query": query} | ({"time": f"{at:.3f}"} if at is not None else {})
    answer = yield Request("GET", "/api/v1/query", params)
    if (
        isinstance(answer, dict)
        and isinstance(answer.get("data"), dict)
        and answer["data"].get("resultType") == "scalar"
    ):
        value = answer["data"].get("result")
        return [({}, number(value[1]))] if isinstance(value, list) and len(value) == 2 else []
    return [(entry.get("metric") or {}, number((entry.get("value") or [0, 0])[1])) for entry in result(answer)]


def ranged(query: str, start: float, end: float, step: float) -> Operation[list[tuple[Labels, Sequence[Any]]]]:
    """The series of a query over time: labels, and [seconds, text of a number] pairs as they came. Raises ApiError.

    The numbers are left to whoever draws them: of thousands of series a screenful is looked at.
    """
    span = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
    answer = yield Request("GET", "/api/v1/query_range", {"query": query} | span)
    return [(entry.get("metric") or {}, entry.get("values") or []) for entry in result(answer)]


def result(answer: Any) -> list[Mapping[str, Any]]:
    """The series of an answer. ApiError where it is none of Prometheus'."""
    data = answer.get("data") if isinstance(answer, dict) else None
    found = data.get("result") if isinstance(data, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise ApiError("Prometheus answered with something else than a result.", "Is it the address of a Prometheus?")
    return found


def number(value: Any) -> float:
    """A number as Prometheus writes it. ApiError where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ApiError(f"Prometheus answered with {value!r} where a number should be.") from None


def matchers(labels: Labels) -> str:
    """Label matchers in braces, their values quoted."""
    return "{" + ",".join(f"{name}={quoted(value)}" for name, value in labels.items()) + "}"


def further(labels: Labels) -> str:
    """Label matchers to stand behind others, each after a comma."""
    return "".join(f", {name}={quoted(value)}" for name, value in sorted(labels.items()))


def quoted(text: str) -> str:
    """A string of PromQL."""
    return f'"{escaped(text)}"'


def escaped(text: str) -> str:
    """What stands between the quotes of a string of PromQL."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
