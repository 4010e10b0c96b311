"""The kinds that the API serves: names, scope, subresources, selectable fields. Adding a kind is adding a line.

Kinds of Knative, Deployments and the like have an open schema: the KServe controller writes them for people to read.
"""

from __future__ import annotations

from dataclasses import dataclass

KSERVE = "serving.kserve.io"
METADATA_FIELDS = ("metadata.name", "metadata.namespace")
INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
EVENT_FIELDS = (*(f"involvedObject.{f}" for f in INVOLVED), "reason", "reportingComponent", "source", "type")
VIEW_FIELDS = (*(f"regarding.{f}" for f in INVOLVED), "reason", "reportingController", "type")


@dataclass(frozen=True)
class Resource:
    """One kind in one version. `custom` kinds behave as those of a CRD do, the others as built-in ones.

    `definition` names its schema; `generation`: counted; `status`: has a /status; `stored_as`: the id under which its
    objects lie, if it is another resource's view of them; `unserved`: admission refuses it; `put_creates`: a PUT makes
    what is not there.
    """

    group: str
    version: str
    plural: str
    kind: str
    definition: str
    short: tuple[str, ...] = ()
    namespaced: bool = True
    custom: bool = False
    status: bool = False
    generation: bool = False
    fields: tuple[str, ...] = METADATA_FIELDS
    verbs: tuple[str, ...] = ()
    returns_deleted: bool = False
    log: bool = False
    stored_as: str = ""
    hash: str = ""
    categories: tuple[str, ...] = ()
    unserved: bool = False
    put_creates: bool = False

    @property
    def unconditional(self) -> bool:
        """Whether an update may leave out the version that it is of."""
        return not self.custom and self.kind != "Lease"

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def id(self) -> str:
        """The name under which the store keeps the objects."""
        return self.stored_as or (f"{self.plural}.{self.group}" if self.group else self.plural)

    @property
    def all_verbs(self) -> tuple[str, ...]:
        if self.verbs:
            return self.verbs
        if self.custom:
            return ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
        return ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


def _custom(group: str, version: str, plural: str, kind: str, definition: str = "Open", **more: object) -> Resource:
    return Resource(group, version, plural, kind, definition, custom=True, generation=True, **more)  # type: ignore[arg-type]


def _unserved(plural: str, kind: str, **more: object) -> Resource:
    """A kind of KServe's that nothing in the sandbox acts on: it is listed, and admission refuses it by name."""
    return _custom(KSERVE, "v1alpha1", plural, kind, f"V1alpha1{kind}", unserved=True, **more)


KNATIVE = "serving.knative.dev"
NO_COLLECTION_DELETE = ("create", "delete", "get", "list", "patch", "update", "watch")

