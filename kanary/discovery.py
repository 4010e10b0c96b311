"""Where Kubeflow Pipelines and Prometheus are in a cluster, where nobody says: behind its API server's service proxy.

Only reads. The proxy passes no Authorization on (kubernetes#38775): it leads to a KFP without users of its own, and to
a Prometheus that asks for no login.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from kanary import kfp, snapshot_metrics
from kanary import kubernetes as k8s
from kanary.api import Client, Server
from kanary.config import Config
from kanary.errors import ApiError, ConfigError, Unreachable
from kanary.kubeconfig import Access
from kanary.kubernetes import Act, Document
from kanary.operations import Request
from kanary.rollout import profiles
from kanary.text import one_line, shortened

NO_PROMETHEUS = "No Prometheus is set, and no cluster is known to look for one in."
NAME_PROMETHEUS = "Name one with --prometheus or KANARY_PROMETHEUS_URL."
_PIPELINES = ("kubeflow", "ml-pipeline:8888")
# Labels of Prometheus' Services: kube-prometheus-stack's chart, kube-prometheus, the community's chart, Istio's add-on.
# The operator's own comes last: it stands before all Prometheuses of its namespace.
_LABELS = (
    "app=kube-prometheus-stack-prometheus",
    "app.kubernetes.io/name=prometheus",
    "app=prometheus",
    "operated-prometheus=true",
)
# Where whoever may not list Services looks.
_USUAL = (
    ("monitoring", "kube-prometheus-stack-prometheus:9090"),
    ("monitoring", "prometheus-k8s:9090"),
    ("monitoring", "prometheus-server:80"),
    ("monitoring", "prometheus-operated:9090"),
    ("prometheus", "kube-prometheus-stack-prometheus:9090"),
    ("prometheus", "prometheus-server:80"),
    ("istio-system", "prometheus:9090"),
    ("kubeflow", "prometheus:9090"),
)
_PORTS = ("http-web", "web", "http", "http-prometheus", "prometheus")
_MOST = 12  # services that are asked


@dataclass(frozen=True)
class Found:
    """One service, and a sentence on how it was found. Without `path` none can be used; then it says why not."""

    said: str
    path: str = ""
    place: str = ""  # namespace/service


def pipelines() -> Act[Found]:
    """Kubeflow Pipelines: `ml-pipeline` in `kubeflow`, else wherever a service has that label."""
    (answer,) = yield k8s.Together((_health(*_PIPELINES),))
    places = [_PIPELINES]
    if isinstance(answer, ApiError) and answer.status == 404:
        (listed,) = yield k8s.Together((k8s.services("app=ml-pipeline"),))
        others = [place for place in _services([listed], ("http",), 8888) if place[1].startswith("ml-pipeline:")]
        if others:
            places = others[:1]
            (answer,) = yield k8s.Together((_health(*places[0]),))
    namespace, service = places[0]
    place = f"{namespace}/{service.partition(':')[0]}"
    if isinstance(answer, ApiError):
        if answer.status == 404:
            return Found(f"The cluster has no service {place}.")
        return Found(_refused(place, answer))
    if answer.get("multi_user"):
        return Found(
            f"{place} is there and has users of its own, and the API server's proxy passes no login on. Name its "
            "address with --endpoint, and log in with token_file, token_account or cookie_file."
        )
    return Found(f"found as {place}, through the API server's service proxy", k8s.proxied(namespace, service), place)


def prometheus() -> Act[Found]:
    """A Prometheus by its labels, else in the usual places; of several that answer one that counts requests."""
    lists = yield k8s.Together(tuple(k8s.services(selector) for selector in _LABELS))
    places = list(_services(lists, _PORTS, 9090))[:_MOST] or list(_USUAL)
    answers = yield k8s.Together(tuple(_query(place, "vector(1)") for place in places))
    good = [place for place, answer in zip(places, answers, strict=True) if _is_result(answer)]
    if not good:
        return Found(_without_prometheus(places, answers))
    best = good[0]
    if len(good) > 1:
        probes = [p.wide.probe for p in profiles.ALL if p.wide is not None and not p.blind]
        query = " or ".join(f"max({profiles.spanned(probe, {}, 300)})" for probe in probes)
        counted = yield k8s.Together(tuple(_query(place, query) for place in good))
        best = next((place for place, answer in zip(good, counted, strict=True) if _is_result(answer, True)), best)
    place = f"{best[0]}/{best[1].split(':')[-2]}"
    more = f"; {len(good) - 1} more answer, --prometheus names one" if len(good) > 1 else ""
    said = f"found as {place}, through the API server's service proxy{more}"
    return Found(said, k8s.proxied(*best), place)


def through(server: Server, entered: Access, found: Found) -> Server:
    """The server behind the API server's proxy, entered as the API server is: no login of its own is sent."""
    return replace(
        server,
        url=entered.url + found.path,
        access=entered,
        place=found.place,
        found=found.said,
        hint=f"It was {found.said}; `kanary info` says more.",
        token_file=None,
        cookie_file=None,
        cookie="",
        token=None,
        ca_file=None,
    )


