"""A record for a service whose revision history is lost: what serves goes on until a new revision has taken over."""

from __future__ import annotations

from sandbox.kserve.knative import Components, Document, Knative, Revision, Servers, Target, Template
from sandbox.kserve.predictor import kinds
from sandbox.kserve.status import component

# Nothing is known of it but that it runs: the host has what it takes to start it again.
_LOST = Template({"annotations": {}, "labels": {}, "spec": {"containers": [{"name": "kserve-container"}]}}, digest="")


def is_lost(revision: Revision) -> bool:
    """Whether the revision's content is lost: it can be left running or ended, but not started."""
    return not revision.template.digest


def recovered(service: Document, servers: Servers, now: float) -> Components:
    """The record that a service's status and the servers that still run speak of; empty where it never had a revision.

    Revisions go on being counted where they were, so that no name is given twice.
    """
    found = ((kind, _recovered(kind, service, servers, now)) for kind in kinds(service))
    return {kind: knative for kind, knative in found if knative is not None}


def _recovered(kind: str, service: Document, servers: Servers, now: float) -> Knative | None:
    status = service.get("status") or {}
    known = component(status, kind)
    name, _, count = known.get("latestCreatedRevision", "").rpartition("-")
    if not count.isdigit():
        return None
    names = sorted(server for server in servers if server.startswith(f"{name}-"))
    routed = tuple(
        Target(
            entry.get("percent") or 0, bool(entry.get("latestRevision")), entry["revisionName"], entry.get("tag", "")
        )
        for entry in known.get("traffic") or []
    )
    if any(target.revision not in names for target in routed):
        routed = ()
    ready = known.get("latestReadyRevision", "")
    return Knative(
        name=name,
        generation=int(status.get("observedGeneration") or 0),
        revisions=tuple(Revision(name, _LOST, created=now, ready=True) for name in names),
        latest_ready=ready if ready in names else "",
        routed=routed,
        created_count=int(count),
    )