RESOURCES: tuple[Resource, ...] = (
    Resource("", "v1", "configmaps", "ConfigMap", "V1ConfigMap", short=("cm",), hash="qFsyl6wFWjQ="),
    Resource(
        "",
        "v1",
        "events",
        "Event",
        "CoreV1Event",
        short=("ev",),
        hash="r2yiGXH7wu8=",
        fields=METADATA_FIELDS + EVENT_FIELDS,
        put_creates=True,
    ),
    Resource(
        "",
        "v1",
        "namespaces",
        "Namespace",
        "V1Namespace",
        short=("ns",),
        namespaced=False,
        status=True,
        fields=("metadata.name", "name", "status.phase"),
        verbs=NO_COLLECTION_DELETE,
        returns_deleted=True,
        hash="Q3oi5N2YM8M=",
    ),
    Resource(
        "",
        "v1",
        "pods",
        "Pod",
        "V1Pod",
        short=("po",),
        categories=("all",),
        status=True,
        log=True,
        returns_deleted=True,
        fields=(*METADATA_FIELDS, "spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase"),
        hash="xPOwRZ+Yhw8=",
    ),
    Resource("", "v1", "secrets", "Secret", "V1Secret", fields=(*METADATA_FIELDS, "type"), hash="S6u1pOWzb84="),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", "V1ServiceAccount", short=("sa",), hash="pbx9ZvyFpBE="),
    Resource(
        "",
        "v1",
        "services",
        "Service",
        "V1Service",
        short=("svc",),
        categories=("all",),
        status=True,
        returns_deleted=True,
        hash="0/CO1lhkEBI=",
    ),
    Resource(
        "apps",
        "v1",
        "deployments",
        "Deployment",
        "V1Deployment",
        short=("deploy",),
        categories=("all",),
        status=True,
        generation=True,
        hash="8aSe+NMegvE=",
    ),
    Resource(
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        "V2HorizontalPodAutoscaler",
        short=("hpa",),
        categories=("all",),
        status=True,
    ),
    Resource("coordination.k8s.io", "v1", "leases", "Lease", "V1Lease", put_creates=True, hash="/sY7hl8ol1U="),
    Resource(
        "events.k8s.io",
        "v1",
        "events",
        "Event",
        "EventsV1Event",
        short=("ev",),
        stored_as="events",
        hash="r2yiGXH7wu8=",
        fields=METADATA_FIELDS + VIEW_FIELDS,
        put_creates=True,
    ),
    _custom(
        "gateway.networking.k8s.io",
        "v1",
        "httproutes",
        "HTTPRoute",
        "HTTPRoute",
        categories=("gateway-api",),
        status=True,
    ),
    _custom(
        KNATIVE,
        "v1",
        "services",
        "Service",
        short=("kservice", "ksvc"),
        categories=("all", "knative", "serving"),
        status=True,
    ),
    _custom(
        KNATIVE, "v1", "revisions", "Revision", short=("rev",), categories=("all", "knative", "serving"), status=True
    ),
    _custom(
        KSERVE,
        "v1beta1",
        "inferenceservices",
        "InferenceService",
        "V1beta1InferenceService",
        short=("isvc",),
        status=True,
        hash="O82/cZUJjXE=",
    ),
    _custom(KSERVE, "v1alpha1", "servingruntimes", "ServingRuntime", "V1alpha1ServingRuntime"),
    _custom(
        KSERVE,
        "v1alpha1",
        "clusterservingruntimes",
        "ClusterServingRuntime",
        "V1alpha1ClusterServingRuntime",
        namespaced=False,
    ),
    _unserved("clusterstoragecontainers", "ClusterStorageContainer", namespaced=False),
    _unserved("inferencegraphs", "InferenceGraph", short=("ig",), status=True),
    _unserved("trainedmodels", "TrainedModel", short=("tm",), status=True),
)

# Higher versions of a group come first, as discovery lists them.
GROUP_VERSIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("events.k8s.io", ("v1",)),
    ("apps", ("v1",)),
    ("authentication.k8s.io", ("v1",)),
    ("authorization.k8s.io", ("v1",)),
    ("autoscaling", ("v2",)),
    ("coordination.k8s.io", ("v1",)),
    ("gateway.networking.k8s.io", ("v1",)),
    (KNATIVE, ("v1",)),
    (KSERVE, ("v1beta1", "v1alpha1")),
)

_REVIEWED = ("authentication.k8s.io", "authorization.k8s.io")
_BY_PATH = {(r.group, r.version, r.plural): r for r in RESOURCES}
_BY_ID = {r.id: r for r in RESOURCES if not r.stored_as}


def find(group: str, version: str, plural: str) -> Resource | None:
    return _BY_PATH.get((group, version, plural))


def is_builtin(group: str) -> bool:
    """Whether the group is one of Kubernetes' own, which answers unknown resources otherwise than a CRD's group."""
    return group == "" or any(r.group == group and not r.custom for r in RESOURCES) or group in _REVIEWED


def by_id(identifier: str) -> Resource:
    """The resource whose objects the store keeps under this id. Raises KeyError."""
    return _BY_ID[identifier]


def of_version(group: str, version: str) -> list[Resource]:
    return [resource for resource in RESOURCES if (resource.group, resource.version) == (group, version)]


def by_kind(api_version: str, kind: str) -> Resource | None:
    """The resource that an owner reference or a manifest names."""
    return next((r for r in RESOURCES if r.kind == kind and r.api_version == api_version), None)


NAMESPACES = _BY_ID["namespaces"]
EVENTS = _BY_ID["events"]
