"""A record for a service whose revision history is lost: what serves goes on until a new revision has taken over."""

from __future__ import annotations

from sandbox.kserve.knative import Document, Knative, Revision, Servers, Target, Template

# Nothing is known of it but that it runs: the host has what it takes to start it again.
_LOST = Template({"annotations": {}, "labels": {}, "spec": {"containers": [{"name": "kserve-container"}]}}, digest="")


def is_lost(revision: Revision) -> bool:
    """Whether the revision's content is lost: it can be left running or ended, but not started."""
    return not revision.template.digest


def recovered(service: str, status: Document, servers: Servers, now: float) -> Knative | None:
    """The record that `status` and the servers that still run speak of; None for a service that never had a revision.

    Revisions go on being counted where they were, so that no name is given twice.
    """
    component = (status.get("components") or {}).get("predictor") or {}
    created = component.get("latestCreatedRevision", "")
    count = created.rpartition("-")[2]
    if not count.isdigit():
        return None
    names = sorted(name for name in servers if name.startswith(f"{service}-"))
    routed = tuple(
        Target(
            entry.get("percent") or 0, bool(entry.get("latestRevision")), entry["revisionName"], entry.get("tag", "")
        )
        for entry in component.get("traffic") or []
    )
    if any(target.revision not in names for target in routed):
        routed = ()
    ready = component.get("latestReadyRevision", "")
    return Knative(
        name=service,
        generation=int(status.get("observedGeneration") or 0),
        revisions=tuple(Revision(name, _LOST, created=now, ready=True) for name in names),
        latest_ready=ready if ready in names else "",
        routed=routed,
        created_count=int(count),
    )
