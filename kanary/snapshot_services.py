"""InferenceServices as the monitor lists them: their status beside what Kanary remembers of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from kanary import manifests, release
from kanary.errors import KanaryError
from kanary.kserve import standard
from kanary.kserve.status import ServiceStatus, service_status
from kanary.release import Document, State
from kanary.rollout import record as records
from kanary.rollout.record import Record
from kanary.snapshot import Snapshot

CONFIG_MAPS = "app.kubernetes.io/managed-by=kanary"  # label selector
# What a service is in, the most urgent first.
FAILING, CANARY, STARTING, READY, UNREADABLE = "failing", "canary", "starting", "ready", "unreadable"
URGENCY = (FAILING, UNREADABLE, CANARY, STARTING, READY)
PODS = "serving.kserve.io/inferenceservice"  # label selector
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Service:
    """One InferenceService. `problem` says why its status or its release state could not be read.

    `beside`: in Standard mode the objects that say where its traffic goes, as kanary.kserve.store reads them.
    """

    status: ServiceStatus
    state: State = field(default_factory=State)
    document: Document = field(default_factory=dict)
    created_at: datetime | None = None
    canary_since: datetime | None = None
    problem: str = ""
    rollout: Record | None = None  # the one under way, or the last
    beside: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seen(self) -> Document:
        """The document with what stands beside it: what kanary.kserve decides by."""
        return {**self.document, **self.beside}

    @property
    def under_way(self) -> Record | None:
        """The rollout that goes on now."""
        return self.rollout if self.rollout is not None and not self.rollout.outcome else None

    @property
    def key(self) -> str:
        return f"{self.status.namespace}/{self.status.name}"

    @property
    def situation(self) -> str:
        """One of URGENCY."""
        if self.problem and not self.status.created and not self.status.url:
            return UNREADABLE
        if self.status.failure:
            return FAILING
        if self.status.canary:
            return CANARY
        return READY if self.status.ready else STARTING


Services = Mapping[str, Service]  # by namespace/name


def joined(
    documents: Snapshot[Mapping[str, Document]],
    config_maps: Snapshot[Mapping[str, Document]],
    before: Services,
    routes: Mapping[str, Document] = _NOTHING,
    pods: Mapping[str, Document] = _NOTHING,
) -> dict[str, Service]:
    """The services of two watched collections, and in Standard mode of the HTTPRoutes and pods beside them.

    Those that have not changed are the very same objects as `before`.
    """
    remembered = config_maps.value or {}
    by_app = _by_app(pods)
    found = {}
    for key, document in sorted((documents.value or {}).items()):
        namespace, _, name = key.partition("/")
        config_map = remembered.get(f"{namespace}/{release.name_of(name)}")
        known = before.get(key)
        beside = _beside(key, document, routes, by_app)
        same = known is not None and known.document is document and known.beside == beside
        if known is not None and same and known.state.resource_version == _version(config_map):
            found[key] = known
        else:
            found[key] = read_service(document, config_map, beside)
    return found


def splits_by_route(document: Document) -> bool:
    """Whether an HTTPRoute says where the traffic goes: in Standard mode with a canary."""
    try:
        return manifests.mode(document) == manifests.STANDARD and manifests.canary(document) is not None
    except (AttributeError, KeyError, TypeError, ValueError):
        return False  # read_service says what is wrong with it


def _beside(
    key: str, document: Document, routes: Mapping[str, Document], pods: Mapping[str, list[Document]]
) -> dict[str, Any]:
    if not splits_by_route(document):
        return {}
    canary = standard.deployment(document, (manifests.canary(document) or {}).get("predictor") or {})
    namespace = key.partition("/")[0]
    return {
        standard.ROUTE: routes.get(f"{key}-predictor") or routes.get(key) or {},
        standard.PODS: pods.get(f"{namespace}/isvc.{canary}", []),
    }


def _by_app(pods: Mapping[str, Document]) -> dict[str, list[Document]]:
    found: dict[str, list[Document]] = {}
    for key, pod in pods.items():
        labels = (pod.get("metadata") or {}).get("labels") or {}
        found.setdefault(f"{key.partition('/')[0]}/{labels.get('app')}", []).append(pod)
    return found


def read_service(document: Document, config_map: Document | None, beside: Mapping[str, Any] = _NOTHING) -> Service:
    """One service; what cannot be read is said, not raised: one broken object must not hide the others."""
    problem, state, rollout = "", State(), None
    try:
        state = release.parse(config_map)
        rollout = records.find(state)
    except KanaryError as error:
        problem = error.message
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"The ConfigMap is damaged: {error!r}"
    try:
        status = service_status({**document, **beside}, state)
    except KanaryError as error:
        status, problem = _bare(document), error.message
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        status, problem = _bare(document), f"Its status is not what KServe writes: {error!r}"
    created = moment((document.get("metadata") or {}).get("creationTimestamp"))
    return Service(status, state, document, created, _canary_since(status, state), problem, rollout, beside)


def moment(text: Any) -> datetime | None:
    """A point in time of Kubernetes (RFC 3339); None where there is none."""
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _canary_since(status: ServiceStatus, state: State) -> datetime | None:
    if not status.canary:
        return None
    found = status.revision(status.canary)
    digest = found.digest if found else ""
    mine = [entry for entry in state.history if entry.revision == status.canary or (digest and entry.digest == digest)]
    return moment(mine[-1].when) if mine else moment(status.since)


def _bare(document: Document) -> ServiceStatus:
    metadata = document.get("metadata") or {}
    return ServiceStatus(
        name=str(metadata.get("name") or ""),
        namespace=str(metadata.get("namespace") or ""),
        mode="?",
        url="",
        requested=None,
        stable="",
        canary="",
        canary_ready=False,
        revisions=(),
        created="",
        latest_ready="",
        previous="",
        ready=False,
        resource_version=str(metadata.get("resourceVersion") or ""),
    )


def _version(config_map: Document | None) -> str:
    return str(((config_map or {}).get("metadata") or {}).get("resourceVersion") or "")
