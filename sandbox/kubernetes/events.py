"""The events.k8s.io view of events, which are stored as core v1 events."""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]
# view field, stored field
RENAMED = (
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
)
OMITTED_WHEN_EMPTY = ("reportingController", "reportingInstance")


def to_view(stored: Body) -> Body:
    """A stored event as events.k8s.io/v1 shows it."""
    names = {old: new for new, old in RENAMED}
    view = {names.get(key, key): value for key, value in stored.items()}
    for field in OMITTED_WHEN_EMPTY:
        if view.get(field) == "":
            del view[field]
    return view


def from_view(view: Body) -> Body:
    """The core event that an events.k8s.io/v1 body means."""
    names = dict(RENAMED)
    return {names.get(key, key): value for key, value in view.items()}
