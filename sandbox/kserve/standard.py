"""What Kubernetes would hold for one InferenceService in Standard mode: Deployments, their pods and autoscalers.

Frozen data and pure transitions. A Deployment's replicas are a number: one server stands for all of a template's pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sandbox.kserve.knative import Revision, Servers, Template, answers

# Reasons of a Deployment's condition Progressing.
UPDATED, COMPLETE, TIMED_OUT = "ReplicaSetUpdated", "NewReplicaSetAvailable", "ProgressDeadlineExceeded"
# How long a server lives on without traffic: what is in flight to it ends before it does.
LINGER_S = 2.0


@dataclass(frozen=True)
class Workload:
    """A Deployment as KServe asks for it. `fixed` are its replicas, None where they are an autoscaler's affair.

    `scaled`: it has an autoscaler, which keeps replicas between `minimum` and `maximum` and, without metrics, does
    no more.
    """

    name: str
    template: Template
    fixed: int | None = None
    scaled: bool = True
    minimum: int = 1
    maximum: int = 1
    component: str = "predictor"


@dataclass(frozen=True)
class Deployment:
    """`revisions` are pod templates, each with the name of its server: the wanted one last, before it the one that
    still serves. `serving` is the server that its Service leads to.

    `observed`, `counted`, `wanted`, `ready` (of the template that `counted` names), `old_ready` and `progress` are what
    its status last said; `progress` is a reason of the condition Progressing.
    """

    name: str
    replicas: int
    revisions: tuple[Revision, ...]
    serving: str
    component: str = "predictor"
    generation: int = 1
    observed: int = 0
    counted: str = ""
    wanted: int = 0
    ready: int = 0
    old_ready: int = 0
    progress: str = ""

    @property
    def newest(self) -> Revision:
        """The wanted template."""
        return self.revisions[-1]

    @property
    def available(self) -> bool:
        """The condition Available: at most a quarter of the replicas, rounded down, is not ready."""
        return self.ready + self.old_ready >= self.wanted - self.wanted // 4


@dataclass(frozen=True)
class Scaler:
    """A HorizontalPodAutoscaler; KServe leaves it behind when its Deployment goes."""

    name: str
    minimum: int
    maximum: int


@dataclass(frozen=True)
class Leaving:
    """A server that nothing should lead to any more; `revision.idle_since` is set."""

    deployment: str
    revision: Revision
    replicas: int


@dataclass(frozen=True)
class Backend:
    """A Deployment's share of the traffic, and the server that stands for it."""

    deployment: str
    server: str
    weight: int


@dataclass(frozen=True)
class Standard:
    """The whole record. `stable` names the Deployment that is the predictor's, "" where it is stopped.

    `routed` is what the gateway obeys, since `routed_at` in seconds of the epoch; `exposed`: predictor and transformer
    were ready once, so that there is a route to them. `started` counts servers, so that none gets a name twice.
    """

    name: str
    stable: str = ""
    deployments: tuple[Deployment, ...] = ()
    scalers: tuple[Scaler, ...] = ()
    leaving: tuple[Leaving, ...] = ()
    routed: tuple[Backend, ...] = ()
    routed_at: float = 0.0
    exposed: bool = False
    started: int = 0

    def deployment(self, name: str) -> Deployment | None:
        """The Deployment of that name."""
        return next((found for found in self.deployments if found.name == name), None)

    @property
    def transformer(self) -> Deployment | None:
        """The transformer's Deployment."""
        return next((found for found in self.deployments if found.component == "transformer"), None)


def write(record: Standard, stable: str, workloads: Sequence[Workload], now: float) -> Standard:
    """The record after KServe has written its Deployments and autoscalers, and deleted Deployments it does not want."""
    wanted = {workload.name for workload in workloads}
    for gone in (known for known in record.deployments if known.name not in wanted):
        record = _leave(record, gone, gone.revisions, now)
    record = replace(record, stable=stable, deployments=tuple(d for d in record.deployments if d.name in wanted))
    for workload in workloads:
        known = record.deployment(workload.name)
        record = _create(record, workload, now) if known is None else _update(record, known, workload, now)
    named = {workload.name: workload for workload in workloads}
    kept = [scaler for scaler in record.scalers if scaler.name not in named]
    made = [Scaler(w.name, w.minimum, max(w.minimum, w.maximum)) for w in workloads if w.scaled]
    order = tuple(found for name in named if (found := record.deployment(name)) is not None)
    return replace(record, deployments=order, scalers=tuple(sorted((*kept, *made), key=lambda scaler: scaler.name)))


