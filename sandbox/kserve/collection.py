"""Knative's garbage collector: which revisions that nothing leads to are deleted, and when. Pure.

Source: pkg/reconciler/gc/gc.go and pkg/gc/config.go in Knative Serving.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sandbox.kserve.knative import Knative, Revision, referenced, seconds

NAMESPACE, NAME = "knative-serving", "config-gc"
# On a revision's template: it is never collected.
KEEP_ANNOTATION = "serving.knative.dev/no-gc"
_DISABLED = "disabled"
_HOUR_S = 3600.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retention:
    """Knative's settings, its defaults; times in seconds. None stands for `disabled`."""

    since_created_s: float | None = 48 * _HOUR_S
    since_active_s: float | None = 15 * _HOUR_S
    least: int = 20
    most: int | None = 1000


DEFAULTS = Retention()


def read(config_map: Mapping[str, Any] | None) -> Retention:
    """The settings in ConfigMap `config-gc`; Knative's defaults where it has none, or none that make sense."""
    data = (config_map or {}).get("data") or {}
    default = DEFAULTS
    try:
        found = Retention(
            since_created_s=_duration(data, "retain-since-create-time", default.since_created_s),
            since_active_s=_duration(data, "retain-since-last-active-time", default.since_active_s),
            least=_count(data, "min-non-active-revisions", default.least) or 0,
            most=_count(data, "max-non-active-revisions", default.most),
        )
        if found.most is not None and found.least > found.most:
            raise ValueError("min-non-active-revisions is above max-non-active-revisions")
    except ValueError as error:
        _logger.warning("ConfigMap %s/%s is ignored: %s", NAMESPACE, NAME, error)
        return default
    return found


def collect(knative: Knative, retention: Retention, now: float) -> Knative:
    """The record without the revisions that Knative would delete now."""
    limits = (retention.most, retention.since_created_s, retention.since_active_s)
    active = referenced(knative) | {knative.latest_ready}
    idle = sorted((one for one in knative.revisions if not _is_active(one, active)), key=_last_active)
    if all(limit is None for limit in limits) or len(idle) <= retention.least:
        return knative
    stale = [one for one in idle if _is_stale(one, retention, now)][: len(idle) - retention.least]
    left = [one for one in idle if one not in stale]
    surplus = 0 if retention.most is None or len(stale) == len(idle) - retention.least else len(left) - retention.most
    gone = {one.name for one in (*stale, *left[: max(0, surplus)])}
    return replace(knative, revisions=tuple(one for one in knative.revisions if one.name not in gone))


def _is_active(revision: Revision, active: frozenset[str]) -> bool:
    kept = revision.template.document["annotations"].get(KEEP_ANNOTATION, "").lower() == "true"
    return kept or revision.name in active


def _is_stale(revision: Revision, retention: Retention, now: float) -> bool:
    created, active = retention.since_created_s, retention.since_active_s
    if created is None and active is None:
        return False
    if created is not None and now - revision.created < created:
        return False
    return active is None or now - _last_active(revision) >= active


def _last_active(revision: Revision) -> float:
    return revision.created if revision.idle_since is None else revision.idle_since


def _duration(data: Mapping[str, Any], key: str, default: float | None) -> float | None:
    text = str(data.get(key, ""))
    if text.lower() == _DISABLED:
        return None
    if not text:
        return default
    if (found := seconds(text)) or text.strip("0hms") == "":
        return found
    raise ValueError(f"{key}: {text!r} is no duration")


def _count(data: Mapping[str, Any], key: str, default: int | None) -> int | None:
    text = str(data.get(key, ""))
    if text.lower() == _DISABLED and key.startswith("max"):
        return None
    if not text:
        return default
    if not text.isdecimal():
        raise ValueError(f"{key}: {text!r} is no count")
    return int(text)
