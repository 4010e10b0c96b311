"""What a rollback has to do: planned once from what is, then one step at a time, whoever started it. Pure.

Kinds of rollback, by where the bad content stands:
canary     it is the canary, ready or not: 0 % leads all traffic to stable
promotion  it was promoted, and KServe remembers the revision before: 0 % leads back to that, over two reconciles
content    KServe remembers none, or another one is asked for: that content must come up before traffic can leave
in place   Standard mode: the predictor itself was changed under its name; undoing that goes back
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kanary import manifests, release
from kanary.errors import InputError, KanaryError
from kanary.kserve import knative_rollback, standard_rollback
from kanary.kserve.action import (
    CANARY,
    COMPLETE,
    CONTENT,
    FINISH,
    IN_PLACE,
    PROMOTION,
    RESTORE,
    STOP,
    STUCK,
    WAIT,
    Action,
    patch_of,
    same,
)
from kanary.kserve.status import STANDARD, ServiceStatus, check_mode, mode, service_status, shares
from kanary.manifests import Document
from kanary.release import Intent, Release, State

__all__ = [
    "CANARY",
    "COMPLETE",
    "CONTENT",
    "FINISH",
    "IN_PLACE",
    "PROMOTION",
    "RESTORE",
    "STOP",
    "STUCK",
    "WAIT",
    "Action",
    "Plan",
    "find",
    "next_action",
    "patch_of",
    "plan",
    "same",
    "traffic_left",
]


@dataclass(frozen=True)
class Plan:
    """How to roll back. `resumed`: the intent is already written down; `nothing`: why there is nothing to do."""

    intent: Intent | None
    resumed: bool = False
    nothing: str = ""


def plan(service: Mapping[str, Any], state: State, who: str, when: str, why: str, to: Release | None = None) -> Plan:
    """How to take the service back from what its newest content is; `to` that release, else to what was stable.

    Raises KanaryError where there is no way back.
    """
    check_mode(service)
    now, content = service_status(service, state), manifests.content(service)
    last = state.intent
    if last is not None and last.action == release.ROLLBACK and _is_about(last, service) and _leads_to(last, to):
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
    kind, target = _target(service, state) if to is None else (_way(service, state, to), to)
    if kind == CONTENT and target is None:
        raise KanaryError(
            f"{where} cannot be rolled back: {now.stable} is its only release, as far as KServe and Kanary remember.",
            "Deploy the model that should serve.",
        )
    stays = _kept(kind, now)
    bad = tuple(dict.fromkeys(name for name in (now.created, *shares(service)) if name and name != stays))
    intent = Intent(
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
    if to is not None and same(content, to.predictor) and not now.canary and manifests.percent(service) is None:
        return Plan(intent, nothing=f"{to.version or to.digest} serves already.")
    return Plan(intent)


def find(state: State, to: str, where: str) -> Release:
    """The newest release that `to` names: a version, a digest (or its beginning), a revision or a run's id.

    Raises InputError where none, or more than one model, is meant, or where it is denied.
    """
    exact = [entry for entry in reversed(state.history) if to in (entry.digest, entry.revision, entry.run_id)]
    named = exact or [entry for entry in reversed(state.history) if entry.version == to]
    bare = to.removeprefix("sha256:")
    named = named or [
        entry
        for entry in reversed(state.history)
        if len(bare) >= 6 and entry.digest.removeprefix("sha256:").startswith(bare)
    ]
    known = ", ".join(dict.fromkeys(entry.version or entry.digest for entry in state.history)) or "none"
    if not named:
        raise InputError(
            f"{where} has no release {to!r} in its history; there are: {known}.",
            "`kanary history SERVICE` lists versions, digests, revisions and runs.",
        )
    if len({entry.digest for entry in named}) > 1:
        digests = ", ".join(dict.fromkeys(entry.digest for entry in named))
        raise InputError(f"{to!r} is more than one release of {where}: {digests}.", "Name it by its digest.")
    denied = release.denial(state, named[0].digest)
    if denied is not None:
        raise InputError(
            f"{to} of {where} is denied: {denied.who} rolled it back at {denied.when}"
            + (f" ({denied.why})." if denied.why else "."),
            "Choose another release; `kanary history SERVICE` tells which were promoted.",
        )
    return named[0]


def next_action(intent: Intent, service: Mapping[str, Any]) -> Action:
    """The next step of a rollback, from what is. Asking again after it was done gives the step after it."""
    if mode(service) == STANDARD:
        return standard_rollback.next_action(intent, service)
    return knative_rollback.next_action(intent, service)


def traffic_left(intent: Intent, service: Mapping[str, Any]) -> bool:
    """Whether the bad revisions get no traffic any more, as the status tells."""
    share = shares(service)
    return bool(share) and not any(share.get(name) for name in intent.bad)


def _is_about(intent: Intent, service: Mapping[str, Any]) -> bool:
    """Whether the spec still is what the rollback found or what it restores: nobody has deployed since."""
    content = manifests.content(service)
    if intent.digest == manifests.model_digest(content):
        return True
    if intent.target is None:
        return False
    # In Standard mode the content comes up beside what is to be left, with what KServe lets it inherit.
    restoring = mode(service) == STANDARD and manifests.model_digest(content) == manifests.model_digest(intent.target)
    return restoring or same(content, intent.target)


def _leads_to(intent: Intent, to: Release | None) -> bool:
    return to is None or intent.target_digest == to.digest


def _way(service: Mapping[str, Any], state: State, to: Release) -> str:
    """The kind of a rollback to a release that somebody chose."""
    now = service_status(service, state)
    if now.canary:
        return CANARY
    recorded = next((entry for entry in reversed(state.history) if entry.revision == now.previous), None)
    if now.previous and now.previous != now.stable and recorded is not None and recorded.digest == to.digest:
        return PROMOTION
    # Nothing that is healthy for certain takes the traffic meanwhile: it stays where it is until that content is up.
    return CONTENT


def _target(service: Mapping[str, Any], state: State) -> tuple[str, Release | None]:
    now, content = service_status(service, state), manifests.content(service)
    if mode(service) == STANDARD:
        return _standard_target(service, now, state)
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


def _standard_target(service: Mapping[str, Any], now: ServiceStatus, state: State) -> tuple[str, Release | None]:
    content = manifests.stable_content(service)
    digest = manifests.model_digest(content)
    if now.canary:
        # Stable never left the spec.
        return CANARY, Release(manifests.model_version(content), manifests.storage_uri(content), digest, content)
    serving = next((entry for entry in reversed(state.history) if entry.revision == now.stable), None)
    if serving is not None and serving.digest != digest:
        return IN_PLACE, serving
    return CONTENT, _release_of("", content, state)


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
