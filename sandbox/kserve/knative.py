"""What Knative Serving would hold for one InferenceService: Service, Configuration, Revisions and Route in one record.

Frozen data and pure transitions; names, defaults and order are those of Knative 0.48.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Document = dict[str, Any]

# Knative's own default, and the annotation that changes it.
PROGRESS_DEADLINE_S = 600.0
PROGRESS_DEADLINE_ANNOTATION = "serving.knative.dev/progress-deadline"
_LONGEST_NAME = 63


@dataclass(frozen=True)
class Target:
    """A share of a service's traffic. `latest`: the latest ready revision, whose name `revision` is once resolved."""

    percent: int
    latest: bool
    revision: str = ""
    tag: str = ""


@dataclass(frozen=True)
class Template:
    """The pod template of a predictor, as KServe would write it into the Knative Service.

    `digest` is over all that makes a new revision when it changes; `preload` names the modules that its runtime's
    servers are forked from, and makes none.
    """

    document: Document
    digest: str
    preload: tuple[str, ...] = ()

    @property
    def http2(self) -> bool:
        """Whether its server speaks HTTP/2 without TLS: Knative is told so by the name of the container's port."""
        ports = self.document["spec"]["containers"][0].get("ports") or [{}]
        return bool(ports[0].get("name") == "h2c")


@dataclass(frozen=True)
class Failure:
    """How a revision's server ended: exit status (128 + n for signal n, as in a container) and its last words.

    `loading` marks the storage initializer's failures: the server was never started.
    """

    exit_code: int
    message: str
    loading: bool = False


@dataclass(frozen=True)
class Server:
    """What the model server host says of one revision's server."""

    port: int
    state: str
    ready: bool
    restarts: int = 0
    failure: Failure | None = None
    metrics_port: int = 0

    @property
    def running(self) -> bool:
        """Whether there is a server at all, ready or not; one that is scaled to zero is none."""
        return self.state not in ("stopped", "stopping")


@dataclass(frozen=True)
class Revision:
    """One immutable snapshot of the template. `ready` stays once it is set; `failed` says why it never got there.

    `idle_since` is when the last reference to it went, in seconds of the epoch; None while there is one.
    """

    name: str
    template: Template
    created: float
    ready: bool = False
    failed: str = ""
    idle_since: float | None = None

    @property
    def deadline(self) -> float:
        """When Knative gives up waiting for it, in seconds of the epoch."""
        wanted = self.template.document["annotations"].get(PROGRESS_DEADLINE_ANNOTATION, "")
        return self.created + (seconds(wanted) or PROGRESS_DEADLINE_S)


@dataclass(frozen=True)
class Knative:
    """The whole record. `traffic` is what the spec asks for, `routed` what the gateway obeys."""

    name: str
    generation: int = 0
    digest: str = ""
    traffic: tuple[Target, ...] = ()
    revisions: tuple[Revision, ...] = ()
    latest_created: str = ""
    latest_ready: str = ""
    routed: tuple[Target, ...] = ()
    # The Service controller has seen the generation; Configuration and Route have not yet.
    observed: int = 0
    configuration_behind: bool = False
    route_behind: bool = False
    created_count: int = 0

    def revision(self, name: str) -> Revision | None:
        """The revision of that name."""
        return next((revision for revision in self.revisions if revision.name == name), None)


# The model servers of one service by revision; a revision that is not in it has none yet.
Servers = Mapping[str, Server]
# What there is of one InferenceService: a Knative Service for each component, the predictor's first.
Components = Mapping[str, Knative]


def answers(servers: Servers, revision: str) -> bool:
    """Whether that revision's server is ready now."""
    server = servers.get(revision)
    return server is not None and server.ready


def pod_name(revision: Revision, uid: str) -> str:
    """The name of the pod that stands for a revision's server; `uid` is the InferenceService's."""
    return f"{revision.name}-deployment-{revision.template.digest[:10]}-{uid.replace('-', '')[:5]}"


def update_spec(knative: Knative, template: Template, traffic: tuple[Target, ...]) -> Knative:
    """The record after KServe has written `template` and `traffic` into the Knative Service."""
    new_template = template.digest != knative.digest
    new_traffic = traffic != knative.traffic
    if not (new_template or new_traffic):
        return knative
    return replace(
        knative,
        generation=knative.generation + 1,
        observed=knative.generation + 1,
        digest=template.digest,
        traffic=traffic,
        configuration_behind=knative.configuration_behind or new_template,
        route_behind=knative.route_behind or new_traffic,
    )


