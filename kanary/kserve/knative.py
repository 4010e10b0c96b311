"""Knative mode: one predictor, its revisions, and canaryTrafficPercent. What is in force, what patch moves it. Pure.

`latestRevision: true` may still lead to the old revision, a stale failure outlives its cause, and Ready may be the old
revision's: nothing here believes any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kanary import manifests
from kanary.kserve.parts import Parts, condition, load_failure
from kanary.manifests import Document


def parts(service: Mapping[str, Any]) -> Parts:
    """The revisions, as KServe's status copies them from Knative."""
    components = (service.get("status") or {}).get("components") or {}
    predictor = components.get("predictor") or {}
    created = predictor.get("latestCreatedRevision") or ""
    latest_ready = predictor.get("latestReadyRevision") or ""
    # During a canary the stable revision is the latest that was rolled out, not the one before it.
    stable = predictor.get("latestRolledoutRevision") or ""
    tags: dict[str, dict[str, str]] = {}
    for entry in traffic(service):
        if entry.get("tag"):
            tags.setdefault(entry.get("revisionName") or "", {})[entry["tag"]] = entry.get("url") or ""
    return Parts(
        stable=stable,
        canary=created if stable and created != stable else "",
        created=created,
        latest_ready=latest_ready,
        previous=predictor.get("previousRolledoutRevision") or "",
        shares=shares(service),
        failure=_failure(service, created, latest_ready),
        tags=tags,
        urls={name: found["latest"] for name, found in tags.items() if found.get("latest")},
        notes=_notes(service),
    )


def shares(service: Mapping[str, Any]) -> dict[str, int]:
    """Effective percent by revision."""
    found: dict[str, int] = {}
    for entry in traffic(service):
        name = entry.get("revisionName") or ""
        found[name] = found.get(name, 0) + int(entry.get("percent") or 0)
    return found


def traffic(service: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The status's own list of shares."""
    components = (service.get("status") or {}).get("components") or {}
    return list((components.get("predictor") or {}).get("traffic") or [])


def move(service: Mapping[str, Any], percent: int | None) -> Document:
    """The patch of the spec that gives the canary `percent`; None: all, as the new stable revision."""
    return {"predictor": {manifests.PERCENT: percent}}


def _failure(service: Mapping[str, Any], created: str, latest_ready: str) -> str:
    if said := load_failure(service):
        return said
    predictor, revision = condition(service, "PredictorReady"), condition(service, "PredictorConfigurationReady")
    if created != latest_ready and revision.get("status") == "False":
        return str(revision.get("message") or revision.get("reason") or "")
    if predictor.get("status") == "False":
        return str(predictor.get("message") or predictor.get("reason") or "")
    return ""


def _notes(service: Mapping[str, Any]) -> tuple[str, ...]:
    refused = condition(service, "PredictorReady").get("reason") == "ReconcileFailed"
    return ("KServe could not act on the spec; the traffic is what it was before",) if refused else ()
