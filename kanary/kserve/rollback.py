"""The brake: traffic to the stable revision now, then the stable content back in the spec.

Killed between any two requests and run again it goes on where it was. An operator's waits for nobody's Lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from kanary import kubernetes as k8s
from kanary import manifests, release
from kanary.errors import ApiError, KanaryError
from kanary.kserve import decide, store
from kanary.kserve.decide import Action, Plan
from kanary.kserve.status import ServiceStatus, service_status
from kanary.kserve.store import Token
from kanary.kubernetes import Act, Document
from kanary.release import Denial, Intent, State

Clock = Callable[[], float]
PLAN, EFFECTIVE = "plan", "effective"  # kinds of progress, besides those of kanary.kserve.decide
_LOOK = 5.0  # seconds without an event after which the service is read again
_CONFLICTS = 50


@dataclass(frozen=True)
class Progress:
    """One step of a rollback: its kind, what it is, when (seconds since the epoch)."""

    kind: str
    text: str
    at: float


@dataclass(frozen=True)
class Rollback:
    """How a rollback went. Seconds are counted from the start; None for what it did not come to.

    `outcome`: done, already (there was nothing to do) or held (stopped at what `why` says; `after` is how it stands).
    """

    outcome: str
    before: ServiceStatus
    after: ServiceStatus
    bad_version: str
    bad_digest: str
    target_version: str
    denied: bool
    why: str = ""
    started: str = ""  # ISO 8601: what the seconds count from
    sent: float | None = None  # the patch that takes the traffic away was about to leave
    patched: float | None = None  # it was accepted by the API
    effective: float | None = None  # the bad revisions get no traffic, as the status tells
    restored: float | None = None  # the stable content serves, and the percentage is gone


def _silent(progress: Progress) -> None:
    return


def rollback(
    name: str,
    namespace: str,
    reason: str = "",
    *,
    token: Token | None = None,
    deny: bool = True,
    deadline: float = 300.0,
    on_progress: Callable[[Progress], None] = _silent,
    clock: Clock = time.time,
) -> Act[Rollback]:
    """Takes a service back to its stable release, and, with `deny`, denies the digest it is taken back from.

    Without a token it is an operator's: it bumps the epoch and takes over the Lease. With one it is an automation's,
    which raises Held where somebody has acted since. Raises KanaryError where there is no way back, InputError where
    there is no such service. `deadline`: seconds until it stops waiting; the result is then held.
    """
    started = clock()
    service, state, plan = yield from _begin(name, namespace, reason, token, deny, started)
    before = service_status(service, state)
    assert plan.intent is not None
    if plan.nothing:
        return _result("already", before, before, plan.intent, state, plan.nothing)
    on_progress(Progress(PLAN, _planned(before, plan), started))
    run = _Run(name, namespace, state.epoch, plan.intent, started, deadline, on_progress, clock)
    outcome, why, service = yield from run.drive(service)
    state = run.state or state
    result = _result(outcome, before, service_status(service, state), run.intent, state, why)
    begun = release.timestamp(started)
    times = replace(result, started=begun, sent=run.sent, patched=run.patched)
    return replace(times, effective=run.effective, restored=run.restored)


def _begin(
    name: str, namespace: str, reason: str, token: Token | None, deny: bool, now: float
) -> Act[tuple[Document, State, Plan]]:
    """Reads everything at once, writes the intent down."""
    lease_path = k8s.leases(namespace, release.name_of(name))
    for _ in range(_CONFLICTS):
        asked = (*store.reads(name, namespace), k8s.read(lease_path), k8s.who_am_i())
        found, config_map, lease, me = yield k8s.Together(asked)
        service, state = store.existing(found, name, namespace), release.parse(store.unpack(config_map))
        if token is not None:
            release.check_epoch(state, token.epoch)
        who = k8s.username(me)
        plan = decide.plan(service, state, who, release.timestamp(now), reason)
        if plan.nothing or plan.resumed:
            return service, state, plan
        assert plan.intent is not None
        wanted = release.begin(state, plan.intent, operator=token is None)
        wanted = _denied(wanted, plan.intent) if deny else wanted
        requests = [store.write(wanted, name, namespace)]
        if token is None and not (isinstance(lease, ApiError) and lease.status != 404):
            # The epoch is what stops an automation; losing the race for the Lease must not stop the brake.
            held = None if isinstance(lease, ApiError) else lease
            requests.append(store.take_lease(held, name, namespace, f"operator {who}", now))
        written = yield k8s.Together(tuple(requests))
        if not store.conflict(written[0]):
            return service, release.parse(store.unpack(written[0])), plan
    raise KanaryError(f"The release state of {namespace}/{name} changes all the time.", "Try again.")


def _planned(before: ServiceStatus, plan: Plan) -> str:
    assert plan.intent is not None
    split = ", ".join(f"{name} {percent} %" for name, percent in before.split.items()) or "none"
    stable = {decide.CANARY: before.stable, decide.PROMOTION: before.previous}.get(plan.intent.kind)
    version = plan.intent.target_version or "unrecorded content"
    again = "goes on with: " if plan.resumed else ""
    return f"{again}traffic {split} -> {stable or 'a new revision'} 100 % ({version})"


def _denied(state: State, intent: Intent) -> State:
    # Taking back a setting of the same model must not deny the model.
    if intent.digest == intent.target_digest:
        return state
    entry = Denial(intent.digest, intent.version, intent.who, intent.when, intent.why)
    return release.amend(release.deny(state, entry), intent.digest, verdict=release.ROLLED_BACK)


def _result(
    outcome: str, before: ServiceStatus, after: ServiceStatus, intent: Intent, state: State, why: str
) -> Rollback:
    denied = release.denial(state, intent.digest) is not None
    return Rollback(outcome, before, after, intent.version, intent.digest, intent.target_version, denied, why)


class _Run:
    """One rollback under way: what was decided, and when what came true."""

    def __init__(
        self,
        name: str,
        namespace: str,
        epoch: int,
        intent: Intent,
        started: float,
        deadline: float,
        on_progress: Callable[[Progress], None],
        clock: Clock,
    ) -> None:
        self.name, self.namespace, self.epoch, self.intent = name, namespace, epoch, intent
        self.started, self.ends = started, started + deadline
        self.on_progress, self.clock = on_progress, clock
        self.state: State | None = None
        self.sent: float | None = None
        self.patched: float | None = None
        self.effective: float | None = None
        self.restored: float | None = None

    def drive(self, service: Document) -> Act[tuple[str, str, Document]]:
        """Outcome, why, and the service at the end."""
        waiting = ""
        while True:
            action = decide.next_action(self.intent, service)
            if self.effective is None and decide.traffic_left(self.intent, service):
                self.effective = self._tell(
                    EFFECTIVE, f"{', '.join(self.intent.bad) or 'what the spec holds'} gets no traffic"
                )
            if action.patch is not None:
                service = yield from self._patch(action, service)
                continue
            if action.kind == decide.COMPLETE:
                self.restored = self._tell(action.kind, "the stable content serves all traffic")
                yield from self._finish(service, release.DONE)
                return "done", "", service
            if action.kind == decide.STUCK:
                yield from self._finish(service, release.HELD)
                return "held", action.why, service
            if action.why != waiting:
                waiting = action.why
                self._tell(action.kind, waiting)
            if self.clock() >= self.ends:
                return "held", f"still waiting that {action.why}; run it again to go on", service
            self._come_up_instead(service)
            service = yield from self._look(service)

    def _tell(self, kind: str, text: str) -> float:
        at = self.clock()
        self.on_progress(Progress(kind, text, at))
        return at - self.started

    def _patch(self, action: Action, service: Document) -> Act[Document]:
        path = k8s.inference_services(self.namespace, self.name)
        if action.kind == decide.RESTORE:
            yield from self._note_newest(service)
        sent = self.clock() - self.started
        (answer,) = yield k8s.Together((k8s.patch(path, action.patch or {}),))
        if store.conflict(answer):
            return (yield from self._reread())
        stored = store.existing(answer, self.name, self.namespace)
        at = self._tell(action.kind, action.why)
        if action.kind == decide.STOP:
            self.sent, self.patched = sent, at
        if action.kind == decide.RESTORE and self.intent.target is not None:
            self.sent, self.patched = self.sent or sent, self.patched or at
            # Defaults of a newer KServe would otherwise look like a change for ever.
            if not decide.same(manifests.content(stored), self.intent.target):
                yield from self._amend(replace(self.intent, target=manifests.content(stored)))
        return stored

    def _note_newest(self, service: Document) -> Act[None]:
        """A revision that somebody made of the bad content meanwhile must not pass for the restored one."""
        now = service_status(service)
        newest = now.created
        if newest not in ("", now.stable, *self.intent.bad):
            yield from self._amend(replace(self.intent, bad=(*self.intent.bad, newest)))

    def _amend(self, intent: Intent) -> Act[None]:
        self.intent = intent
        yield from store.change(self.name, self.namespace, lambda state: replace(state, intent=intent), self.epoch)

    def _come_up_instead(self, service: Document) -> None:
        """Where the previous revision does not take over, the stable content itself is the way back."""
        slow = self.clock() > (self.started + self.ends) / 2
        if self.intent.kind == decide.PROMOTION and self.effective is None and slow and self.intent.target is not None:
            self.intent = replace(self.intent, kind=decide.CONTENT)

    def _look(self, service: Document) -> Act[Document]:
        """The service after its next change."""
        version = service["metadata"]["resourceVersion"]
        seconds = max(0.05, min(_LOOK, self.ends - self.clock()))
        collection = k8s.inference_services(self.namespace)
        found: Document | None = yield k8s.Change(collection, self.name, version, seconds)
        return found if found is not None else (yield from self._reread())

    def _reread(self) -> Act[Document]:
        service, state = yield from store.both(self.name, self.namespace)
        release.check_epoch(state, self.epoch)
        return service

    def _finish(self, service: Document, phase: str) -> Act[None]:
        newest = service_status(service).created

        def settle(state: State) -> State:
            restored = release.amend(state, self.intent.target_digest, revision=newest, verdict=release.PROMOTED)
            return store.settled(restored if phase == release.DONE else state, phase)

        self.state = yield from store.change(self.name, self.namespace, settle, self.epoch)
        yield from store.free_lease(self.name, self.namespace, f"operator {self.intent.who}")
