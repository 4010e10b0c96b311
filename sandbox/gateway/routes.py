"""RDS: which host or header leads to which revision, and with what weight.

A request that leads nowhere gets an answer of the gateway's own, JSON with the reason; never another revision's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sandbox.gateway.clusters import digest
from sandbox.gateway.description import DOMAIN, Revision, Service, host, label, revision_key
from sandbox.gateway.files import Document
from sandbox.gateway.kept import Kept

ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
NAME = "services"

REVISION_HEADER = "kanary-revision"
# Answered by the gateway itself with the version of the routes that its worker obeys.
PROBE_PATH = "/-/routes"
PROBE_HOST = f"gateway.{DOMAIN}"
# A request on which nothing moves for so long is ended, unless its revision may take longer.
STREAM_IDLE_S = 300.0

_ANY = {"prefix": "/"}
# gRPC streams: a body that is collected before it is passed on would never be.
_UNBUFFERED = {
    "envoy.filters.http.buffer": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
        "disabled": True,
    }
}
# The same revision is asked again, never another one, and only for what never reached it: a request that it had begun
# may be what ended it. Long enough, 4 s at the mean, for a killed model server to be back; each pause is random.
_RETRY = {
    "retry_on": "connect-failure,reset-before-request",
    "num_retries": 32,
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
}
_NO_SERVICE = (
    f"no service answers here; ask for http://<service>.<namespace>.{DOMAIN}/ (in the URL or as Host header) "
    "or for the path /serving/<namespace>/<service>/"
)


@dataclass(frozen=True)
class Routing:
    """The routes of all services. `shadowed`: hosts asked for by one service that already lead to another."""

    configuration: Document
    version: str
    shadowed: tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    """One name under which requests come in: a service's own, or that of a tag, or `own` ones, of one revision."""

    service: Service
    tag: str = ""
    revision: Revision | None = None
    own: tuple[str, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        if self.own:
            return self.own
        own = host(self.service.namespace, self.service.name, self.tag)
        others = tuple(label(name, self.tag) for name in self.service.hosts)
        return others if self.service.component else tuple(dict.fromkeys((own, *others)))


def routing(services: Iterable[Service]) -> Routing:
    """The route configuration for `services`, which have been checked."""
    taken = {PROBE_HOST}
    shadowed: list[str] = []
    named: dict[str, tuple[_Entry, tuple[str, ...]]] = {}
    for entry in _entries(sorted(services, key=lambda service: service.key)):
        free = tuple(name for name in entry.hosts if name not in taken)
        shadowed += [name for name in entry.hosts if name in taken]
        taken.update(free)
        if free:
            named[free[0]] = (entry, free)
    built = _KEPT.all(named).values()
    version = digest([part for _, part in built])
    rest = [_answer({"path": PROBE_PATH}, 200, "probe", version), _answer(_ANY, 404, "no-service", _NO_SERVICE)]
    configuration = {
        "@type": ROUTES,
        "name": NAME,
        "virtual_hosts": [*(document for document, _ in built), {"name": "rest", "domains": ["*"], "routes": rest}],
        "request_headers_to_add": [_header("ce-id", "%REQ(X-REQUEST-ID)%", "ADD_IF_ABSENT")],
        "response_headers_to_add": [_header(REVISION_HEADER, "%METADATA(CLUSTER:kanary:revision)%")],
    }
    return Routing(configuration, version, tuple(shadowed))


def _entries(services: list[Service]) -> Iterator[_Entry]:
    """Services before tags: a tag cannot take the name of a service."""
    for service in services:
        yield _Entry(service)
    for service in services:
        for revision in service.revisions:
            for tag in revision.tags:
                yield _Entry(service, tag, revision)
            if revision.hosts:
                yield _Entry(service, "", revision, revision.hosts)


def _virtual_host(name: str, asked: tuple[_Entry, tuple[str, ...]]) -> tuple[Document, str]:
    """The virtual host for an entry and its hosts, and its digest."""
    entry, hosts = asked
    document = {"name": name, "domains": list(hosts), "routes": list(_routes(entry)), "retry_policy": _RETRY}
    if not entry.service.component:
        named = {"kserve-isvc-name": entry.service.name, "kserve-isvc-namespace": entry.service.namespace}
        document["request_headers_to_add"] = [_header(name, value) for name, value in named.items()]
    return document, digest(document)


# Most services are the same from one description to the next.
_KEPT = Kept(_virtual_host)


def _routes(entry: _Entry) -> Iterator[Document]:
    service = entry.service
    if entry.revision is not None:
        yield _to_revision(service, entry.revision, _ANY)
        return
    for revision in service.revisions:
        yield _to_revision(service, revision, _with_header({"string_match": {"exact": revision.name}}))
    wrong = f"has no revision of the name in the header {REVISION_HEADER}"
    yield _refusal(service, _with_header({"present_match": True}), 404, "no-revision", wrong)
    weighted = [revision for revision in service.revisions if revision.weight]
    if not weighted:
        yield _refusal(service, _ANY, 503, "no-ready-revision", "has no revision that is ready to take traffic")
    elif len({_settings(service, revision) for revision in weighted}) == 1:
        clusters = [{"name": str(revision_key(service, revision)), "weight": revision.weight} for revision in weighted]
        yield _route(service, weighted[0], _ANY, {"weighted_clusters": {"clusters": clusters}})
    else:
        yield from _by_fraction(service, weighted)


def _by_fraction(service: Service, weighted: list[Revision]) -> Iterator[Document]:
    """The same split with a route for each revision, where they differ in what only a route can say.

    Envoy draws one number a request and asks route after route whether it is below the route's fraction.
    """
    share = 0
    for revision in weighted[:-1]:
        share += revision.weight
        fraction = {"default_value": {"numerator": share, "denominator": "HUNDRED"}}
        yield _to_revision(service, revision, _ANY | {"runtime_fraction": fraction})
    yield _to_revision(service, weighted[-1], _ANY)


def _with_header(test: Document) -> Document:
    return _ANY | {"headers": [{"name": REVISION_HEADER} | test]}


def _to_revision(service: Service, revision: Revision, match: Document) -> Document:
    return _route(service, revision, match, {"cluster": str(revision_key(service, revision))})


def _settings(service: Service, revision: Revision) -> tuple[float, bool]:
    """What a route says of the revisions that it leads to: how long an answer may take, and whether it is HTTP/2."""
    return revision.timeout_s or service.timeout_s, revision.http2


def _route(service: Service, revision: Revision, match: Document, action: Document) -> Document:
    timeout_s, http2 = _settings(service, revision)
    limits: Document = {"timeout": f"{timeout_s:g}s"}
    if timeout_s > STREAM_IDLE_S:
        limits["idle_timeout"] = f"{timeout_s:g}s"
    made = {"match": match, "route": action | limits, "metadata": _metadata(service)}
    return made | {"typed_per_filter_config": _UNBUFFERED} if http2 else made


def _refusal(service: Service, match: Document, status: int, reason: str, message: str) -> Document:
    return _answer(match, status, reason, f"{service.key} {message}") | {"metadata": _metadata(service)}


def _answer(match: Document, status: int, reason: str, message: str) -> Document:
    """A response of the gateway's own; where it is an error, the listener's local reply format makes JSON of it."""
    return {
        "name": reason,
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": message}},
    }


def _metadata(service: Service) -> Document:
    return {"filter_metadata": {"kanary": {"namespace": service.namespace, "service": service.name}}}


def _header(name: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> Document:
    return {"header": {"key": name, "value": value}, "append_action": action}
