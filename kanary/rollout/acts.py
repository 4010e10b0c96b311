"""What people say to a rollout: pause, resume, approve. It is heard at once, recorded with who and when, and stops
nothing: the epoch stays, so that the automation goes on with its work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kanary import kubernetes as k8s
from kanary import release
from kanary.errors import InputError, KanaryError
from kanary.kserve import history, store
from kanary.kubernetes import Act
from kanary.release import State
from kanary.rollout import machine
from kanary.rollout import policy as policies
from kanary.rollout import record as records
from kanary.rollout.record import Record


def current(name: str, namespace: str) -> Act[Record | None]:
    """The service's rollout, under way or the last one; None where there never was one."""
    (answer,) = yield k8s.Together((store.reads(name, namespace)[1],))
    return records.find(release.parse(store.unpack(answer)))


def keep_evidence(name: str, namespace: str, record: Record, uri: str, sha256: str) -> Act[None]:
    """Notes where the evidence of a rollout that is over lies, and its hash: beside it and in the release history."""

    def decide(state: State) -> State:
        kept = records.find(state)
        if kept is None or (kept.id, kept.started) != (record.id, record.started):
            return state  # another one has begun: its evidence is still to come
        return records.put(state, replace(kept, evidence_uri=uri, sha256=sha256))

    yield from store.change(name, namespace, decide)
    yield from conclude(name, namespace, record, uri, sha256)


def conclude(name: str, namespace: str, record: Record, uri: str = "", sha256: str = "") -> Act[None]:
    """Notes in the release history how the rollout ended; what an operator has made of the release meanwhile stays."""
    (answer,) = yield k8s.Together((store.reads(name, namespace)[1],))
    known = release.newest(release.parse(store.unpack(answer)), record.digest)
    if known is None:
        return  # more releases than are remembered have come since
    verdict = {records.PROMOTED: release.PROMOTED, records.ROLLED_BACK: release.ROLLED_BACK}.get(record.outcome)
    if verdict is None:
        verdict = release.HELD if known.verdict == release.CANARY else known.verdict
    if verdict in history.VERDICTS:
        yield from history.conclude(name, namespace, record.digest, verdict, uri, sha256)


def pause(name: str, namespace: str, why: str, now: float, dry: bool = False) -> Act[Record]:
    """The split stays as it is until `resume`; the brake stays on. Raises InputError where nothing is under way."""

    def said(record: Record, who: str) -> records.Act | None:
        return None if record.paused else records.Act(records.PAUSE, who, release.timestamp(now), why)

    return (yield from _say(name, namespace, said, dry))


def resume(name: str, namespace: str, why: str, now: float, dry: bool = False) -> Act[Record]:
    """Takes a pause away. Raises InputError where nothing is under way."""

    def said(record: Record, who: str) -> records.Act | None:
        return records.Act(records.RESUME, who, release.timestamp(now), why) if record.paused else None

    return (yield from _say(name, namespace, said, dry))


def approve(name: str, namespace: str, why: str, now: float, step: int | None = None, dry: bool = False) -> Act[Record]:
    """Lets one step pass: the one that is waited for, or `step` (percent) ahead of time. 100 is the promotion.

    Raises InputError where nothing is under way, nothing waits for a person, or the policy asks for no such approval.
    """

    def said(record: Record, who: str) -> records.Act | None:
        policy = policies.parse(record.policy, "the policy of the rollout under way")
        asked = machine.waits_for_person(record, policy) if step is None else step
        if asked is None:
            raise InputError(
                f"The rollout of {namespace}/{name} waits for nobody's approval now; it waits: {record.waits or '-'}.",
                f"Its policy asks before {_list(policy.approve)}; `--step N` approves one ahead of time.",
            )
        if asked != records.FINDING and asked not in policy.approve:
            raise InputError(
                f"The policy of {namespace}/{name} asks nobody before {asked} %.",
                f"It asks before {_list(policy.approve)}.",
            )
        if record.approval(asked) is not None:
            return None
        return records.Act(records.APPROVE, who, release.timestamp(now), why, asked)

    return (yield from _say(name, namespace, said, dry))


def _say(name: str, namespace: str, said: Callable[[Record, str], records.Act | None], dry: bool) -> Act[Record]:
    """Adds what is said to the record, and gives the record; as it would be, where it is dry."""
    who = k8s.username((yield k8s.Together((k8s.who_am_i(),)))[0])
    found: Record | None = None

    def decide(state: State) -> State:
        nonlocal found
        record = _under_way(state, name, namespace)
        act = said(record, who)
        found = record if act is None else records.act(record, act)
        return state if act is None else records.put(state, found)

    if dry:
        _, state = yield from store.both(name, namespace)
        decide(state)
    else:
        yield from store.change(name, namespace, decide)
    if found is None:
        raise KanaryError(f"The rollout of {namespace}/{name} could not be told.", "Try again.")
    return found


def _under_way(state: State, name: str, namespace: str) -> Record:
    record = records.find(state)
    if record is None or record.outcome:
        ended = "none has been" if record is None else f"the last one ended as {record.outcome} at {record.ended}"
        raise InputError(
            f"No rollout of {namespace}/{name} is under way: {ended}.",
            f"`kanary rollout {name}` starts one where there is a canary.",
        )
    return record


def _list(steps: tuple[int, ...]) -> str:
    return ", ".join("the promotion" if step == policies.PROMOTION else f"{step} %" for step in steps) or "no step"
