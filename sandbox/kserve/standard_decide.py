"""One reconcile of one InferenceService in Standard mode, decided but not done.

Pure. The caller brings `route` into force first, then asks `tell` for the statuses to write, then asks again until
nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sandbox.kserve import standard as st
from sandbox.kserve import standard_status as told
from sandbox.kserve import status as shared
from sandbox.kserve import story
from sandbox.kserve.config import STANDARD
from sandbox.kserve.decide import Problem
from sandbox.kserve.knative import Document, Servers
from sandbox.kserve.standard import Backend, Standard
from sandbox.kserve.standard_wish import FIRST_RELEASE, StandardWish, workloads
from sandbox.kserve.story import Event


@dataclass(frozen=True)
class StandardDecision:
    """What to do: keep the last of `records`, obey `route` in the gateway, then write what `tell` says.

    `records`: what the cluster goes through, the newest last. `problems`: why the predictor, or a canary, is refused.
    """

    records: tuple[Standard, ...]
    route: tuple[Backend, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def record(self) -> Standard:
        """What there is after it."""
        return self.records[-1]


def decide(wish: StandardWish, known: Standard | None, servers: Servers, now: float, release: str) -> StandardDecision:
    """The next step for `wish`, as that release of KServe takes it."""
    before = known or Standard(wish.name)
    if wish.stopped:
        return StandardDecision((st.stop(before, now),), ())
    every = (wish.stable, *(one.pods for one in wish.canaries), *([wish.transformer] if wish.transformer else []))
    problems = tuple(pods.problem for pods in every if pods.problem)
    if wish.stable.template is None:
        records = (before, *st.evolve(before, servers, now))
    else:
        written = st.write(before, wish.stable.deployment, _workloads(wish, before, release), now)
        records = (written, *st.evolve(written, servers, now))
    return StandardDecision(records, route(wish, records[-1], release), problems)


def tell(
    decision: StandardDecision, wish: StandardWish, status: Document, servers: Servers, obeyed: bool, clock: str
) -> list[Document]:
    """The statuses to write, in order; `obeyed`: the gateway obeys, `clock`: the time as Kubernetes writes it."""
    found: list[Document] = []
    if wish.stopped:
        found = told.stopped(status, wish, clock)
        found = found[-1:] if _is_stopped(status) else found
    elif wish.stable.problem is not None:
        found = [_refused(status, wish.stable.problem, clock)]
    elif wish.transformer is not None and wish.transformer.problem is not None:
        found = [_refused(status, wish.transformer.problem, clock)]
    else:
        for record in decision.records:
            found.append(told.propagate(found[-1] if found else status, wish, record, servers, obeyed, clock))
    last, changed = status, []
    for document in found:
        if document != last:
            changed.append(document)
        last = document
    return changed


def events(
    before: Standard | None,
    decision: StandardDecision,
    wish: StandardWish,
    status: Document,
    told: list[Document],
    earlier: tuple[Problem, ...],
) -> Iterator[Event]:
    """What there is to tell of the step that was taken from `before`; `earlier` problems have been told."""
    last = status
    for document in told:
        yield from story.of_status(wish.name, last, document)
        last = document
    for problem in decision.problems:
        if problem not in earlier:
            yield Event("InternalError", problem.event or problem.message, warning=True)
    for first, second in zip((before or Standard(wish.name), *decision.records), decision.records, strict=False):
        yield from _of_deployments(first, second)
    if wish.stopped and before is not None and before.deployments:
        yield Event("Stopped", "All servers stopped")


def route(wish: StandardWish, record: Standard, release: str) -> tuple[Backend, ...]:
    """What the gateway should obey: the weights that KServe gives the HTTPRoute, and every Deployment's own Service.

    Only canaries with an available replica get weight, and in KServe 0.20.0 none does. Nothing leads to a predictor
    that was never ready. Source: applyCanaryWeights in httproute_reconciler.go.
    """
    if not record.exposed:
        return ()
    shares = weights(wish, record, release) or {record.stable: 100}
    if record.transformer is not None:  # before the predictor; canaries get their share past it, as in KServe
        shares = shares | {record.transformer.name: shares[record.stable], record.stable: 0}
    return tuple(Backend(d.name, d.serving, shares.get(d.name, 0)) for d in record.deployments)


def weights(wish: StandardWish, record: Standard, release: str) -> dict[str, int]:
    """The weights of the HTTPRoute's backends by Service, the predictor's first; empty where none has one."""
    if not wish.canaries or release == FIRST_RELEASE:
        return {}
    ready = [one for one in wish.canaries if told.canary_ready(record, one.pods.deployment)]
    stable = 100 - sum(one.percent for one in ready)
    return {record.stable: stable} | {one.pods.deployment: one.percent for one in ready}


def _workloads(wish: StandardWish, record: Standard, release: str) -> list[st.Workload]:
    found = workloads(wish, lambda name: told.canary_ready(record, name), release)
    refused = {one.pods.deployment for one in wish.canaries if one.pods.template is None}
    return found + [_as_it_is(known, record) for known in record.deployments if known.name in refused]


def _as_it_is(known: st.Deployment, record: Standard) -> st.Workload:
    """A canary whose new spec is refused goes on as it was."""
    scaler = next((found for found in record.scalers if found.name == known.name), None)
    return st.Workload(known.name, known.newest.template, known.replicas, scaler is not None, known.replicas)


def _is_stopped(status: Document) -> bool:
    ready: Document = next((one for one in status.get("conditions") or [] if one["type"] == told.PREDICTOR_READY), {})
    return ready.get("reason") == "Stopped"


def _refused(status: Document, problem: Problem, clock: str) -> Document:
    if problem.failure:
        return shared.invalid(status, problem.failure, problem.message, clock, STANDARD)
    return shared.refused(status, problem.reason, problem.message, clock, STANDARD)


def _of_deployments(before: Standard, after: Standard) -> Iterator[Event]:
    for known in after.deployments:
        was = before.deployment(known.name)
        if was is None or was.newest.name != known.newest.name:
            yield _scaled(known, 0, known.replicas)
        elif was.replicas != known.replicas:
            yield _scaled(known, was.replicas, known.replicas)


def _scaled(known: st.Deployment, old: int, new: int) -> Event:
    way = "up" if new > old else "down"
    text = f"Scaled {way} replica set {st.replica_set(known.newest)} from {old} to {new}"
    return Event("ScalingReplicaSet", text, "Deployment", known.name)
