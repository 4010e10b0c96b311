"""What an InferenceService really does: traffic added up by revision, next to what was asked. Pure; both modes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kanary import manifests, release
from kanary.errors import KanaryError
from kanary.kserve import knative, standard
from kanary.kserve.parts import Parts, condition
from kanary.manifests import KNATIVE, STANDARD, Document, mode
from kanary.release import State

__all__ = ["KNATIVE", "STANDARD", "Revision", "ServiceStatus", "condition", "mode", "service_status", "shares"]


@dataclass(frozen=True)
class Revision:
    """One revision with traffic or a part to play. `percent` is its effective share of the traffic."""

    name: str
    role: str  # stable, canary, or "" for another that still gets traffic
    percent: int
    ready: bool
    version: str = ""  # of its model; empty where nobody recorded it
    digest: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)  # tag -> URL
    url: str = ""  # where it answers alone, whatever its share; empty where KServe gives none


@dataclass(frozen=True)
class ServiceStatus:
    """One InferenceService as it is. Where there is no canary, `canary` is empty.

    A revision is named as gateways count it: the Knative Revision, in Standard mode the Deployment (and its Service).
    `failure` says why the canary (or, of a first deployment, the only revision) is not ready, as far as KServe knows.
    """

    name: str
    namespace: str
    mode: str
    url: str
    requested: int | None  # percent, as the spec asks; None where the field is not there
    stable: str  # revision
    canary: str  # revision
    canary_ready: bool
    revisions: tuple[Revision, ...]
    created: str  # the newest revision, ready or not
    latest_ready: str
    previous: str  # the revision that was rolled out before; KServe remembers one
    ready: bool  # the condition Ready, whosever it is
    failure: str = ""
    since: str = ""  # ISO 8601: when the last act began, or the service was created
    notes: tuple[str, ...] = ()
    epoch: int = 0
    act: str = ""  # what was last set out to do, and how far it came
    resource_version: str = ""
    obeyed: bool = True  # the gateway has taken the shares up

    @property
    def split(self) -> dict[str, int]:
        """Effective percent by revision, those without traffic left out."""
        return {revision.name: revision.percent for revision in self.revisions if revision.percent}

    @property
    def effective(self) -> int:
        """The canary's effective percent; 0 where there is none."""
        return self.split.get(self.canary, 0) if self.canary else 0

    def revision(self, name: str) -> Revision | None:
        """The revision of that name, if it plays a part."""
        return next((revision for revision in self.revisions if revision.name == name), None)

    @property
    def canary_url(self) -> str:
        """Where the canary answers whatever its share; empty while nothing leads there."""
        found = self.revision(self.canary or self.created)
        return found.url if found else ""


def check_mode(service: Mapping[str, Any]) -> None:
    """Raises KanaryError for a service whose traffic Kanary does not drive."""
    found = mode(service)
    if found in (KNATIVE, STANDARD):
        return
    metadata = service.get("metadata") or {}
    raise KanaryError(
        f"{metadata.get('namespace')}/{metadata.get('name')} runs in KServe's mode {found}; "
        f"Kanary drives the traffic of the modes {KNATIVE} and {STANDARD}.",
        "Use kubectl for this service.",
    )


def service_status(service: Mapping[str, Any], state: State | None = None) -> ServiceStatus:
    """The status of an InferenceService (as the API gives it), with what Kanary remembers of it."""
    state = state or State()
    metadata, told, found = service.get("metadata") or {}, service.get("status") or {}, _parts(service)
    status = ServiceStatus(
        name=metadata.get("name") or "",
        namespace=metadata.get("namespace") or "",
        mode=mode(service),
        url=told.get("url") or "",
        requested=manifests.percent(service),
        stable=found.stable,
        canary=found.canary,
        canary_ready=bool(found.canary) and found.created == found.latest_ready,
        revisions=_revisions(service, found, state),
        created=found.created,
        latest_ready=found.latest_ready,
        previous=found.previous,
        ready=condition(service, "Ready").get("status") == "True",
        failure=found.failure,
        since=state.intent.when if state.intent else metadata.get("creationTimestamp") or "",
        epoch=state.epoch,
        act=f"{state.intent.action} by {state.intent.who}: {state.intent.phase}" if state.intent else "",
        resource_version=metadata.get("resourceVersion") or "",
        obeyed=found.obeyed,
    )
    return replace(status, notes=(*_notes(status, service, state), *found.notes))


