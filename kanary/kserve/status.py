"""What an InferenceService really does: traffic added up by revision, next to what was asked. Pure; Knative mode.

`latestRevision: true` may still lead to the old revision, a stale failure outlives its cause, and Ready may be the old
revision's: nothing here believes any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kanary import manifests, release
from kanary.errors import KanaryError
from kanary.release import State

KNATIVE, STANDARD = "Knative", "Standard"
_MODES = {"Serverless": KNATIVE, "RawDeployment": STANDARD}


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


@dataclass(frozen=True)
class ServiceStatus:
    """One InferenceService as it is. Where there is no canary, `canary` is empty.

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
        """Where the canary answers whatever its share: its tag's URL; empty until the tag leads to it."""
        found = self.revision(self.canary or self.created)
        return (found.tags.get("latest") or "") if found else ""


def mode(service: Mapping[str, Any]) -> str:
    """Knative or Standard. Where nothing says it, Knative: the status says it before anything is served."""
    annotations = (service.get("metadata") or {}).get("annotations") or {}
    said = (service.get("status") or {}).get("deploymentMode") or annotations.get(manifests.MODE) or KNATIVE
    return _MODES.get(said, said)


def require_knative(service: Mapping[str, Any]) -> None:
    """Raises KanaryError for a service whose traffic Kanary does not drive."""
    found = mode(service)
    if found == KNATIVE:
        return
    metadata = service.get("metadata") or {}
    raise KanaryError(
        f"{metadata.get('namespace')}/{metadata.get('name')} runs in KServe's mode {found}; "
        "this version of Kanary drives the traffic of Knative mode only.",
        "A later version drives Standard mode; until then use kubectl, with spec.canary.",
    )


def service_status(service: Mapping[str, Any], state: State | None = None) -> ServiceStatus:
    """The status of an InferenceService (as the API gives it), with what Kanary remembers of it."""
    state = state or State()
    metadata, told = service.get("metadata") or {}, service.get("status") or {}
    predictor = (told.get("components") or {}).get("predictor") or {}
    created = predictor.get("latestCreatedRevision") or ""
    latest_ready = predictor.get("latestReadyRevision") or ""
    stable = predictor.get("latestRolledoutRevision") or ""
    canary = created if stable and created != stable else ""
    found = ServiceStatus(
        name=metadata.get("name") or "",
        namespace=metadata.get("namespace") or "",
        mode=mode(service),
        url=told.get("url") or "",
        requested=manifests.percent(service),
        stable=stable,
        canary=canary,
        canary_ready=bool(canary) and created == latest_ready,
        revisions=_revisions(service, predictor, stable, canary, state),
        created=created,
        latest_ready=latest_ready,
        previous=predictor.get("previousRolledoutRevision") or "",
        ready=condition(service, "Ready").get("status") == "True",
        failure=_failure(service, created, latest_ready),
        since=state.intent.when if state.intent else metadata.get("creationTimestamp") or "",
        epoch=state.epoch,
        act=f"{state.intent.action} by {state.intent.who}: {state.intent.phase}" if state.intent else "",
        resource_version=metadata.get("resourceVersion") or "",
    )
    return _with_notes(found, service, state)


def shares(service: Mapping[str, Any]) -> dict[str, int]:
    """Effective percent by revision."""
    found: dict[str, int] = {}
    for entry in traffic(service):
        name = entry.get("revisionName") or ""
        found[name] = found.get(name, 0) + int(entry.get("percent") or 0)
    return found


def condition(service: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """A condition of the status; {} where it is not there."""
    conditions = (service.get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry.get("type") == kind), {})


def traffic(service: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The status's own list of shares, as KServe copies it from Knative."""
    components = (service.get("status") or {}).get("components") or {}
    return list((components.get("predictor") or {}).get("traffic") or [])


def _revisions(
    service: Mapping[str, Any], predictor: Mapping[str, Any], stable: str, canary: str, state: State
) -> tuple[Revision, ...]:
    share = shares(service)
    created, latest_ready = predictor.get("latestCreatedRevision"), predictor.get("latestReadyRevision")
    names = dict.fromkeys(name for name in (stable, canary or created, *share) if name)
    tags: dict[str, dict[str, str]] = {}
    for entry in traffic(service):
        if entry.get("tag"):
            tags.setdefault(entry.get("revisionName") or "", {})[entry["tag"]] = entry.get("url") or ""
    found = []
    for name in names:
        role = "stable" if name == stable else "canary" if name == canary else ""
        version, digest = _model(name, name == created, service, state)
        # What was rolled out once was ready; of the newest we are told.
        ready = name == latest_ready or name != created
        found.append(Revision(name, role, share.get(name, 0), ready, version, digest, tags.get(name, {})))
    return tuple(found)


def _model(revision: str, newest: bool, service: Mapping[str, Any], state: State) -> tuple[str, str]:
    recorded = next((entry for entry in reversed(state.history) if entry.revision == revision), None)
    if recorded is not None:
        return recorded.version, recorded.digest
    predictor = manifests.content(service)
    if newest and manifests.model_version(predictor):
        return manifests.model_version(predictor), manifests.model_digest(predictor)
    return "", ""


def _failure(service: Mapping[str, Any], created: str, latest_ready: str) -> str:
    model = (service.get("status") or {}).get("modelStatus") or {}
    # lastFailureInfo stays after a recovery: only these say that it is of now.
    if model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec"):
        info = model.get("lastFailureInfo") or {}
        said = str(info.get("message") or "").strip()
        exited = f"exit code {info['exitCode']}" if info.get("exitCode") else ""
        parts = [part for part in (info.get("reason"), exited, said) if part]
        if parts:
            return ": ".join(parts)
    predictor, revision = condition(service, "PredictorReady"), condition(service, "PredictorConfigurationReady")
    if created != latest_ready and revision.get("status") == "False":
        return str(revision.get("message") or revision.get("reason") or "")
    if predictor.get("status") == "False":
        return str(predictor.get("message") or predictor.get("reason") or "")
    return ""


def _with_notes(status: ServiceStatus, service: Mapping[str, Any], state: State) -> ServiceStatus:
    if status.mode != KNATIVE:
        why = f"{status.mode} mode: its traffic is kubectl's to show and to steer (spec.canary, status.canaryStatuses)"
        return replace(status, notes=(why,))
    notes = []
    asked, effective = status.requested, status.effective
    if status.canary and asked is None and not status.canary_ready:
        notes.append(f"{status.canary} takes all traffic as soon as it is ready: the spec asks for no percentage")
    elif status.canary and asked is not None and asked != effective:
        why = "canary not ready" if not status.canary_ready else "not in force yet"
        notes.append(f"{asked} % requested, {effective} % effective: {why}")
    elif asked is not None and not status.canary and status.stable:
        notes.append(f"{asked} % requested without a canary: a leftover, it would starve the next release")
    denied = release.denial(state, manifests.model_digest(manifests.content(service)))
    if denied is not None and (asked is None or asked > 0):
        notes.append(
            f"{denied.version or denied.digest} is back in the spec, though {denied.who} denied it at {denied.when}"
            + (f": {denied.why}" if denied.why else "")
        )
    intent = state.intent
    if intent is not None and intent.phase != release.DONE and intent.action == release.ROLLBACK:
        notes.append("a rollback is unfinished: `kanary rollback` goes on with it")
    refused = condition(service, "PredictorReady")
    if refused.get("reason") == "ReconcileFailed":
        notes.append("KServe could not act on the spec; the traffic is what it was before")
    return replace(status, notes=tuple(notes))
