"""One reconcile of one InferenceService, decided but not done: from what is wished for and what was found, what to do.

Pure. The caller brings `route` into force first, then writes `statuses` in their order, then asks again until nothing
changes; KServe's own order of two reconciles is kept, so that a rollback after a promotion takes both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sandbox.kserve import knative as kn
from sandbox.kserve import status as st
from sandbox.kserve import story, traffic
from sandbox.kserve.knative import Document, Knative, Servers, Target, Template
from sandbox.kserve.status import Names
from sandbox.kserve.story import Event

RUN, STOP, KEEP = "run", "stop", "keep"


@dataclass(frozen=True)
class Problem:
    """Why a spec is refused. With one of KServe's FailureReasons in `failure` it shows in the model's status, else in
    the condition PredictorReady, under `reason`. `event` is what the event says, where that is not the message.
    """

    message: str
    failure: str = ""
    reason: str = "ReconcileFailed"
    event: str = ""


@dataclass(frozen=True)
class Wish:
    """What an InferenceService asks for. Exactly one of `template` and `problem` is set.

    `service` is the name of its Knative Service.
    """

    name: str
    names: Names
    template: Template | None
    problem: Problem | None = None
    percent: int | None = None
    tag_routing: bool = False
    stopped: bool = False
    mode: str = "Knative"
    service: str = ""


@dataclass(frozen=True)
class Decision:
    """What to do: obey `route` in the gateway, then write `statuses` one after the other, then the events."""

    knative: Knative | None
    route: tuple[Target, ...]
    statuses: tuple[Document, ...]
    events: tuple[Event, ...]


def decide(wish: Wish, status: Document, known: Knative | None, servers: Servers, now: float, clock: str) -> Decision:
    """The next step for `wish`; `clock` is `now` as Kubernetes writes it."""
    if wish.stopped:
        return _stop(status, known, clock)
    refusal = _refusal(wish, status)
    if refusal is not None:
        settled = _settled(known, wish, servers, now)
        refused = _refused(status, refusal, wish.mode, clock)
        return _decision(wish.name, known, settled, status, [refused], servers, _warning(status, refused, refusal))
    assert wish.template is not None
    before = known or Knative(wish.service)
    wanted = kn.update_spec(before, wish.template, _targets(wish, status))
    after = kn.settle(wanted, wish.template, servers, now)
    after = kn.retire(after, _remembered(status), now)
    records = [known, wanted, after] if known is not None and wanted != known else [known, after]
    told: list[Document] = []
    for record in records:
        told.append(st.propagate(told[-1] if told else status, record, servers, wish.names, clock))
    return _decision(wish.name, known, after, status, told, servers, ())


def put_in_force(known: Knative, route: tuple[Target, ...]) -> Knative:
    """The record after the gateway has come to obey `route`."""
    return replace(known, routed=route)


def wanted_servers(known: Knative, now: float, scale_down_s: float, draining: frozenset[str]) -> dict[str, str]:
    """What to do with the server of each revision: RUN, STOP, or KEEP as it is.

    A revision that nothing leads to any more is stopped `scale_down_s` seconds later, as Knative scales it to zero
    whatever its min-scale says; one that never answered, at once.
    """
    active = kn.referenced(known)
    found: dict[str, str] = {}
    for revision in known.revisions:
        if revision.name in active:
            found[revision.name] = RUN
        elif revision.name in draining:
            found[revision.name] = KEEP
        else:
            idle = now - (revision.idle_since or now)
            found[revision.name] = STOP if idle >= scale_down_s or not revision.ready else KEEP
    return found


def wake_at(known: Knative, servers: Servers, scale_down_s: float) -> float | None:
    """When time alone changes something: a progress deadline, or the end of an idle revision's grace."""
    moments = [
        revision.idle_since + scale_down_s
        for revision in known.revisions
        if revision.idle_since is not None and (server := servers.get(revision.name)) and server.running
    ]
    created = known.revision(known.latest_created)
    if created is not None and not (created.ready or created.failed):
        moments.append(created.deadline)
    return min(moments, default=None)


def _targets(wish: Wish, status: Document) -> tuple[Target, ...]:
    rolled_out = _predictor(status).get("latestRolledoutRevision", "")
    return traffic.targets(wish.percent, rolled_out, wish.tag_routing)


def _refusal(wish: Wish, status: Document) -> Problem | None:
    if wish.problem is not None:
        return wish.problem
    refusal = traffic.refusal(_targets(wish, status))
    if not refusal:
        return None
    return Problem(f"fails to reconcile predictor: fails to reconcile knative service: {refusal}")


def _refused(status: Document, problem: Problem, mode: str, clock: str) -> Document:
    if problem.failure:
        return st.invalid(status, problem.failure, problem.message, clock, mode)
    return st.refused(status, problem.reason, problem.message, clock, mode)


def _warning(before: Document, after: Document, problem: Problem) -> tuple[Event, ...]:
    text = problem.event or problem.message
    return (Event("InternalError", text, warning=True),) if before != after else ()


def _settled(known: Knative | None, wish: Wish, servers: Servers, now: float) -> Knative | None:
    """What there is goes on as it was while a new spec is refused."""
    if known is None or not known.revisions:
        return known
    latest = known.revisions[-1].template
    return kn.settle(known, wish.template or latest, servers, now)


def _stop(status: Document, known: Knative | None, clock: str) -> Decision:
    told = st.stopped(status, clock)
    events = (Event("Stopped", "All servers stopped; revision history is gone"),) if known is not None else ()
    return Decision(None, (), (told,) if told != status else (), events)


def _decision(
    name: str,
    known: Knative | None,
    after: Knative | None,
    status: Document,
    told: Iterable[Document],
    servers: Servers,
    events: tuple[Event, ...],
) -> Decision:
    found = list(story.of_knative(known, after)) if after is not None else []
    statuses: list[Document] = []
    last = status
    for document in told:
        if document != last:
            found += story.of_status(name, last, document)
            statuses.append(document)
        last = document
    route = kn.route(after, servers) if after is not None else ()
    return Decision(after, route, tuple(statuses), (*found, *events))


def _remembered(status: Document) -> frozenset[str]:
    component = _predictor(status)
    names = (component.get("latestRolledoutRevision", ""), component.get("previousRolledoutRevision", ""))
    return frozenset(names)


def _predictor(status: Document) -> Document:
    found: Document = (status.get("components") or {}).get("predictor") or {}
    return found