def stop(record: Standard, now: float) -> Standard:
    """The record after KServe has deleted all but the autoscalers of canaries, as it does for a stopped service."""
    for known in record.deployments:
        record = _leave(record, known, known.revisions, now)
    own = {record.stable, *(d.name for d in record.deployments if d.component != "predictor")}
    scalers = tuple(scaler for scaler in record.scalers if scaler.name not in own)
    return replace(record, stable="", deployments=(), scalers=scalers, exposed=False)


def recovered(name: str, stable: str, workloads: Sequence[Workload], servers: Servers, generation: int) -> Standard:
    """The record of a service whose file was lost, with the servers that run what is wanted.

    `generation` is what the status says of the predictor's Deployment, 0 for one that was never ready.
    """
    made: list[Deployment] = []
    for workload in workloads:
        start = f"{workload.name}-{workload.template.digest[:10]}-"
        server = max((found for found in servers if found.startswith(start)), default="")
        if server:
            revision = Revision(server, workload.template, created=0.0, ready=servers[server].ready)
            replicas = workload.minimum if workload.fixed is None else workload.fixed
            known = Deployment(workload.name, replicas, (revision,), server, workload.component, generation)
            known = replace(known, observed=generation, wanted=replicas, counted=server, progress=COMPLETE)
            made.append(replace(known, ready=replicas if servers[server].ready else 0))
    counts = [int(count) for found in servers if (count := found.rpartition("-")[2]).isdigit()]
    record = Standard(name, stable, tuple(made), started=max(counts, default=0))
    return replace(record, exposed=bool(generation) and record.deployment(stable) is not None)


def evolve(record: Standard, servers: Servers, now: float) -> Iterator[Standard]:
    """The records that `record` becomes one after the other as the cluster's own controllers see to it."""
    for step in (_observe, _scale, _observe, _count, _complete):
        changed = replace(record, deployments=tuple(step(known, record, servers, now) for known in record.deployments))
        if step is _complete:
            changed = _retire(changed, now)
        if changed != record:
            record = changed
            yield record


def put_in_force(record: Standard, route: tuple[Backend, ...], now: float) -> Standard:
    """The record after the gateway has come to obey `route`: servers that it has just left linger from now on."""
    left = {backend.server for backend in record.routed} - {backend.server for backend in route}
    leaving = tuple(
        replace(one, revision=replace(one.revision, idle_since=now)) if one.revision.name in left else one
        for one in record.leaving
    )
    since = record.routed_at if route == record.routed else now
    return replace(record, routed=route, routed_at=since, leaving=leaving)


def due(record: Standard, draining: frozenset[str], now: float) -> frozenset[str]:
    """Names of the servers that can be ended; `draining` names Deployments that may have requests in flight."""
    routed = {backend.server for backend in record.routed}
    return frozenset(
        one.revision.name
        for one in record.leaving
        if one.revision.name not in routed
        and one.deployment not in draining
        and now >= (one.revision.idle_since or now) + LINGER_S
    )


def forget(record: Standard, ended: Iterable[str]) -> Standard:
    """The record without servers that have been ended."""
    gone = frozenset(ended)
    return replace(record, leaving=tuple(one for one in record.leaving if one.revision.name not in gone))


def wake_at(record: Standard) -> float | None:
    """When time alone changes something: a progress deadline, or a server that has lingered long enough."""
    moments = [(one.revision.idle_since or 0.0) + LINGER_S for one in record.leaving]
    moments += [d.newest.deadline for d in record.deployments if d.progress == UPDATED and d.replicas]
    return min(moments, default=None)


def names(record: Standard) -> frozenset[str]:
    """Names of all servers that are the record's."""
    running = {revision.name for known in record.deployments for revision in known.revisions}
    return frozenset(running | {one.revision.name for one in record.leaving})


def ready_copies(record: Standard, known: Deployment, servers: Servers) -> int:
    """Ready pods with the Deployment's label, those that are about to go included."""
    going = [one for one in record.leaving if one.deployment == known.name and answers(servers, one.revision.name)]
    return known.ready + known.old_ready + sum(one.replicas for one in going)


def replica_set(revision: Revision) -> str:
    """The name of the ReplicaSet that a pod template makes."""
    return revision.name.rpartition("-")[0]


def _create(record: Standard, workload: Workload, now: float) -> Standard:
    record, revision = _revision(record, workload, now)
    replicas = 1 if workload.fixed is None else workload.fixed
    made = Deployment(workload.name, replicas, (revision,), revision.name, workload.component)
    return replace(record, deployments=(*record.deployments, made))


