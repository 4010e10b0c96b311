"""What the gateway is told: services, their revisions, addresses and weights.

Plain data with its checks; nothing here knows of Envoy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sandbox.errors import InvalidSpec

# Reserved for loopback (RFC 6761): curl and browsers resolve any name below it to 127.0.0.1 without DNS.
DOMAIN = "localhost"

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_ADDRESS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")


@dataclass(frozen=True)
class Revision:
    """One revision of a service. `weight` is its percentage of the service's traffic.

    Not `ready` means no endpoint: requests that its weight, tags or name draw fail with 503, and count as its own.
    `tags` give it hosts of its own: `<tag>-<host>` for every host of the service; `hosts` are further ones.
    `timeout_s`, where it is given, goes before the service's: how long a response of this revision may take. `http2`:
    its server speaks HTTP/2 without TLS (a container port named h2c), as gRPC does. `metrics_port` is where its numbers
    are, 0: on its port. `concurrency`, where it is not 0: how many requests its server gets at once; more of them wait.
    `stand_in`: the port is not its server's but of somebody who holds requests for it.
    """

    name: str
    port: int
    address: str = "127.0.0.1"
    ready: bool = True
    weight: int = 0
    tags: tuple[str, ...] = ()
    timeout_s: float | None = None
    http2: bool = False
    metrics_port: int = 0
    concurrency: int = 0
    stand_in: bool = False
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Service:
    """One InferenceService. The weights of its revisions sum to 100, or to 0: then it answers 503.

    It answers to `<name>.<namespace>.localhost`, to `hosts` besides, and below the path `/serving/<namespace>/<name>/`;
    with `component` it is that part of the service which lies behind another one, and answers to `hosts` alone.
    A revision left out of the description is drained: it gets no new request, and goes once it has none in flight.
    """

    namespace: str
    name: str
    revisions: tuple[Revision, ...] = ()
    hosts: tuple[str, ...] = ()
    timeout_s: float = 60.0
    component: str = ""

    @property
    def key(self) -> str:
        """`namespace/name`, with `/component` for one."""
        return "/".join(part for part in (self.namespace, self.name, self.component) if part)


@dataclass(frozen=True)
class RevisionKey:
    """Which revision of which service; as text it is the name of its Envoy cluster."""

    namespace: str
    service: str
    revision: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}/{self.revision}"

    @staticmethod
    def names(text: str) -> bool:
        """Whether `text` is the text of a key."""
        return text.count("/") == 2

    @classmethod
    def parse(cls, text: str) -> RevisionKey:
        """The inverse of `str`; ValueError when `text` has not three parts."""
        namespace, service, revision = text.split("/")
        return cls(namespace, service, revision)


def revision_key(service: Service, revision: Revision) -> RevisionKey:
    """The key of one of `service`'s revisions."""
    return RevisionKey(service.namespace, service.name, revision.name)


def host(namespace: str, name: str, tag: str = "") -> str:
    """The host that a service, or the revision that `tag` names, always answers to."""
    return f"{label(name, tag)}.{namespace}.{DOMAIN}"


def path(namespace: str, name: str, tag: str = "") -> str:
    """The path prefix that stands for that host where a client cannot set one; no slash at its end."""
    return f"/serving/{namespace}/{label(name, tag)}"


def label(name: str, tag: str = "") -> str:
    """`name`, or `<tag>-<name>` as Knative spells it."""
    return f"{tag}-{name}" if tag else name


def check(services: Iterable[Service]) -> None:
    """Raise InvalidSpec, with the path to the fault, for anything that Envoy would refuse or misread."""
    seen: set[str] = set()
    for service in services:
        where = f"services[{service.key}]"
        _require(service.key not in seen, where, "described twice")
        seen.add(service.key)
        for what, value in (("namespace", service.namespace), ("name", service.name)):
            _require(bool(_LABEL.fullmatch(value)), f"{where}.{what}", f"{value!r} is not a DNS label")
        for name in service.hosts:
            _require(bool(_HOST.fullmatch(name)), f"{where}.hosts", f"{name!r} is not a lower-case host name")
        _require(service.timeout_s > 0, f"{where}.timeout_s", f"{service.timeout_s} is not above 0")
        _check_revisions(service, where)


def _check_revisions(service: Service, where: str) -> None:
    names = [revision.name for revision in service.revisions]
    _require(len(set(names)) == len(names), f"{where}.revisions", "a name occurs twice")
    tags = [tag for revision in service.revisions for tag in revision.tags]
    _require(len(set(tags)) == len(tags), f"{where}.revisions", "a tag occurs twice")
    for revision in service.revisions:
        at = f"{where}.revisions[{revision.name}]"
        for text in (revision.name, *revision.tags):
            _require(bool(_LABEL.fullmatch(text)), at, f"{text!r} is not a DNS label")
        for name in revision.hosts:
            _require(bool(_HOST.fullmatch(name)), f"{at}.hosts", f"{name!r} is not a lower-case host name")
        _require(bool(_ADDRESS.fullmatch(revision.address)), f"{at}.address", f"{revision.address!r} is not IPv4")
        limited = revision.timeout_s is None or revision.timeout_s > 0
        _require(limited, f"{at}.timeout_s", f"{revision.timeout_s} is not above 0")
        _require(revision.concurrency >= 0, f"{at}.concurrency", f"{revision.concurrency} is below 0")
        lowest = 1 if revision.ready else 0
        _require(lowest <= revision.port <= 65535, f"{at}.port", f"{revision.port} is not a port")
        _require(0 <= revision.weight <= 100, f"{at}.weight", f"{revision.weight} is not within 0 and 100")
    total = sum(revision.weight for revision in service.revisions)
    _require(total in (0, 100), f"{where}.revisions", f"the weights sum to {total}, not to 100 or 0")


def _require(condition: bool, where: str, message: str) -> None:
    if not condition:
        raise InvalidSpec(message, where=where)
