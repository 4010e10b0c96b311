"""Readiness to roll back: asked before a promotion, because after it the way back is a cold start.

KServe keeps nothing warm: in Knative mode the previous revision is no longer referenced and scales to zero, in
Standard mode its Deployment is deleted. `assess` is pure; `readiness` reads what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kanary import kubernetes as k8s
from kanary import manifests, release
from kanary.errors import ApiError
from kanary.kserve import models, store
from kanary.kserve.models import Found
from kanary.kserve.status import STANDARD, ServiceStatus, service_status
from kanary.kubernetes import Act, Document
from kanary.operations import Request
from kanary.release import Release, State


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `blocks`: rolling back would not work; otherwise it is worth knowing."""

    what: str
    said: str
    blocks: bool = False


@dataclass(frozen=True)
class Readiness:
    """Whether a rollback would work. `target` is the release that it would lead to (a version, else a digest).

    `cold`: its servers would have to start again; `seconds` that this takes, as it did last time, None where nobody
    knows.
    """

    ok: bool
    target: str
    cold: bool
    seconds: float | None
    findings: tuple[Finding, ...]

    @property
    def way(self) -> str:
        """Where it would lead and how, for a person; `none` where it would not work."""
        if not self.ok:
            return "none"
        took = "" if self.seconds is None else f", some {self.seconds:.0f} s"
        return f"to {self.target}{f' by a cold start{took}' if self.cold else ''}"

    @property
    def obstacles(self) -> str:
        """What stands in the way, for a person; empty where nothing does."""
        return "; ".join(finding.said for finding in self.findings if finding.blocks)


def readiness(name: str, namespace: str, *, look: Callable[[Release], Found] = models.look) -> Act[Readiness]:
    """Whether what is stable now could be brought back, were the canary promoted; without a canary, what was before.

    Raises InputError where there is no such service.
    """
    service, state = yield from store.both(name, namespace)
    now = service_status(service, state)
    target = _target(service, now, state)
    played = (now.stable, now.canary, target.revision if target is not None else "")
    names = tuple(dict.fromkeys(one for one in played if one))
    asked = [k8s.read(k8s.deployments(namespace, _deployment(now, one))) for one in names]
    asked += [_made(now, namespace, target)] if target is not None and target.revision else []
    answers: list[Document | ApiError] = (yield k8s.Together(tuple(asked))) if asked else []
    replicas = {one: _replicas(answer) for one, answer in zip(names, answers, strict=False)}
    took = _took(answers[len(names)]) if len(answers) > len(names) else None
    served = look(_content(service, now))
    return assess(now, target, state, look(target) if target is not None else None, served, replicas, took)


def assess(
    now: ServiceStatus,
    target: Release | None,
    state: State,
    found: Found | None,
    served: Found,
    replicas: Mapping[str, int | None],
    took: float | None,
) -> Readiness:
    """The judgement on what was found: at the target's URI, at that of what serves, and of ready replicas."""
    if target is None or found is None:
        return Readiness(False, "", True, None, (Finding("target", _nothing(now), True),))
    findings = [_denied(state, target), _model(found), _schema(found, served)]
    if now.canary:
        findings.append(_warm(now, replicas))
    # Before a promotion it serves; after it KServe keeps nothing of it.
    cold = bool(now.canary) or not replicas.get(target.revision)
    seconds = target.seconds if target.seconds is not None else took
    if cold:
        known = "nobody knows how long it takes" if seconds is None else f"some {seconds:.0f} s, as last time"
        when = "after the promotion" if now.canary else "now"
        findings.append(Finding("start", f"a cold start {when}: {known}"))
    kept = tuple(finding for finding in findings if finding is not None)
    return Readiness(not any(finding.blocks for finding in kept), target.version or target.digest, cold, seconds, kept)