def _update(record: Standard, known: Deployment, workload: Workload, now: float) -> Standard:
    changed = known
    if workload.fixed is not None and workload.fixed != known.replicas:
        changed = replace(changed, replicas=workload.fixed)
    if workload.template.digest != known.newest.template.digest:
        useless = tuple(revision for revision in known.revisions if revision.name != known.serving)
        serving = known.revisions[: len(known.revisions) - len(useless)]
        if serving and not serving[0].ready:
            useless, serving = (*serving, *useless), ()
        record = _leave(record, known, useless, now)
        if serving and serving[0].template.digest == workload.template.digest:  # its ReplicaSet is still there
            changed = replace(changed, revisions=serving)
        else:
            record, revision = _revision(record, workload, now)
            led = known.serving if serving else revision.name
            changed = replace(changed, revisions=(*serving, revision), serving=led)
    if changed == known:
        return record
    changed = replace(changed, generation=known.generation + 1)
    return replace(record, deployments=tuple(changed if d.name == known.name else d for d in record.deployments))


def _revision(record: Standard, workload: Workload, now: float) -> tuple[Standard, Revision]:
    count = record.started + 1
    name = f"{workload.name}-{workload.template.digest[:10]}-{count:05d}"
    return replace(record, started=count), Revision(name, workload.template, created=now)


def _leave(record: Standard, known: Deployment, revisions: Sequence[Revision], now: float) -> Standard:
    going = (Leaving(known.name, replace(revision, idle_since=now), known.replicas) for revision in revisions)
    return replace(record, leaving=(*record.leaving, *going))


def _observe(known: Deployment, record: Standard, servers: Servers, now: float) -> Deployment:
    """The Deployment controller has seen the newest spec and counts anew what was ready before it."""
    if known.observed == known.generation:
        return known
    if known.counted != known.newest.name:
        kept = known.ready + known.old_ready if len(known.revisions) > 1 else 0
        # One that was ready before has come back: what was counted as old is its own.
        ready = known.old_ready if known.newest.ready else 0
        known = replace(known, counted=known.newest.name, old_ready=kept, ready=ready, progress=UPDATED)
    ready, old_ready = min(known.ready, known.replicas), min(known.old_ready, known.replicas)
    return replace(known, observed=known.generation, wanted=known.replicas, ready=ready, old_ready=old_ready)


def _scale(known: Deployment, record: Standard, servers: Servers, now: float) -> Deployment:
    """The autoscaler enforces its bounds."""
    scaler = next((found for found in record.scalers if found.name == known.name), None)
    if scaler is None:
        return known
    replicas = min(max(known.replicas, scaler.minimum), scaler.maximum)
    return known if replicas == known.replicas else replace(known, replicas=replicas, generation=known.generation + 1)


def _count(known: Deployment, record: Standard, servers: Servers, now: float) -> Deployment:
    ready = known.replicas if answers(servers, known.newest.name) else 0
    old = any(answers(servers, revision.name) for revision in known.revisions[:-1])
    counted = replace(known, ready=ready, old_ready=known.replicas if old else 0)
    # With pods of an older template about, a Deployment tells of ready ones before it tells that it is through.
    return counted if len(known.revisions) > 1 else _complete(counted, record, servers, now)


def _complete(known: Deployment, record: Standard, servers: Servers, now: float) -> Deployment:
    if known.ready >= known.replicas:
        newest = replace(known.newest, ready=known.newest.ready or known.ready > 0)
        revisions = (*known.revisions[:-1], newest)
        return replace(known, progress=COMPLETE, revisions=revisions, serving=newest.name)
    if known.progress == UPDATED and now >= known.newest.deadline:
        return replace(known, progress=TIMED_OUT)
    return known


def _retire(record: Standard, now: float) -> Standard:
    """Let go of the templates that a ready one has replaced; there is a route once the predictor was ready."""
    for known in record.deployments:
        if known.serving == known.newest.name and len(known.revisions) > 1:
            record = _leave(record, known, known.revisions[:-1], now)
            changed = replace(known, revisions=known.revisions[-1:], old_ready=0)
            record = replace(record, deployments=tuple(changed if d is known else d for d in record.deployments))
    needed = [known for known in record.deployments if known.name == record.stable or known.component != "predictor"]
    ready = bool(record.stable) and all(known.observed > 0 and known.available for known in needed)
    return replace(record, exposed=record.exposed or ready)
