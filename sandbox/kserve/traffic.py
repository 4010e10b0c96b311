"""How KServe turns `canaryTrafficPercent` and what it remembers into traffic."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox.kserve.knative import Document, Target


def targets(percent: int | None, rolled_out: str, tag_routing: bool) -> tuple[Target, ...]:
    """The traffic KServe asks of Knative; a split only where a percentage is set and a revision was rolled out before.

    Source: createKnativeService in KServe's ksvc_reconciler.go.
    """
    tag = "latest" if tag_routing else ""
    if percent is None or not rolled_out:
        return (Target(percent=100, latest=True, tag=tag),)
    latest = Target(percent=percent, latest=True, tag=tag)
    if percent >= 100:
        return (latest,)
    return (latest, Target(percent=100 - percent, latest=False, revision=rolled_out, tag="prev"))


def remember(component: Document, routed: Sequence[Target], latest_ready: str, latest_created: str) -> Document:
    """`component` (status.components.predictor) with its rolled-out revisions as KServe tracks them.

    A latest revision at 100 % is rolled out. One that was, and now takes less while all traffic is still its own, is
    being rolled back: the previous one takes its place, once. Source: PropagateStatus in inference_service_status.go.
    """
    share = shares(routed)
    rolled_out = component.get("latestRolledoutRevision", "")
    previous = component.get("previousRolledoutRevision", "")
    for target in routed:
        if not target.latest or target.revision != latest_ready:
            continue
        if rolled_out != latest_ready:
            if target.percent == 100:
                rolled_out, previous = latest_ready, rolled_out
        elif latest_ready == latest_created and target.percent < 100 and share[target.revision] == 100 and previous:
            rolled_out = previous
    found = {"latestRolledoutRevision": rolled_out, "previousRolledoutRevision": previous}
    kept = {key: value for key, value in component.items() if key not in found}
    return kept | {key: value for key, value in found.items() if value}


def shares(routed: Sequence[Target]) -> dict[str, int]:
    """Percent of the traffic by revision, those that take none included."""
    found: dict[str, int] = {}
    for target in routed:
        found[target.revision] = found.get(target.revision, 0) + target.percent
    return found


def tags(routed: Sequence[Target]) -> dict[str, tuple[str, ...]]:
    """Tags by revision."""
    found: dict[str, tuple[str, ...]] = {}
    for target in routed:
        if target.tag:
            found[target.revision] = (*found.get(target.revision, ()), target.tag)
    return found