def shares(service: Mapping[str, Any]) -> dict[str, int]:
    """Effective percent by revision."""
    return standard.shares(service) if mode(service) == STANDARD else knative.shares(service)


def move(service: Mapping[str, Any], percent: int | None) -> Document:
    """The merge patch that gives the canary `percent`, or with None promotes it; 409 where the service has changed."""
    spec = standard.move(service, percent) if mode(service) == STANDARD else knative.move(service, percent)
    version = (service.get("metadata") or {}).get("resourceVersion")
    return {"metadata": {"resourceVersion": version}, "spec": spec}


def _parts(service: Mapping[str, Any]) -> Parts:
    return standard.parts(service) if mode(service) == STANDARD else knative.parts(service)


def _revisions(service: Mapping[str, Any], parts: Parts, state: State) -> tuple[Revision, ...]:
    found = []
    for name in dict.fromkeys(name for name in (parts.stable, parts.canary or parts.created, *parts.shares) if name):
        role = "stable" if name == parts.stable else "canary" if name == parts.canary else ""
        version, digest = _model(name, name == parts.created, name == parts.stable, service, state)
        # What was rolled out once was ready; of the newest we are told.
        ready = name == parts.latest_ready or name != parts.created
        share, tags, url = parts.shares.get(name, 0), parts.tags.get(name, {}), parts.urls.get(name, "")
        found.append(Revision(name, role, share, ready, version, digest, tags, url))
    return tuple(found)


def _model(revision: str, newest: bool, stable: bool, service: Mapping[str, Any], state: State) -> tuple[str, str]:
    if mode(service) == STANDARD and (newest or stable):
        # Both are in the spec; a Deployment keeps its name when its content changes.
        content = manifests.content(service) if newest else manifests.stable_content(service)
        return manifests.model_version(content), manifests.model_digest(content)
    recorded = next((entry for entry in reversed(state.history) if entry.revision == revision), None)
    if recorded is not None:
        return recorded.version, recorded.digest
    predictor = manifests.content(service)
    if newest and manifests.model_version(predictor):
        return manifests.model_version(predictor), manifests.model_digest(predictor)
    return "", ""


def _notes(status: ServiceStatus, service: Mapping[str, Any], state: State) -> list[str]:
    if status.mode not in (KNATIVE, STANDARD):
        return [f"mode {status.mode}: its traffic is kubectl's to show and to steer"]
    notes = []
    asked, effective = status.requested, status.effective
    if status.canary and asked is None and not status.canary_ready:
        notes.append(f"{status.canary} takes all traffic as soon as it is ready: the spec asks for no percentage")
    elif status.canary and asked is not None and asked != effective:
        why = "canary not ready" if not status.canary_ready else "not in force yet"
        notes.append(f"{asked} % requested, {effective} % effective: {why}")
    elif asked is not None and not status.canary and status.stable:
        notes.append(f"{asked} % requested without a canary: a leftover, it would starve the next release")
    digest = manifests.model_digest(manifests.content(service))
    known = next((entry for entry in reversed(state.history) if entry.revision == status.created), None)
    if status.mode == KNATIVE and not status.canary and known is not None and known.digest != digest:
        # Stopped and resumed, a service counts its revisions from 1 again: the name then is another model's.
        notes.append(
            f"{status.created} was {known.version or known.digest}, and the spec holds another model: its revision is "
            "still to come, or the service was stopped and resumed and it serves already"
        )
    denied = release.denial(state, digest)
    if denied is not None and (asked is None or asked > 0):
        notes.append(
            f"{denied.version or denied.digest} is back in the spec, though {denied.who} denied it at {denied.when}"
            + (f": {denied.why}" if denied.why else "")
        )
    intent = state.intent
    if intent is not None and intent.phase != release.DONE and intent.action == release.ROLLBACK:
        notes.append("a rollback is unfinished: `kanary rollback` goes on with it")
    return notes
