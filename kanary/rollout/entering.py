"""Before a rollout's first look: whose it is, whether one is under way, and the Lease that lets only one work on it."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from kanary import kubernetes as k8s
from kanary import manifests, release
from kanary.errors import Held, KanaryError
from kanary.kserve import store
from kanary.kserve.deploy import check_not_denied
from kanary.kserve.status import service_status
from kanary.kserve.store import Token
from kanary.kubernetes import Act, Document
from kanary.release import State
from kanary.rollout import machine
from kanary.rollout import record as records
from kanary.rollout.policy import Policy
from kanary.rollout.record import Record

Clock = Callable[[], float]


@dataclass(frozen=True)
class Target:
    """Whose rollout. With a `run_id` it must be this run's own canary that nobody has touched since."""

    service: str
    namespace: str
    run_id: str = ""


def enter(target: Target, policy: Policy, clock: Clock) -> Act[tuple[Record, Token]]:
    """Finds the rollout that is under way or begins one, and takes the Lease."""
    name, namespace = target.service, target.namespace
    yield from _free_of_the_dead(name, namespace, target, clock)
    service, state = yield from store.both(name, namespace)
    me = k8s.username((yield k8s.Together((k8s.who_am_i(),)))[0])
    known, digest = records.find(state), manifests.model_digest(manifests.content(service))
    if known is not None and known.outcome and target.run_id and known.run_id == target.run_id:
        return known, Token(state.epoch, "")  # a retry of what is over changes nothing, whoever has acted since
    mine = known is not None and target.run_id in ("", known.run_id)
    about = known is not None and (known.digest == digest or known.phase == records.ROLLING_BACK)
    if known is not None and mine and about and not known.outcome:
        record = known
    else:
        record = _new(service, state, known, target, policy, me, clock())
    token = Token(record.epoch, _holder(record))
    yield from _take_lease(name, namespace, token, clock)
    if record is not known:
        yield from store.change(name, namespace, lambda kept: records.put(kept, record), record.epoch)
    return record, token


def _new(
    service: Document, state: State, known: Record | None, target: Target, policy: Policy, me: str, now: float
) -> Record:
    status = service_status(service, state)
    where = f"{target.namespace}/{target.service}"
    if not status.canary:
        raise KanaryError(
            f"{where} has no canary to roll out: {status.stable or 'no revision'} takes all traffic.",
            "Deploy a new model first, with canary_percent=0.",
        )
    if target.run_id:
        acted = machine.began(state, target.run_id)
        if acted:
            raise Held(
                f"Held: {acted}; {where} is not rolled out by run {target.run_id}.", "`kanary history` has more."
            )
    digest = manifests.model_digest(manifests.content(service))
    check_not_denied(state, digest, target.service, target.namespace)
    at = [index for index, step in enumerate(policy.steps[:-1]) if step <= status.effective]
    found = status.revision(status.stable)
    record = Record(
        id=target.run_id or uuid.uuid4().hex[:12],
        version=manifests.model_version(manifests.content(service)),
        digest=digest,
        canary=status.canary,
        stable=status.stable,
        policy=policy.as_kept(),
        stable_version=found.version if found else "",
        run_id=target.run_id,
        who=me,
        started=release.timestamp(now),
        epoch=state.epoch,
        step=(at[-1] if at else 0) - 1,
        asked=status.requested,
        since=now,
    )
    if known is None or known.digest != digest or known.outcome != records.HELD or known.canary != record.canary:
        return records.told(record, record.started, f"begun by {me}")
    # What was found out counts on: the error rates hold for the whole rollout, however often it is taken up again.
    same = known.evidence.get("margins") if known.policy.get("margins") == record.policy.get("margins") else None
    if same is not None:
        record = replace(
            record,
            **{key: getattr(known, key) for key in ("tally", "evidence", "profile", "verdict", "sentence")},
        )
    acts = [act for act in known.acts if act.what == records.APPROVE]
    record = replace(record, steps=known.steps, points=known.points, log=known.log, acts=tuple(acts))
    return records.told(record, release.timestamp(now), f"taken up again by {me}")


def _holder(record: Record) -> str:
    return f"rollout {record.id} on {socket.gethostname()} pid {os.getpid()}"


def _take_lease(name: str, namespace: str, token: Token, clock: Clock) -> Act[None]:
    path = k8s.leases(namespace, release.name_of(name))
    for _ in range(20):
        (answer,) = yield k8s.Together((k8s.read(path),))
        lease = store.unpack(answer)
        other = store.holder(lease, clock())
        if other not in ("", token.holder) and not _dead(other):
            raise KanaryError(
                f"{namespace}/{name} is being worked on by {other}.",
                f"Wait until it ends; after a crash its lock runs out within {store.LEASE_SECONDS} s.",
            )
        (taken,) = yield k8s.Together((store.take_lease(lease, name, namespace, token.holder, clock()),))
        if not store.conflict(taken):
            return
    raise KanaryError(f"The lock of {namespace}/{name} changes hands all the time.", "Try again.")


def _free_of_the_dead(name: str, namespace: str, target: Target, clock: Clock) -> Act[None]:
    """Waits out the Lease of an earlier attempt of the same run: in a cluster nobody can see whether it is dead."""
    path, ends = k8s.leases(namespace, release.name_of(name)), clock() + store.LEASE_SECONDS + 10
    while target.run_id and clock() < ends:
        (answer,) = yield k8s.Together((k8s.read(path),))
        lease = store.unpack(answer)
        other = store.holder(lease, clock())
        if not other.startswith(f"rollout {target.run_id} ") or _dead(other) or lease is None:
            return
        yield k8s.Change(k8s.leases(namespace), release.name_of(name), lease["metadata"]["resourceVersion"], 5.0)


def _dead(holder: str) -> bool:
    """Whether this holder was a process of this machine, and is gone."""
    _, _, where = holder.rpartition(" on ")
    host, _, pid = where.partition(" pid ")
    if not holder.startswith("rollout ") or host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
