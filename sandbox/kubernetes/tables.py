"""Tables, as `kubectl get` asks for them: the columns of each kind and how its cells are made."""

from __future__ import annotations

import calendar
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes import jsonpath
from sandbox.kubernetes.registry import KNATIVE, KSERVE, Resource

Body = dict[str, Any]
Cell = Callable[[Body, float], Any]

NAME_TEXT = (
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a "
    "client to request the generation of an appropriate name automatically. Name is primarily intended for creation "
    "idempotence and configuration definition. Cannot be updated. More info: "
    "https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
)
AGE_TEXT = (
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed "
    "to be set in happens-before order across separate operations. Clients may not set this value. It is represented "
    "in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)
DATA_TEXT = (
    "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. Values "
    "with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the "
    "keys in the BinaryData field, this is enforced during validation process."
)
SECRET_DATA_TEXT = (
    "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The serialized "
    "form of the secret data is a base64 encoded string, representing the arbitrary (possibly non-string) data value "
    "here. Described in https://tools.ietf.org/html/rfc4648#section-4"
)
SECRET_TYPE_TEXT = (
    "Used to facilitate programmatic handling of secret data. More info: "
    "https://kubernetes.io/docs/concepts/configuration/secret/#secret-types"
)
HOLDER_TEXT = (
    "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is used, "
    "the holder identity must be equal to the elected LeaseCandidate.metadata.name."
)
SUBOBJECT_TEXT = (
    "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go "
    "field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a "
    'container within a pod, this would take on a value like: "spec.containers{name}" (where "name" refers to the name '
    'of the container that triggered the event) or if no container name is specified "spec.containers[2]" (container '
    "with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an "
    "object."
)


@dataclass(frozen=True)
class Column:
    """One column. `priority` 1: shown with -o wide only. `cell` takes the object and the time now."""

    name: str
    cell: Cell
    description: str = ""
    type: str = "string"
    format: str = ""
    priority: int = 0

    def definition(self) -> Body:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


def columns(resource: Resource) -> tuple[Column, ...]:
    """The columns of a kind; name and age where it has none of its own."""
    paths = PRINTED.get((resource.group, resource.plural))
    if paths is not None:
        return (NAME, *(_printed(name, path, kind) for name, path, kind in paths), *_printed_age(paths))
    return BUILTIN.get(resource.id, (NAME, AGE))


def row(resource: Resource, body: Body, now: float) -> list[Any]:
    return [column.cell(body, now) for column in columns(resource)]


def age(text: str | None, now: float) -> str:
    """How long ago, as kubectl says it."""
    if not text:
        return "<unknown>"
    try:
        then = calendar.timegm(time.strptime(text.partition(".")[0].rstrip("Z"), "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return "<invalid>"
    return human_duration(int(now - then))


def human_duration(seconds: int) -> str:
    """k8s.io/apimachinery duration.HumanDuration."""
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    minutes, hours = seconds // 60, seconds // 3600
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(hours // 24, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{hours // 24}d"
    years, days = hours // 24 // 365, hours // 24 % 365
    return _two(years, "y", days, "d") if years < 8 else f"{years}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def _path(*names: str, default: Any = "") -> Cell:
    def cell(body: Body, now: float) -> Any:
        value: Any = body
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return default if value is None else value

    return cell


def _printed(name: str, path: str, kind: str) -> Column:
    def cell(body: Body, now: float) -> Any:
        value = jsonpath.first(body, path)
        if kind == "date":
            return age(value, now)
        if isinstance(value, list | dict):
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        return str(value) if kind == "string" and value is not None else value

    return Column(name, cell, f"Custom resource definition column (in JSONPath format): {path}", kind)


def _printed_age(paths: tuple[tuple[str, str, str], ...]) -> tuple[Column, ...]:
    return (_printed("Age", ".metadata.creationTimestamp", "date"),) if all(p[0] != "Age" for p in paths) else ()


def _ready(body: Body, now: float) -> str:
    states = (body.get("status") or {}).get("containerStatuses") or []
    wanted = len(body.get("spec", {}).get("containers") or states)
    return f"{sum(bool(state.get('ready')) for state in states)}/{wanted}"


def _restarts(body: Body, now: float) -> str:
    states = (body.get("status") or {}).get("containerStatuses") or []
    return str(sum(state.get("restartCount", 0) for state in states))


def _pod_status(body: Body, now: float) -> str:
    if body["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = body.get("status") or {}
    for state in status.get("containerStatuses") or ():
        for why in ("waiting", "terminated"):
            reason = (state.get("state") or {}).get(why, {}).get("reason")
            if reason:
                return str(reason)
    return str(status.get("reason") or status.get("phase") or "Unknown")


def _deployment_ready(body: Body, now: float) -> str:
    return f"{(body.get('status') or {}).get('readyReplicas', 0)}/{body.get('spec', {}).get('replicas', 1)}"


def _ports(body: Body, now: float) -> str:
    ports = body.get("spec", {}).get("ports") or []
    return ",".join(f"{port.get('port')}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def _event_object(body: Body, now: float) -> str:
    involved = body.get("involvedObject") or {}
    return f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"


def _event_source(body: Body, now: float) -> str:
    source = body.get("source") or {}
    if not any(source.values()):
        source = {"component": body.get("reportingComponent"), "host": body.get("reportingInstance")}
    component = source.get("component") or body.get("reportingComponent") or ""
    return ", ".join(part for part in (component, source.get("host")) if part)


def _first_seen(body: Body, now: float) -> str:
    return age(body.get("firstTimestamp") or body.get("eventTime"), now)


def _last_seen(body: Body, now: float) -> str:
    series = (body.get("series") or {}).get("lastObservedTime")
    return age(series or body.get("lastTimestamp") or body.get("firstTimestamp") or body.get("eventTime"), now)


def _event_count(body: Body, now: float) -> int:
    return int((body.get("series") or {}).get("count") or body.get("count") or 1)


def _data_count(body: Body, now: float) -> int:
    return len(body.get("data") or {}) + len(body.get("binaryData") or {})


NAME = Column("Name", _path("metadata", "name"), NAME_TEXT, format="name")
AGE = Column("Age", lambda body, now: age(body["metadata"].get("creationTimestamp"), now), AGE_TEXT)
STATUS = Column("Status", _path("status", "phase"), "The status of the namespace")

BUILTIN: dict[str, tuple[Column, ...]] = {
    "namespaces": (NAME, STATUS, AGE),
    "configmaps": (NAME, Column("Data", _data_count, DATA_TEXT), AGE),
    "secrets": (
        NAME,
        Column("Type", _path("type"), SECRET_TYPE_TEXT),
        Column("Data", _data_count, SECRET_DATA_TEXT),
        AGE,
    ),
    "serviceaccounts": (NAME, Column("Secrets", lambda body, now: len(body.get("secrets") or ()), type="string"), AGE),
    "leases.coordination.k8s.io": (NAME, Column("Holder", _path("spec", "holderIdentity"), HOLDER_TEXT), AGE),
    "pods": (
        NAME,
        Column("Ready", _ready),
        Column("Status", _pod_status),
        Column("Restarts", _restarts),
        AGE,
        Column("IP", _path("status", "podIP", default="<none>"), priority=1),
        Column("Node", _path("spec", "nodeName", default="<none>"), priority=1),
    ),
    "services": (
        NAME,
        Column("Type", _path("spec", "type", default="ClusterIP")),
        Column("Cluster-IP", _path("spec", "clusterIP", default="<none>")),
        Column("External-IP", _path("spec", "externalName", default="<none>")),
        Column("Port(s)", _ports),
        AGE,
    ),
    "deployments.apps": (
        NAME,
        Column("Ready", _deployment_ready),
        Column("Up-to-date", _path("status", "updatedReplicas", default=0), type="integer"),
        Column("Available", _path("status", "availableReplicas", default=0), type="integer"),
        AGE,
    ),
    "horizontalpodautoscalers.autoscaling": (
        NAME,
        Column("MinPods", _path("spec", "minReplicas", default="<unset>")),
        Column("MaxPods", _path("spec", "maxReplicas", default=0), type="integer"),
        Column("Replicas", _path("status", "currentReplicas", default=0), type="integer"),
        AGE,
    ),
    "events": (
        Column("Last Seen", _last_seen, "The time at which the most recent occurrence of this event was recorded."),
        Column("Type", _path("type"), "Type of this event (Normal, Warning), new types could be added in the future"),
        Column(
            "Reason",
            _path("reason"),
            "This should be a short, machine understandable string that gives the reason for the transition into the "
            "object's current status.",
        ),
        Column("Object", _event_object, "The object that this event is about."),
        Column("Subobject", _path("involvedObject", "fieldPath"), SUBOBJECT_TEXT, priority=1),
        Column(
            "Source",
            _event_source,
            "The component reporting this event. Should be a short machine understandable string.",
            priority=1,
        ),
        Column("Message", _path("message"), "A human-readable description of the status of this operation."),
        Column(
            "First Seen",
            _first_seen,
            "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
            priority=1,
        ),
        Column("Count", _event_count, "The number of times this event has occurred.", priority=1),
        Column("Name", _path("metadata", "name"), NAME_TEXT, format="name", priority=1),
    ),
}

TRAFFIC = ".status.components.predictor.traffic"
READY = ".status.conditions[?(@.type=='Ready')]"
RUNTIME_COLUMNS = (
    ("Disabled", ".spec.disabled", "boolean"),
    ("ModelType", ".spec.supportedModelFormats[*].name", "string"),
    ("Containers", ".spec.containers[*].name", "string"),
)
PRINTED: dict[tuple[str, str], tuple[tuple[str, str, str], ...]] = {
    (KSERVE, "inferenceservices"): (
        ("URL", ".status.url", "string"),
        ("Ready", f"{READY}.status", "string"),
        ("Prev", f"{TRAFFIC}[?(@.tag=='prev')].percent", "integer"),
        ("Latest", f"{TRAFFIC}[?(@.latestRevision==true)].percent", "integer"),
        ("PrevRolledoutRevision", f"{TRAFFIC}[?(@.tag=='prev')].revisionName", "string"),
        ("LatestReadyRevision", f"{TRAFFIC}[?(@.latestRevision==true)].revisionName", "string"),
    ),
    (KSERVE, "servingruntimes"): RUNTIME_COLUMNS,
    (KSERVE, "clusterservingruntimes"): RUNTIME_COLUMNS,
    ("gateway.networking.k8s.io", "httproutes"): (("Hostnames", ".spec.hostnames", "string"),),
    (KNATIVE, "services"): (
        ("URL", ".status.url", "string"),
        ("LatestCreated", ".status.latestCreatedRevisionName", "string"),
        ("LatestReady", ".status.latestReadyRevisionName", "string"),
        ("Ready", f"{READY}.status", "string"),
        ("Reason", f"{READY}.reason", "string"),
    ),
    (KNATIVE, "revisions"): (
        ("Ready", f"{READY}.status", "string"),
        ("Reason", f"{READY}.reason", "string"),
        ("Actual Replicas", ".status.actualReplicas", "integer"),
        ("Desired Replicas", ".status.desiredReplicas", "integer"),
    ),
}