def wanted(config: Config, key: str) -> bool:
    """Whether nobody has said where it is: `key` is the setting of its address."""
    return config.sources[key].kind == "default"


def pipelines_server(server: Server, entered: Access, found: Found) -> Server:
    """Kubeflow Pipelines as found, else at its default address with what was not found in the cluster as its hint."""
    return through(server, entered, found) if found.path else replace(server, hint=f"{found.said} {server.hint}")


def prometheus_server(server: Server, entered: Access, found: Found) -> Server:
    """Prometheus as found. Raises ApiError where none is."""
    if not found.path:
        raise ApiError(found.said, NAME_PROMETHEUS)
    return through(server, entered, found)


def kfp_client(config: Config) -> Client:
    """A client of Kubeflow Pipelines: where the settings say, else as found in the cluster, else at the default."""
    server = kfp.server(config)
    if wanted(config, "kfp_endpoint"):
        try:
            api = k8s.connect(config)
        except ConfigError:
            return Client(server)
        with api:
            try:
                found = api.call(pipelines())
            except ConfigError as error:  # the cluster's credentials
                found = Found(error.message)
            server = pipelines_server(server, api.access, found)
    return Client(server)


def prometheus_client(config: Config) -> Client:
    """A client of the settings' Prometheus, else of one found in the cluster. Raises ConfigError, ApiError: none."""
    server = snapshot_metrics.server(config)
    if wanted(config, "prometheus_url"):
        try:
            api = k8s.connect(config)
        except ConfigError as error:
            raise ConfigError(NO_PROMETHEUS, NAME_PROMETHEUS) from error
        with api:
            server = prometheus_server(server, api.access, api.call(prometheus()))
    return Client(server)


def _health(namespace: str, service: str) -> Request:
    return Request("GET", f"{k8s.proxied(namespace, service)}{kfp.API}/healthz")


def _query(place: tuple[str, str], query: str) -> Request:
    return Request("GET", f"{k8s.proxied(*place)}/api/v1/query", {"query": query})


def _is_result(answer: Document | ApiError, filled: bool = False) -> bool:
    data = None if isinstance(answer, ApiError) else answer.get("data")
    result = data.get("result") if isinstance(data, dict) else None
    return isinstance(result, list) and (bool(result) or not filled)


def _services(lists: Iterable[Document | ApiError], ports: tuple[str, ...], usual: int) -> Iterable[tuple[str, str]]:
    """Namespace and [SCHEME:]NAME:PORT of each Service once, in the lists' order."""
    seen = set()
    for listed in lists:
        for item in [] if isinstance(listed, ApiError) else listed.get("items") or []:
            metadata, spec = item.get("metadata") or {}, item.get("spec") or {}
            namespace, name = str(metadata.get("namespace") or ""), str(metadata.get("name") or "")
            port = _port(spec.get("ports") or [], ports, usual)
            if port and (namespace, name) not in seen:
                seen.add((namespace, name))
                yield namespace, f"{port[0]}{name}:{port[1]}"


def _port(ports: list[Any], names: tuple[str, ...], usual: int) -> tuple[str, int] | None:
    """The scheme (`https:` or nothing) and number of the port that speaks HTTP."""
    known = [port for port in ports if isinstance(port, dict) and isinstance(port.get("port"), int)]
    known.sort(key=lambda p: (p["port"] != usual, p.get("name") not in names))
    if not known:
        return None
    secure = "https" in (known[0].get("name"), known[0].get("appProtocol"))
    return ("https:" if secure else ""), known[0]["port"]


def _refused(place: str, error: ApiError) -> str:
    message = one_line(error.message)
    if isinstance(error, Unreachable):
        return shortened(message, 300)
    # What the API server says itself, without the long path that was asked for.
    said = shortened(message.partition(f" with {error.status}")[2].lstrip(": ") or message, 300)
    if error.status in (401, 403):
        return f"Whether {place} is there is not known: this user may not use the API server's proxy ({said})."
    return f"{place} does not answer through the API server's proxy ({said})."


def _without_prometheus(places: list[tuple[str, str]], answers: list[Any]) -> str:
    errors = [(place, answer) for place, answer in zip(places, answers, strict=True) if isinstance(answer, ApiError)]
    told = next(((place, error) for place, error in errors if error.status != 404), None)
    if told is not None:
        (namespace, service), error = told
        return _refused(f"{namespace}/{service.split(':')[-2]}", error)
    return "No Prometheus was found in the cluster: no service has its labels, or stands in a usual place."
