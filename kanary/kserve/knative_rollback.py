"""The next step of a rollback in Knative mode: 0 %, the stable content, then no percentage any more. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kanary import manifests
from kanary.kserve.action import COMPLETE, CONTENT, FINISH, RESTORE, STOP, STUCK, WAIT, Action, patch_of, same
from kanary.kserve.knative import parts, shares, traffic
from kanary.kserve.parts import condition
from kanary.manifests import Document
from kanary.release import Intent


def next_action(intent: Intent, service: Mapping[str, Any]) -> Action:
    """The next step of a rollback, from what is. Asking again after it was done gives the step after it."""
    content, asked, share = manifests.content(service), manifests.percent(service), shares(service)
    now = parts(service)
    if intent.target is None or not same(content, intent.target):
        if intent.kind != CONTENT:
            if asked != 0:
                return Action(STOP, _patch(service, {}, 0), "all traffic to the stable revision")
            if any(share.get(name) for name in intent.bad):
                return Action(WAIT, why="the traffic leaves the bad revision")
            if not _zero_in_force(service):
                # Only then has the controller seen the bad content: the next revision is the restored one's.
                return Action(WAIT, why="KServe takes the percentage up")
        if intent.target is None:
            return Action(STUCK, why="the stable content was never recorded: apply its manifest to finish")
        changes = manifests.merge_patch(content, intent.target)
        return Action(
            RESTORE, _patch(service, changes, None if intent.kind == CONTENT else 0), "the stable content is put back"
        )
    stale = condition(service, "PredictorConfigurationReady").get("reason") == "OutOfDate"
    if stale or now.created in intent.bad or now.created != now.latest_ready:
        failed = f"; it fails: {now.failure}" if now.failure and now.created not in intent.bad else ""
        return Action(WAIT, why=f"the stable content's new revision gets ready{failed}")
    if asked is not None:
        return Action(FINISH, _patch(service, {}, None), "the percentage is taken out of the spec")
    if now.stable == now.created and share == {now.created: 100}:
        return Action(COMPLETE)
    return Action(WAIT, why="traffic moves to the stable content's new revision")


def _zero_in_force(service: Mapping[str, Any]) -> bool:
    latest = [entry for entry in traffic(service) if entry.get("latestRevision")]
    return bool(latest) and not any(entry.get("percent") for entry in latest)


def _patch(service: Mapping[str, Any], predictor: Document, percent: int | None) -> Document:
    return patch_of(service, {"predictor": predictor | {manifests.PERCENT: percent}})
