"""The next step of a rollback in Standard mode. Pure.

The stable Deployment never left: without spec.canary all traffic is its again. Content that is not the predictor's
comes up as a canary at 0 % first and is promoted then, because KServe deletes a renamed predictor's Deployment at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kanary import manifests
from kanary.kserve.action import COMPLETE, FINISH, IN_PLACE, RESTORE, STOP, STUCK, WAIT, Action, patch_of, same
from kanary.kserve.standard import deployment, move, parts
from kanary.release import Intent


def next_action(intent: Intent, service: Mapping[str, Any]) -> Action:
    """The next step of a rollback, from what is. Asking again after it was done gives the step after it."""
    stable, entry, now = manifests.stable_content(service), manifests.canary(service), parts(service)
    canary = deployment(service, entry.get("predictor") or {}) if entry is not None else ""
    target = intent.target
    restored = target is None or same(stable, target)
    ours = target is not None and not restored and _is_ours(intent, service, canary)
    several = len((service.get("spec") or {}).get("canary") or []) > 1
    if canary and (not ours or several):
        return Action(STOP, patch_of(service, {"canary": []}), "all traffic to the stable Deployment")
    if ours:
        if now.latest_ready != canary:
            failed = f"; it fails: {now.failure}" if now.failure else ""
            return Action(WAIT, why=f"the stable content's Deployment {canary} gets ready{failed}")
        return Action(FINISH, patch_of(service, move(service, None)), "it is made the predictor, without a restart")
    if not restored and target is not None and intent.kind == IN_PLACE:
        changes = manifests.merge_patch(stable, target)
        return Action(RESTORE, patch_of(service, {"predictor": changes}), "the change is undone where it was made")
    if any(name != now.created and share for name, share in now.shares.items()) or not now.obeyed:
        return Action(WAIT, why="the traffic leaves for the stable Deployment")
    if not restored and target is not None:
        found = manifests.canary_entry(service, target, 0)
        return Action(RESTORE, patch_of(service, {"canary": [found]}), "the content comes up as a canary at 0 %")
    if target is None and now.stable in intent.bad:
        return Action(STUCK, why="the stable content was never recorded: apply its manifest to finish")
    if now.latest_ready != now.created or not now.shares.get(now.created):
        return Action(WAIT, why=f"{now.created} serves all traffic")
    return Action(COMPLETE)


def _is_ours(intent: Intent, service: Mapping[str, Any], canary: str) -> bool:
    """Whether the canary is the content to be restored, and not what is being taken back."""
    if not canary or intent.target is None or canary in intent.bad:
        return False
    return manifests.model_digest(manifests.content(service)) == manifests.model_digest(intent.target)
