"""Knative's condition set as KServe uses it: `Ready` is True when PredictorReady and IngressReady are.

Conditions are plain documents, sorted by type; times change only where something else does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.kserve.knative import Document

TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"
READY = "Ready"
DEPENDENTS = ("PredictorReady", "IngressReady")


@dataclass(frozen=True)
class State:
    """The state of one condition."""

    status: str
    reason: str = ""
    message: str = ""


def initial(now: str) -> list[Document]:
    """The conditions of a new InferenceService."""
    return [_condition(kind, State(UNKNOWN), now) for kind in sorted((READY, *DEPENDENTS))]


def get(conditions: Sequence[Document], kind: str) -> State | None:
    """The state of the condition of that type."""
    for condition in conditions:
        if condition["type"] == kind:
            return State(condition["status"], condition.get("reason", ""), condition.get("message", ""))
    return None


def holds(conditions: Sequence[Document], kind: str) -> bool:
    """Whether the condition of that type is True."""
    state = get(conditions, kind)
    return state is not None and state.status == TRUE


def mark(conditions: Sequence[Document], kind: str, state: State, now: str) -> list[Document]:
    """The conditions with that one set, and with `Ready` following where it depends on it.

    Source: MarkTrue, MarkUnknown and MarkFalse in knative.dev/pkg/apis/condition_set.go.
    """
    marked = _set(conditions, kind, state, now)
    if kind not in DEPENDENTS:
        return marked
    if state.status == FALSE:
        return _set(marked, READY, state, now)
    others = [found for other in DEPENDENTS if (found := get(marked, other)) is not None and other != kind]
    unhappy = [other for other in others if other.status == FALSE]
    if unhappy and state.status == UNKNOWN:
        return marked if (get(marked, READY) or state).status == FALSE else _set(marked, READY, unhappy[0], now)
    if unhappy:
        return _set(marked, READY, unhappy[0], now)
    if state.status == UNKNOWN:
        return _set(marked, READY, state, now)
    unknown = [other for other in others if other.status == UNKNOWN]
    return _set(marked, READY, unknown[0] if unknown else State(TRUE), now)


def _set(conditions: Sequence[Document], kind: str, state: State, now: str) -> list[Document]:
    if get(conditions, kind) == state:
        return list(conditions)
    others = [condition for condition in conditions if condition["type"] != kind]
    return sorted([*others, _condition(kind, state, now)], key=lambda condition: str(condition["type"]))


def _condition(kind: str, state: State, now: str) -> Document:
    document: Document = {"type": kind, "status": state.status, "lastTransitionTime": now}
    if state.reason:
        document["reason"] = state.reason
    if state.message:
        document["message"] = state.message
    if kind != READY and kind not in DEPENDENTS:
        document["severity"] = "Info"
    return document
