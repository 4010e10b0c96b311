"""One reconcile of one InferenceService, decided but not done: from what is wished for and what was found, what to do.

Pure. The caller brings `routes` into force first, then writes `statuses` in their order, then asks again until nothing
changes; KServe's own order of two reconciles is kept, so that a rollback after a promotion takes both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from sandbox.kserve import knative as kn
from sandbox.kserve import status as st
from sandbox.kserve import story, traffic
from sandbox.kserve.collection import DEFAULTS, Retention, collect
from sandbox.kserve.knative import Components, Document, Knative, Servers, Target, Template
from sandbox.kserve.refusals import refusal
from sandbox.kserve.status import Names
from sandbox.kserve.story import Event

RUN, STOP, KEEP = "run", "stop", "keep"
TAG_ROUTING_ANNOTATION = "serving.kserve.io/enable-tag-routing"


@dataclass(frozen=True)
class Problem:
    """Why a spec is refused. With one of KServe's FailureReasons in `failure` it shows in the model's status, else in
    the component's Ready condition, under `reason`. `event` is what the event says, where that is not the message.
    """

    message: str
    failure: str = ""
    reason: str = "ReconcileFailed"
    event: str = ""


@dataclass(frozen=True)
class Asked:
    """What is asked for one component. Exactly one of `template` and `problem` is set.

    `service` is the name of its Knative Service, `percent` its canaryTrafficPercent.
    """

    service: str
    template: Template | None
    problem: Problem | None = None
    percent: int | None = None


@dataclass(frozen=True)
class Wish:
    """What an InferenceService asks for, by component in KServe's order. `frozen`: nothing, as long as it is ready."""

    name: str
    names: Names
    components: Mapping[str, Asked]
    stopped: bool = False
    frozen: bool = False
    mode: str = "Knative"


@dataclass(frozen=True)
class Decision:
    """What to do: obey `routes` in the gateway, then write `statuses` one after the other, then the events.

    `entry` is the component that the service's own URL leads to, empty while that leads nowhere.
    """

    components: Components
    routes: Mapping[str, tuple[Target, ...]]
    entry: str
    statuses: tuple[Document, ...]
    events: tuple[Event, ...]


def decide(
    wish: Wish,
    status: Document,
    known: Components,
    servers: Servers,
    now: float,
    clock: str,
    retention: Retention = DEFAULTS,
) -> Decision:
    """The next step for `wish`; `clock` is `now` as Kubernetes writes it."""
    if wish.stopped:
        return _stop(status, known, clock, tuple(wish.components))
    steps: dict[str, tuple[Knative | None, ...]] = {}
    refused: tuple[str, Problem] | None = None
    after = {kind: _settled(knative, servers, now) for kind, knative in known.items()}
    for kind, asked in wish.components.items() if not (wish.frozen and st.is_ready(status)) else ():
        problem = _problem(kind, asked, status)
        if problem is not None:
            refused = (kind, problem)
            break
        assert asked.template is not None
        steps[kind] = _reconciled(known.get(kind), asked, asked.template, _targets(kind, asked, status), servers, now)
        after[kind] = steps[kind][-1] or Knative(asked.service)
    after = {kind: collect(kn.note_idle(knative, now), retention, now) for kind, knative in after.items()}
    told: list[Document] = []
    for records in _in_step(steps, after):
        before = told[-1] if told else status
        told.append(st.propagate(before, records, servers, wish.names, clock, whole=refused is None))
    if refused is None:
        return _decision(wish, known, after, status, told, servers, ())
    failed = _refused(told[-1] if told else status, *refused, wish.mode, clock)
    return _decision(wish, known, after, status, [*told[:-1], failed], servers, _warning(status, failed, refused))


def put_in_force(components: Components, routes: Mapping[str, tuple[Target, ...]]) -> Components:
    """The record after the gateway has come to obey `routes`."""
    return {kind: replace(knative, routed=routes.get(kind, knative.routed)) for kind, knative in components.items()}


def wanted_servers(
    known: Components,
    now: float,
    scale_down_s: float,
    draining: frozenset[str],
    asleep: Mapping[str, bool] = MappingProxyType({}),
) -> dict[str, str]:
    """What to do with the server of each revision: RUN, STOP, or KEEP as it is.

    Those `asleep` need none although something leads to them; False where that is not to be stopped yet.

    A revision that nothing leads to any more is stopped `scale_down_s` seconds later, as Knative scales it to zero
    whatever its min-scale says; one that never answered, at once.
    """
    found: dict[str, str] = {}
    for knative in known.values():
        active = kn.referenced(knative)
        for revision in knative.revisions:
            if revision.name in active and revision.name in asleep:
                found[revision.name] = STOP if asleep[revision.name] else KEEP
            elif revision.name in active:
                found[revision.name] = RUN
            elif revision.name in draining:
                found[revision.name] = KEEP
            else:
                idle = now - (revision.idle_since or now)
                found[revision.name] = STOP if idle >= scale_down_s or not revision.ready else KEEP
    return found