def settle(knative: Knative, template: Template, servers: Servers, now: float) -> Knative:
    """The record after Configuration, Revisions and Route have caught up with the spec and with the servers."""
    if knative.configuration_behind:
        knative = _create_revision(knative, template, now)
    knative = replace(knative, configuration_behind=False, route_behind=False)
    revisions = tuple(_observe(revision, servers, now) for revision in knative.revisions)
    names = [revision.name for revision in revisions if revision.ready]
    latest_ready = max([*names, knative.latest_ready])
    return replace(knative, revisions=revisions, latest_ready=latest_ready)


def resolve(knative: Knative) -> tuple[Target, ...]:
    """The spec's traffic with names for `latest`; empty while a target has no revision that was ever ready."""
    resolved = tuple(
        replace(target, revision=knative.latest_ready) if target.latest else target for target in knative.traffic
    )
    for target in resolved:
        revision = knative.revision(target.revision)
        if revision is None or not revision.ready:
            return ()
    return resolved


def route(knative: Knative, servers: Servers) -> tuple[Target, ...]:
    """What the gateway should obey: the spec's traffic once all it leads to answers, until then what it obeys already.

    Only the way into the route asks for a ready server. One that is killed keeps its share while it is restarted: its
    failures are its own, and whoever judges a canary must see them.
    """
    wanted = resolve(knative)
    routed = {target.revision for target in knative.routed}
    unready = [
        target.revision
        for target in wanted
        if (target.percent or target.tag) and target.revision not in routed and not answers(servers, target.revision)
    ]
    return knative.routed if unready or not wanted else wanted


def referenced(knative: Knative) -> frozenset[str]:
    """Names of the revisions that need a server: what is routed, what the spec leads to, what was created last."""
    names = {target.revision for target in (*knative.routed, *resolve(knative), *knative.traffic)}
    names |= {knative.latest_created}
    if any(target.latest for target in knative.traffic):
        names |= {knative.latest_ready}
    return frozenset(names - {""})


def note_idle(knative: Knative, now: float) -> Knative:
    """The record with the time at which each revision lost its last reference."""
    active = referenced(knative)
    marked = tuple(_mark(revision, revision.name in active, now) for revision in knative.revisions)
    return replace(knative, revisions=marked)


def missing(knative: Knative) -> str:
    """The revision that the spec's traffic names and that is no more; empty where there is none."""
    named = (target.revision for target in knative.traffic if not target.latest)
    return next((name for name in named if knative.revision(name) is None), "")


def child_name(parent: str, suffix: str) -> str:
    """The name of what belongs to `parent`, shortened as Knative does it. Source: kmeta/names.go in knative.dev/pkg."""
    if len(parent) + len(suffix) <= _LONGEST_NAME:
        return parent + suffix
    digest = hashlib.md5(parent.encode(), usedforsecurity=False).hexdigest()
    return f"{parent[: _LONGEST_NAME - len(digest) - len(suffix)]}{digest}{suffix}"


def seconds(duration: str) -> float:
    """A Go duration of whole or decimal seconds, minutes and hours ("30s", "1m30s"); 0 where it is none."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    total, number = 0.0, ""
    for letter in duration:
        if letter in units and number:
            total, number = total + float(number) * units[letter], ""
        elif letter.isdigit() or letter == ".":
            number += letter
        else:
            return 0.0
    return 0.0 if number else total


def _create_revision(knative: Knative, template: Template, now: float) -> Knative:
    count = knative.created_count + 1
    name = child_name(knative.name, f"-{count:05d}")
    revision = Revision(name, template, created=now)
    return replace(knative, revisions=(*knative.revisions, revision), latest_created=name, created_count=count)


def _observe(revision: Revision, servers: Servers, now: float) -> Revision:
    server = servers.get(revision.name)
    if server is not None and server.ready:
        return replace(revision, ready=True, failed="")
    if revision.ready or revision.failed or revision.idle_since is not None or now < revision.deadline:
        return revision
    failure = server.failure if server is not None else None
    if failure is not None:
        return replace(revision, failed=f"Container failed with: {failure.message}")
    return replace(revision, failed=f'ReplicaSet "{revision.name}-deployment" has timed out progressing.')


def _mark(revision: Revision, active: bool, now: float) -> Revision:
    if active:
        return replace(revision, idle_since=None)
    return revision if revision.idle_since is not None else replace(revision, idle_since=now)
