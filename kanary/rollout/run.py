"""A rollout under way: look, decide, act, write down, wait. Every step is written down before it is taken.

Killed at any moment and started again it goes on from its record. An operator's act ends it as `held`; people's words
to it (kanary.rollout.acts) do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from kanary import kubernetes as k8s
from kanary import manifests, release
from kanary.errors import ApiError, Held, KanaryError
from kanary.kserve import readiness as way_back
from kanary.kserve import rollback as brake
from kanary.kserve import steer, store
from kanary.kserve.status import ServiceStatus, service_status
from kanary.kserve.store import Token
from kanary.kubernetes import Act
from kanary.release import State
from kanary.rollout import acts, judging, machine, observe
from kanary.rollout import policy as policies
from kanary.rollout import record as records
from kanary.rollout.entering import Target, enter
from kanary.rollout.machine import Action
from kanary.rollout.observe import Arms, Source
from kanary.rollout.policy import Policy
from kanary.rollout.profiles import Where
from kanary.rollout.record import Record, Step

__all__ = ["Target", "rollout", "silent"]

T = TypeVar("T")
Clock = Callable[[], float]
Say = Callable[[str], None]
_RENEW = store.LEASE_SECONDS / 4
_STARTING_LOOK = 2.0  # seconds between two looks while the canary starts
_MOVE_DEADLINE = 45.0  # shorter than the Lease lasts
_STALE = 60.0  # seconds: numbers that are older say nothing of now


class Caller(Protocol):
    """What runs acts: kanary.kubernetes.Kubernetes, or a cluster in memory."""

    def call(self, act: Act[T]) -> T:
        """The act's result."""
        ...


def silent(text: str) -> None:
    """Says nothing."""


def rollout(
    api: Caller,
    source: Source,
    target: Target,
    policy: Policy,
    *,
    say: Say = silent,
    clock: Clock = time.time,
    pause: Callable[[float], None] = time.sleep,
) -> Record:
    """Takes the service's canary through the policy's steps, and gives the record of how it ended.

    Raises InputError where there is no canary or its model is denied, Held where somebody has acted before it began,
    KanaryError where another automation is at work; once it is under way all of these are its outcome, held.
    """
    record, token = api.call(enter(target, policy, clock))
    if record.outcome:
        say(f"over since {record.ended}: {record.outcome}; {record.why}")
        return record
    begun = policies.parse(record.policy, "the policy of the rollout under way")
    if replace(begun, prometheus=policy.prometheus) != policy:
        say("the rollout that is under way goes on by the policy that it began with")
    run = _Run(api, source, target, replace(begun, prometheus=policy.prometheus), token, say, clock, pause)
    return run.drive(record)