def _target(service: Document, now: ServiceStatus, state: State) -> Release | None:
    if not now.stable:
        return None
    if now.canary and now.mode == STANDARD:
        content = manifests.stable_content(service)
        digest = manifests.model_digest(content)
        version, uri = manifests.model_version(content), manifests.storage_uri(content)
        return release.newest(state, digest) or Release(version, uri, digest, content, revision=now.stable)
    if now.canary:
        return next((entry for entry in reversed(state.history) if entry.revision == now.stable), None)
    serving = manifests.model_digest(manifests.content(service))
    good = (release.PROMOTED, release.FOUND)
    others = [entry for entry in reversed(state.history) if entry.digest != serving and entry.verdict in good]
    return next((entry for entry in others if release.denial(state, entry.digest) is None), None)


def _nothing(now: ServiceStatus) -> str:
    if not now.stable:
        return "nothing has ever been ready: there is nothing to go back to"
    if not now.canary:
        return f"{now.stable} is the only good release that is remembered"
    return f"nobody recorded the content of {now.stable}: a rollback could move traffic but not put the spec back"


def _content(service: Document, now: ServiceStatus) -> Release:
    content = manifests.content(service)
    digest = manifests.model_digest(content)
    return Release(manifests.model_version(content), manifests.storage_uri(content), digest, content)


def _denied(state: State, target: Release) -> Finding | None:
    denied = release.denial(state, target.digest)
    if denied is None:
        return None
    return Finding("target", f"{target.version or target.digest} is denied by {denied.who} ({denied.when})", True)


def _model(found: Found) -> Finding:
    return Finding("model", found.why, found.gone)


def _schema(found: Found, served: Found) -> Finding | None:
    """Requests that are made for what serves now must be ones that the target takes."""
    if found.spec is None or served.spec is None:
        return Finding("schema", "cannot be compared: a model.json cannot be read from here")
    now = {feature.name: feature for feature in served.spec.features}
    gone = {feature.name: feature for feature in found.spec.features}
    lacking = sorted(name for name, feature in gone.items() if name not in now and feature.required)
    changed = sorted(name for name, feature in gone.items() if name in now and now[name].type != feature.type)
    said = []
    said += [f"it needs {', '.join(lacking)}, which today's requests need not carry"] if lacking else []
    said += [f"{', '.join(changed)} had another type"] if changed else []
    said += [] if found.spec.classes == served.spec.classes else ["its classes differ"]
    blocks = bool(lacking or changed)
    return Finding("schema", "; ".join(said) or "it takes the requests of today", blocks)


def _warm(now: ServiceStatus, replicas: Mapping[str, int | None]) -> Finding:
    """Replicas that are ready to take everything back, next to those that carry it now."""
    stable, canary = replicas.get(now.stable), replicas.get(now.canary)
    if stable is None:
        return Finding("replicas", f"how many replicas of {now.stable} are ready cannot be seen")
    carrying = stable + (canary or 0)
    said = f"{stable} of {now.stable} ready; {carrying} carry the traffic now"
    return Finding("replicas", said, stable == 0)


def _deployment(now: ServiceStatus, revision: str) -> str:
    return revision if now.mode == STANDARD else f"{revision}-deployment"


def _replicas(answer: Document | ApiError) -> int | None:
    return None if isinstance(answer, ApiError) else int((answer.get("status") or {}).get("readyReplicas") or 0)


def _made(now: ServiceStatus, namespace: str, target: Release) -> Request:
    """The object whose conditions tell when the target's revision was made, and when it was ready."""
    where = k8s.deployments if now.mode == STANDARD else k8s.revisions
    return k8s.read(where(namespace, target.revision))


def _took(answer: Document | ApiError) -> float | None:
    """Seconds from an object's creation to its becoming ready; None where its conditions do not say."""
    if isinstance(answer, ApiError):
        return None
    conditions: list[Mapping[str, Any]] = (answer.get("status") or {}).get("conditions") or []
    ready = next((one for one in conditions if one.get("type") in ("Ready", "Available")), {})
    try:
        made = datetime.fromisoformat(str((answer.get("metadata") or {}).get("creationTimestamp")))
        at = datetime.fromisoformat(str(ready.get("lastTransitionTime")))
    except ValueError:
        return None
    return max(0.0, (at - made).total_seconds()) if ready.get("status") == "True" else None
