"""What a rollout does next: from its record, its policy, the service as it is, and the clock. Pure.

Waiting for anything too long ends in a hold, never in a promotion; no numbers never pass; a rollback needs a finding.
"""

from __future__ import annotations

from dataclasses import dataclass

from kanary import release
from kanary.kserve.status import ServiceStatus
from kanary.release import State
from kanary.rollout import record as records
from kanary.rollout.policy import PROMOTION, Policy
from kanary.rollout.record import Record
from kanary.text import duration

SET, PROMOTE, ROLL_BACK, HOLD, WAIT, DONE = "set traffic", "promote", "roll back", "hold", "wait", "done"


@dataclass(frozen=True)
class Action:
    """The next thing to do. `percent` of SET; `why` in a sentence; `until` in seconds since the epoch, 0: open."""

    kind: str
    why: str = ""
    percent: int = 0
    until: float = 0.0


def next_action(record: Record, policy: Policy, status: ServiceStatus, now: float) -> Action:
    """The next action of a rollout that is not over, asked again after each look."""
    if record.phase == records.ROLLING_BACK:
        return Action(ROLL_BACK, record.why)
    if record.phase == records.WATCHING:
        return _watching(record, policy, now)
    if record.phase == records.PROMOTING:
        return Action(PROMOTE, record.why)
    broken = _broken(record, policy, status, now)
    if broken:
        return Action(ROLL_BACK, broken)
    if record.phase == records.MOVING and status.canary_ready and now < record.since + policy.deadline:
        return Action(SET, record.why, policy.steps[record.step])
    waits = _waits(record, policy, status, now)
    if waits is not None:
        late = record.since + policy.deadline
        if now >= late:
            return Action(HOLD, f"after {duration(policy.deadline)} at {record.percent} %: {waits.why}")
        return Action(WAIT, waits.why, until=min(waits.until, late) if waits.until else late)
    target = policy.steps[record.step + 1]
    before = (
        f"{record.percent} % of the traffic gave no reason to stop" if record.steps else f"{record.canary} is ready"
    )
    if target == PROMOTION:
        return Action(PROMOTE, record.sentence or before)
    return Action(SET, before, target)


def foreign(record: Record, status: ServiceStatus, digest: str, state: State) -> str:
    """Who has changed the service, and how, if what the automation did not write is in it; empty if nobody has."""
    intent = state.intent
    who = f"; the last act that is known is {intent.action} by {intent.who}, {intent.when}" if intent else ""
    if record.phase in (records.ROLLING_BACK, records.OVER):
        return ""
    if digest != record.digest:
        return f"the spec holds another model than {record.version or record.digest}{who}"
    if record.phase in (records.MOVING, records.PROMOTING):
        return ""
    if record.phase == records.WATCHING:
        moved = status.requested is not None or status.stable != record.canary
        return f"the promoted revision is not what serves any more{who}" if moved else ""
    if status.requested != record.asked:
        asked = "no percentage" if status.requested is None else f"{status.requested} %"
        return f"the spec asks for {asked}, and this rollout has not{who}"
    if status.canary != record.canary:
        return f"{record.canary} is not the canary any more{who}"
    return ""


def waits_for_person(record: Record, policy: Policy) -> int | None:
    """The step whose approval is asked now: a percentage, or FINDING for a finding; None where none is."""
    if record.phase not in (records.STARTING, records.BAKING):
        return None
    if record.verdict == "pause" and record.approval(records.FINDING) is None:
        return records.FINDING
    target = policy.steps[record.step + 1]
    return target if target in policy.approve and record.approval(target) is None else None


def _waits(record: Record, policy: Policy, status: ServiceStatus, now: float) -> Action | None:
    """What stands between the rollout and its next step; None for nothing."""
    if record.phase == records.MOVING:
        return Action(WAIT, f"{policy.steps[record.step]} % of the traffic is not in force yet")
    target = policy.steps[record.step + 1]
    next_step = "the promotion" if target == PROMOTION else f"{target} %"
    if record.paused is not None:
        why = f": {record.paused.why}" if record.paused.why else ""
        return Action(WAIT, f"{record.paused.who} has paused it{why}")
    if not status.canary_ready:
        failure = f": {status.failure}" if status.failure else ""
        return Action(WAIT, f"{record.canary} is not ready{failure}")
    if record.phase == records.BAKING:
        step = record.steps[-1]
        baked = record.in_force + policy.bake.seconds
        if record.problem:
            return Action(WAIT, f"there are no numbers: {record.problem}")
        if now < baked:
            return Action(WAIT, f"{step.percent} % bakes", until=baked)
        least = max(1, policy.bake.requests)
        if step.canary.requests < least:
            return Action(
                WAIT, f"the canary has answered {step.canary.requests} of {least} requests at {step.percent} %"
            )
    person = waits_for_person(record, policy)
    if person == records.FINDING:
        return Action(WAIT, f"a person must look: {record.sentence}")
    if person is not None:
        return Action(WAIT, f"approval of {next_step}")
    if target == PROMOTION and record.verdict != "promote":
        return Action(WAIT, record.sentence or "there are no numbers to judge by yet")
    return None


def _broken(record: Record, policy: Policy, status: ServiceStatus, now: float) -> str:
    """Why it must be taken back now; empty for no reason. A pause keeps the split, it does not take off the brake."""
    if record.verdict == "rollback":
        return record.sentence
    if not record.failing:
        return ""
    failure = f": {status.failure}" if status.failure else ""
    started = record.phase == records.STARTING
    patience = policy.ready_timeout if started and not status.failure else policy.failing_patience
    if now - record.failing >= patience:
        what = "has never been ready" if started else "is not ready any more"
        return f"{record.canary} {what}, for {duration(now - record.failing)}{failure}"
    return ""


def _watching(record: Record, policy: Policy, now: float) -> Action:
    if record.verdict == "rollback":
        return Action(ROLL_BACK, record.sentence)
    ends = record.in_force + policy.watch.seconds
    if now < ends:
        return Action(WAIT, "promoted; the absolute limits are watched", until=ends)
    step = record.steps[-1]
    seen = (
        f"{step.canary.requests} requests, {step.canary.errors} failed" if step.canary.requests else "no request seen"
    )
    return Action(DONE, f"promoted, and watched for {duration(policy.watch.seconds)}: {seen}")


def began(state: State, run_id: str) -> str:
    """Who has acted since this run deployed its canary, as a sentence; empty if nobody has."""
    intent = state.intent
    if intent is None or (intent.action == release.DEPLOY and intent.run_id == run_id):
        return ""
    return f"{intent.who} started {intent.action} at {intent.when}, after the deployment"