class _Run:
    """One process's part of a rollout."""

    def __init__(
        self,
        api: Caller,
        source: Source,
        target: Target,
        policy: Policy,
        token: Token,
        say: Say,
        clock: Clock,
        pause: Callable[[float], None],
    ) -> None:
        self.api, self.source, self.target, self.policy = api, source, target, policy
        self.token, self.say, self.clock, self.pause = token, say, clock, pause
        self.renewed, self.away = clock(), 0.0
        self.state = State()
        self.said = ""

    def drive(self, record: Record) -> Record:
        """Looks and acts until it is over."""
        try:
            while not record.outcome:
                try:
                    record = self._turn(record)
                    self.away = 0.0
                except ApiError as error:
                    self._endure(error, record)
        except Held as held:
            record = self._conclude(record, records.HELD, held.message, epoch=None)
        self.api.call(store.free_lease(self.target.service, self.target.namespace, self.token.holder))
        return record

    def _turn(self, record: Record) -> Record:
        name, namespace = self.target.service, self.target.namespace
        service, self.state = self.api.call(store.both(name, namespace))
        release.check_epoch(self.state, self.token.epoch)
        record = _heard(record, records.find(self.state), self._tell)
        status, digest = service_status(service, self.state), manifests.model_digest(manifests.content(service))
        changed = machine.foreign(record, status, digest, self.state)
        if changed:
            raise Held(f"Held: {changed}.", "`kanary status` shows how it stands.")
        if self.clock() - self.renewed > _RENEW:
            self.api.call(store.renew(name, namespace, self.token, self.clock()))
            self.renewed = self.clock()
        record = self._look(record, status)
        action = machine.next_action(record, self.policy, status, self.clock())
        return self._perform(record, status, action)

    def _look(self, record: Record, status: ServiceStatus) -> Record:
        """`record` with what can be seen now: readiness, numbers, the verdict on them, a finding let pass."""
        now = self.clock()
        waiting = record.phase in (records.STARTING, records.MOVING, records.BAKING)
        failing = (record.failing or now) if waiting and not status.canary_ready else 0.0
        record = replace(record, looked=now, failing=failing)
        if record.phase in (records.ROLLING_BACK, records.PROMOTING):
            return record
        before = record.verdict
        record = self._read(record, now)
        if record.verdict == judging.PAUSE and record.approval(records.FINDING) is not None:
            record = judging.approved(record, record.percent / 100)
        if record.verdict == judging.PAUSE != before:
            record = replace(record, found=release.timestamp(now))
        # A rollback tells its reason itself; after the promotion nothing else is news.
        if record.verdict not in ("", before, judging.ROLLBACK) and record.phase != records.WATCHING:
            record = self._tell(record, f"{record.verdict}: {record.sentence}")
        return record

    def _read(self, record: Record, now: float) -> Record:
        arms = Arms(record.canary, record.stable, record.version, record.stable_version)
        settings = self.policy.prometheus
        where = Where(self.target.namespace, self.target.service, (record.canary, record.stable), settings.selectors)
        try:
            reading = observe.read(self.source, where, arms, settings, record.profile, now)
            age = now - reading.newest
            if age > max(_STALE, 4 * self.policy.interval):
                raise KanaryError(f"Prometheus' newest numbers of {self.target.service} are {age:.0f} s old.")
            folded = judging.fold(replace(record, problem=""), self.policy, reading, now)
        except KanaryError as error:
            if record.problem != error.message:
                record = self._tell(record, f"no numbers: {error.message}")
            return replace(record, problem=error.message)
        if record.problem:
            folded = self._tell(folded, "there are numbers again")
        if not record.profile:
            folded = self._tell(folded, "; ".join((f"counting by the profile {reading.profile}", *reading.notes)))
        return folded

    def _perform(self, record: Record, status: ServiceStatus, action: Action) -> Record:
        if action.kind == machine.WAIT:
            return self._wait(record, action)
        if action.kind == machine.HOLD:
            return self._conclude(record, records.HELD, action.why)
        if action.kind == machine.DONE:
            return self._conclude(record, records.PROMOTED, action.why)
        steps = {machine.SET: self._set, machine.PROMOTE: self._promote, machine.ROLL_BACK: self._roll_back}
        try:
            return steps[action.kind](record, status, action)
        except (ApiError, Held):
            raise
        except KanaryError as error:
            return self._refused(record, action, error)

    def _refused(self, record: Record, action: Action, error: KanaryError) -> Record:
        """After an act that the driver refused: a canary that has just failed is the brake's, all else is held."""
        status = self.api.call(steer.status(self.target.service, self.target.namespace))
        if action.kind == machine.ROLL_BACK or status.canary != record.canary or status.canary_ready:
            return self._conclude(record, records.HELD, f"{action.kind}: {error.message}")
        kept = records.find(self.state) or record
        if action.kind == machine.PROMOTE:
            kept = replace(kept, phase=records.BAKING, step=len(self.policy.steps) - 2)
        return self._wait(kept, Action(machine.WAIT, error.message))

    def _set(self, record: Record, status: ServiceStatus, action: Action) -> Record:
        step = self.policy.steps.index(action.percent)
        if record.phase != records.MOVING:
            record = replace(record, phase=records.MOVING, step=step, since=self.clock(), why=action.why, waits="")
            record = self._keep(self._tell(record, f"{action.percent} % of the traffic: {action.why}"))
        moved = self.api.call(
            steer.set_traffic(
                *(self.target.service, self.target.namespace, action.percent, action.why),
                token=self.token,
                deadline=_MOVE_DEADLINE,
                clock=self.clock,
            )
        )
        if not moved.in_force:
            return self._wait(record, Action(machine.WAIT, f"{action.percent} % is not in force yet: {moved.why}"))
        return self._keep(self._arrived(record, records.BAKING, action.percent))

    def _promote(self, record: Record, status: ServiceStatus, action: Action) -> Record:
        if record.phase != records.PROMOTING:
            record = self._with_a_way_back(record)
            record = replace(record, phase=records.PROMOTING, step=len(self.policy.steps) - 1, why=action.why, waits="")
            record = self._keep(self._tell(replace(record, since=self.clock()), f"promotion: {action.why}"))
        if status.canary or status.stable != record.canary or status.requested is not None:
            moved = self.api.call(
                steer.promote(
                    *(self.target.service, self.target.namespace, action.why),
                    token=self.token,
                    deadline=_MOVE_DEADLINE,
                    clock=self.clock,
                )
            )
            if not moved.in_force:
                if self.clock() >= record.since + self.policy.deadline:
                    return self._conclude(record, records.HELD, f"the promotion is not in force: {moved.why}")
                return self._wait(record, Action(machine.WAIT, f"the promotion is not in force yet: {moved.why}"))
        # The control is gone: what was found against it is history now, and only absolute limits judge.
        record = replace(self._arrived(record, records.WATCHING, policies.PROMOTION), verdict="", sentence="")
        return self._keep(record)

    def _with_a_way_back(self, record: Record) -> Record:
        """Tells what a rollback after the promotion would take. Raises KanaryError where there would be none."""
        back = self.api.call(way_back.readiness(self.target.service, self.target.namespace))
        if not back.ok:
            why = "; ".join(f"{found.what}: {found.said}" for found in back.findings if found.blocks)
            raise KanaryError(f"there would be no way back: {why}")
        start = "warm" if not back.cold else f"a cold start{f' of {back.seconds:.0f} s' if back.seconds else ''}"
        return self._tell(record, f"the way back to {back.target} would be {start}")

    def _roll_back(self, record: Record, status: ServiceStatus, action: Action) -> Record:
        if record.phase != records.ROLLING_BACK:
            record = replace(record, phase=records.ROLLING_BACK, why=action.why, waits="")
            record = self._keep(self._tell(record, f"rollback: {action.why}"))
        name, namespace = self.target.service, self.target.namespace
        # What never got ready may be the cluster's fault: only what has answered badly is denied.
        deny, token = bool(record.steps), self.token
        done = self.api.call(brake.rollback(name, namespace, action.why, token=token, deny=deny, clock=self.clock))
        if done.outcome == "held":
            return self._conclude(record, records.HELD, f"rolled back, but {done.why}; it began because {action.why}")
        return self._conclude(record, records.ROLLED_BACK, action.why)

    def _arrived(self, record: Record, phase: str, percent: int) -> Record:
        now = self.clock()
        steps = tuple(replace(step, until=step.until or now) for step in record.steps)
        asked = None if percent == policies.PROMOTION else percent
        record = replace(record, phase=phase, asked=asked, in_force=now, steps=(*steps, Step(percent, now)))
        return self._tell(record, f"{percent} % is in force")

    def _wait(self, record: Record, action: Action) -> Record:
        if action.why != record.waits:
            record = replace(record, waits=action.why)
            # A count that grows is news for `kanary status`, not a line a look.
            kind = "".join(letter for letter in action.why if not letter.isdigit())
            if kind != self.said:
                self.say(f"waits: {action.why}")
                self.said = kind
        record = self._keep(record)
        now = self.clock()
        look = min(self.policy.interval, _STARTING_LOOK) if record.phase == records.STARTING else self.policy.interval
        seconds = max(0.05, min(look, action.until - now) if action.until > now else look)
        self.api.call(self._change(seconds))
        return record

    def _change(self, seconds: float) -> Act[Any]:
        """Waits, but no longer than until somebody says something."""
        name = release.name_of(self.target.service)
        collection = k8s.config_maps(self.target.namespace)
        return (yield k8s.Change(collection, name, self.state.resource_version, seconds))

    def _keep(self, record: Record, epoch: int | None = -1) -> Record:
        """Writes the record down, people's words kept. Raises Held where somebody has acted."""
        kept = record

        def decide(state: State) -> State:
            nonlocal kept
            stored = records.find(state)
            if stored is None or stored.id != record.id or stored.started != record.started:
                raise Held("Held: the rollout's record was taken away or belongs to another one now.")
            kept = replace(record, acts=stored.acts)
            return records.put(state, kept)

        name, namespace = self.target.service, self.target.namespace
        self.state = self.api.call(store.change(name, namespace, decide, self.token.epoch if epoch == -1 else epoch))
        return kept

    def _conclude(self, record: Record, outcome: str, why: str, epoch: int | None = -1) -> Record:
        now = self.clock()
        steps = tuple(replace(step, until=step.until or now) for step in record.steps)
        when = release.timestamp(now)
        record = replace(record, outcome=outcome, why=why, ended=when, phase=records.OVER, steps=steps, waits="")
        record = self._tell(record, f"{outcome}: {why}")
        try:
            kept = self._keep(record, epoch)
            self.api.call(acts.conclude(self.target.service, self.target.namespace, kept))
            return kept
        except Held as held:
            if epoch is None:  # the record is gone: there is nowhere to write it any more
                return record
            return self._conclude(replace(record, outcome=""), records.HELD, held.message, epoch=None)

    def _tell(self, record: Record, text: str) -> Record:
        self.say(text)
        return records.told(record, release.timestamp(self.clock()), text)

    def _endure(self, error: ApiError, record: Record) -> None:
        """An API that is away for a while is waited for; one that refuses is not. The brake is never given up first."""
        if error.status is not None and error.status < 500 and error.status not in (408, 409, 429):
            raise error
        now = self.clock()
        self.away = self.away or now
        if now - self.away > self.policy.deadline:
            raise error
        self.say(f"the API is away, trying again: {error.message}")
        self.pause(min(self.policy.interval, 5.0))


def _heard(record: Record, stored: Record | None, tell: Callable[[Record, str], Record]) -> Record:
    """`record` with people's words, each told once."""
    if stored is None or stored.id != record.id:
        raise Held("Held: the rollout's record was taken away or belongs to another one now.")
    for act in stored.acts[len(record.acts) :] if len(stored.acts) >= len(record.acts) else ():
        why = f": {act.why}" if act.why else ""
        record = tell(record, f"{act.who} said {act.what}{why}")
    return replace(record, acts=stored.acts)
