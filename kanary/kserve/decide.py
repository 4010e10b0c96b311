"""What a rollback has to do: planned once from what is, then one step at a time, whoever started it. Pure.

Kinds of rollback, by where the bad content stands:
canary     it is the canary, ready or not: 0 % leads all traffic to stable
promotion  it was promoted, and KServe remembers the revision before: 0 % leads back to that, over two reconciles
content    KServe remembers none: the stable content itself must come up before traffic can leave
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kanary import manifests, release
from kanary.errors import KanaryError
from kanary.kserve.status import ServiceStatus, condition, require_knative, service_status, shares, traffic
from kanary.manifests import Document
from kanary.release import Intent, Release, State

CANARY, PROMOTION, CONTENT = "canary", "promotion", "content"
STOP, RESTORE, FINISH, WAIT, COMPLETE, STUCK = "stop", "restore", "finish", "wait", "complete", "stuck"


@dataclass(frozen=True)
class Plan:
    """How to roll back. `resumed`: the intent is already written down; `nothing`: why there is nothing to do."""

    intent: Intent | None
    resumed: bool = False
    nothing: str = ""


@dataclass(frozen=True)
class Action:
    """The next step: a merge patch to send (STOP, RESTORE, FINISH), or, with none, to wait, to be complete or stuck."""

    kind: str
    patch: Document | None = None
    why: str = ""


def plan(service: Mapping[str, Any], state: State, who: str, when: str, why: str) -> Plan:
    """How to take the service back from what its spec now holds. Raises KanaryError where there is no way back."""
    require_knative(service)
    now, content = service_status(service, state), manifests.content(service)
    last = state.intent
    if last is not None and last.action == release.ROLLBACK and _is_about(last, content):
        if last.phase != release.DONE:
            return Plan(last, resumed=True)
        if last.target is not None and same(content, last.target) and manifests.percent(service) is None:
            return Plan(last, nothing=f"{last.who} has rolled back from {last.version or last.digest} already.")
    where = f"{now.namespace}/{now.name}"
    if not now.stable:
        raise KanaryError(
            f"{where} cannot be rolled back: its first release has never been ready.",
            "Deploy a model that works; there is no traffic to save.",
        )
    kind, target = _target(service, state)
    if kind == CONTENT and target is None:
        raise KanaryError(
            f"{where} cannot be rolled back: {now.stable} is its only release, as far as KServe and Kanary remember.",
            "Deploy the model that should serve.",
        )
    bad = tuple(dict.fromkeys(name for name in (now.created, *shares(service)) if name and name != _kept(kind, now)))
    return Plan(
        Intent(
            *(release.ROLLBACK, who, when, why),
            percent=0,
            version=manifests.model_version(content),
            digest=manifests.model_digest(content),
            bad=bad,
            kind=kind,
            target=target.predictor if target else None,
            target_version=target.version if target else "",
            target_digest=target.digest if target else "",
        )
    )


def next_action(intent: Intent, service: Mapping[str, Any]) -> Action:
    """The next step of a rollback, from what is. Asking again after it was done gives the step after it."""
    content, asked, share = manifests.content(service), manifests.percent(service), shares(service)
    now = service_status(service)
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


def same(content: Document, target: Document) -> bool:
    """Whether two predictors, their percentage left out, are the same."""
    return not manifests.merge_patch(content, target)


def traffic_left(intent: Intent, service: Mapping[str, Any]) -> bool:
    """Whether the bad revisions get no traffic any more, as the status tells."""
    share = shares(service)
    return bool(share) and not any(share.get(name) for name in intent.bad)


def _is_about(intent: Intent, content: Document) -> bool:
    """Whether the spec still is what the rollback found or what it restores: nobody has deployed since."""
    return intent.digest == manifests.model_digest(content) or (
        intent.target is not None and same(content, intent.target)
    )


def _target(service: Mapping[str, Any], state: State) -> tuple[str, Release | None]:
    now, content = service_status(service, state), manifests.content(service)
    if now.canary:
        return CANARY, _release_of(now.stable, content, state)
    serving = next((entry for entry in state.history if entry.revision == now.created), None)
    if serving is not None and not same(content, serving.predictor):
        # The spec is ahead: its revision is still to come.
        return CANARY, serving
    # After a rollback KServe's memory may name the very revision that serves.
    if now.previous and now.previous != now.stable:
        found = _release_of(now.previous, content, state)
        recorded = next((entry for entry in state.history if entry.revision == now.previous), None)
        if recorded is None or not same(content, recorded.predictor):
            return PROMOTION, found
    return CONTENT, _release_of("", content, state)


def _zero_in_force(service: Mapping[str, Any]) -> bool:
    latest = [entry for entry in traffic(service) if entry.get("latestRevision")]
    return bool(latest) and not any(entry.get("percent") for entry in latest)


def _release_of(revision: str, content: Document, state: State) -> Release | None:
    """The release that a revision serves; where nobody noted that, the newest good one that is something else."""
    others = [entry for entry in reversed(state.history) if not same(content, entry.predictor)]
    noted = [entry for entry in others if revision and entry.revision == revision]
    good = [
        entry
        for entry in others
        if entry.verdict in (release.PROMOTED, release.FOUND) and release.denial(state, entry.digest) is None
    ]
    return next(iter(noted or good), None)


def _kept(kind: str, now: ServiceStatus) -> str:
    return {CANARY: now.stable, PROMOTION: now.previous}.get(kind, "")


def _patch(service: Mapping[str, Any], predictor: Document, percent: int | None) -> Document:
    version = (service.get("metadata") or {}).get("resourceVersion")
    return {
        "metadata": {"resourceVersion": version},
        "spec": {"predictor": predictor | {manifests.PERCENT: percent}},
    }