def wake_at(known: Components, servers: Servers, scale_down_s: float) -> float | None:
    """When time alone changes something: a progress deadline, or the end of an idle revision's grace."""
    moments = [
        revision.idle_since + scale_down_s
        for knative in known.values()
        for revision in knative.revisions
        if revision.idle_since is not None and (server := servers.get(revision.name)) and server.running
    ]
    for knative in known.values():
        created = knative.revision(knative.latest_created)
        if created is not None and not (created.ready or created.failed):
            moments.append(created.deadline)
    return min(moments, default=None)


def _targets(kind: str, asked: Asked, status: Document) -> tuple[Target, ...]:
    rolled_out = st.component(status, kind).get("latestRolledoutRevision", "")
    annotations = asked.template.document["annotations"] if asked.template is not None else {}
    return traffic.targets(asked.percent, rolled_out, annotations.get(TAG_ROUTING_ANNOTATION) == "true")


def _problem(kind: str, asked: Asked, status: Document) -> Problem | None:
    if asked.problem is not None or asked.template is None:
        return asked.problem
    denied = refusal(asked.service, asked.template, _targets(kind, asked, status))
    if not denied:
        return None
    return Problem(f"fails to reconcile {kind}: fails to reconcile knative service: {denied}")


def _reconciled(
    known: Knative | None,
    asked: Asked,
    template: Template,
    targets: tuple[Target, ...],
    servers: Servers,
    now: float,
) -> tuple[Knative | None, ...]:
    """The records that KServe meets one after the other; None where it has only just made the Knative Service."""
    wanted = kn.update_spec(known or Knative(asked.service), template, targets)
    after = kn.settle(wanted, template, servers, now)
    return (known, wanted, after) if known is not None and wanted != known else (known, after)


def _in_step(
    steps: Mapping[str, tuple[Knative | None, ...]], after: Components
) -> Iterable[Mapping[str, Knative | None]]:
    """What each reconcile meets of every component; the last one meets what there is after the garbage collector."""
    count = max((len(records) for records in steps.values()), default=0)
    for step in range(count - 1):
        yield {kind: records[min(step, len(records) - 1)] for kind, records in steps.items()}
    if count:
        yield {kind: after[kind] for kind in steps}


def _refused(status: Document, kind: str, problem: Problem, mode: str, clock: str) -> Document:
    if problem.failure:
        return st.invalid(status, problem.failure, problem.message, clock, mode)
    return st.refused(status, problem.reason, problem.message, clock, mode, kind)


def _warning(before: Document, after: Document, refused: tuple[str, Problem]) -> tuple[Event, ...]:
    text = refused[1].event or refused[1].message
    return (Event("InternalError", text, warning=True),) if before != after else ()


def _settled(known: Knative, servers: Servers, now: float) -> Knative:
    """What there is goes on as it was, while its spec is refused or no longer there."""
    return kn.settle(known, known.revisions[-1].template, servers, now) if known.revisions else known


def _stop(status: Document, known: Components, clock: str, kinds: Sequence[str]) -> Decision:
    told = st.stopped(status, clock, kinds)
    events = (Event("Stopped", "All servers stopped; revision history is gone"),) if known else ()
    return Decision({}, {}, "", (told,) if told != status else (), events)


def entry(kinds: Sequence[str], routes: Mapping[str, tuple[Target, ...]], status: Document) -> str:
    """The component that the URL of a service with these components leads to: the transformer where there is one.

    One that is added to a service takes over once it is ready; a service that never had a URL waits for it.
    """
    able = [kind for kind in kinds if routes.get(kind)]
    return able[-1] if able and (able[-1] == kinds[-1] or "url" in status) else ""


def _decision(
    wish: Wish,
    known: Components,
    after: Components,
    status: Document,
    told: Iterable[Document],
    servers: Servers,
    events: tuple[Event, ...],
) -> Decision:
    found = [event for kind, knative in after.items() for event in story.of_knative(known.get(kind), knative)]
    statuses: list[Document] = []
    last = status
    for document in told:
        if document != last:
            found += story.of_status(wish.name, last, document)
            statuses.append(document)
        last = document
    routes = {kind: kn.route(knative, servers) for kind, knative in after.items()}
    leads_to = entry(tuple(wish.components), routes, status)
    return Decision(after, routes, leads_to, tuple(statuses), (*found, *events))
