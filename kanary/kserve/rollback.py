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
from kanary.kserve import decide, models, store
from kanary.kserve.decide import Action, Plan
from kanary.kserve.status import ServiceStatus, service_status
from kanary.kserve.store import Token
from kanary.kubernetes import Act, Document
from kanary.release import Denial, Intent, Release, State

Look = Callable[[Release], models.Found]
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
    to: str = "",
    deny: bool = True,
    deadline: float = 300.0,
    look: Look = models.look,
    on_progress: Callable[[Progress], None] = _silent,
    clock: Clock = time.time,
) -> Act[Rollback]:
    """Takes a service back to its stable release, and, with `deny`, denies the digest it is taken back from.

    `to` names another release of its history (a version, digest, revision or run id). Content that has to come up
    anew is looked for first (`look`), and where it is gone nothing is touched; the traffic stays where it is healthy
    until that content is ready. Where the stable revision still serves, nothing is looked for: the traffic goes first.

    Without a token it is an operator's: it bumps the epoch and takes over the Lease. With one it is an automation's,
    which raises Held where somebody has acted since. Raises KanaryError where there is no way back, InputError where
    there is no such service. `deadline`: seconds until it stops waiting; the result is then held.
    """
    started = clock()
    service, state, plan = yield from _begin(name, namespace, reason, token, to, deny, look, started)
    before = service_status(service, state)
    assert plan.intent is not None
    if plan.nothing:
        return _result("already", before, before, plan.intent, state, plan.nothing)
    on_progress(Progress(PLAN, _planned(before, plan, state), started))
    run = _Run(name, namespace, state.epoch, plan.intent, started, deadline, on_progress, clock)
    outcome, why, service = yield from run.drive(service, plan.resumed)
    state = run.state or state
    result = _result(outcome, before, service_status(service, state), run.intent, state, why)
    begun = release.timestamp(started)
    times = replace(result, started=begun, sent=run.sent, patched=run.patched)
    return replace(times, effective=run.effective, restored=run.restored)


def _begin(
    name: str, namespace: str, reason: str, token: Token | None, to: str, deny: bool, look: Look, now: float
) -> Act[tuple[Document, State, Plan]]:
    """Reads everything at once, writes the intent down."""
    lease_path = k8s.leases(namespace, release.name_of(name))
    for _ in range(_CONFLICTS):
        asked = (*store.reads(name, namespace), k8s.read(lease_path), k8s.who_am_i())
        found, config_map, lease, me = yield k8s.Together(asked)
        state = release.parse(store.unpack(config_map))
        service = yield from store.seen(store.existing(found, name, namespace))
        if token is not None:
            release.check_epoch(state, token.epoch)
        who = k8s.username(me)
        plan = _plan(service, state, who, release.timestamp(now), reason, to)
        if not plan.nothing:
            check_target(plan, state, f"{namespace}/{name}", look, chosen=bool(to))
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


def _plan(service: Document, state: State, who: str, when: str, why: str, to: str) -> Plan:
    metadata = service["metadata"]
    target = decide.find(state, to, f"{metadata['namespace']}/{metadata['name']}") if to else None
    return decide.plan(service, state, who, when, why, target)


def check_target(plan: Plan, state: State, where: str, look: Look, *, chosen: bool) -> None:
    """Raises KanaryError where what must come up anew is gone: nothing has been touched yet."""
    intent = plan.intent
    if intent is None or intent.target is None or not (chosen or intent.kind == decide.CONTENT):
        return
    found = look(target_of(intent, state))
    if found.gone:
        raise KanaryError(
            f"{where} cannot be rolled back to {intent.target_version or intent.target_digest}: {found.why}.",
            "Nothing was changed. `kanary history` lists other releases for --to.",
        )


def target_of(intent: Intent, state: State) -> Release:
    """The release that a rollback leads to; of one that nobody recorded, what its content says."""
    target = intent.target or {}
    known = release.newest(state, intent.target_digest)
    if known is not None:
        return known
    return Release(intent.target_version, manifests.storage_uri(target), intent.target_digest, target)


def seconds_of(intent: Intent, state: State) -> float | None:
    """How long the target's revision took to become ready last time; None where nobody recorded it."""
    return target_of(intent, state).seconds


@dataclass(frozen=True)
class Preview:
    """What a rollback would do: in words, and the first patch it would send (None: there is nothing to do, or wait).

    `seconds`: until content that must come up anew is ready, from the last time; None where unknown or not needed.
    """

    text: str
    patch: Document | None
    cold: bool
    seconds: float | None
    before: ServiceStatus


def preview(name: str, namespace: str, *, to: str = "", look: Look = models.look) -> Act[Preview]:
    """What `rollback` would do now. Changes nothing; the API server checks the patch. Raises as rollback does."""
    service, state = yield from store.both(name, namespace)
    plan = _plan(service, state, "dry run", "", "", to)
    before = service_status(service, state)
    assert plan.intent is not None
    if plan.nothing:
        return Preview(plan.nothing, None, False, None, before)
    check_target(plan, state, f"{namespace}/{name}", look, chosen=bool(to))
    action = decide.next_action(plan.intent, service)
    if action.patch is not None:
        yield k8s.patch(k8s.inference_services(namespace, name), action.patch, dry_run=True)
    cold = plan.intent.kind == decide.CONTENT
    return Preview(_planned(before, plan, state), action.patch, cold, seconds_of(plan.intent, state), before)


def _planned(before: ServiceStatus, plan: Plan, state: State) -> str:
    assert plan.intent is not None
    split = ", ".join(f"{name} {percent} %" for name, percent in before.split.items()) or "none"
    stable = {decide.CANARY: before.stable, decide.PROMOTION: before.previous}.get(plan.intent.kind)
    version = plan.intent.target_version or "unrecorded content"
    again = "goes on with: " if plan.resumed else ""
    if plan.intent.kind != decide.CONTENT:
        return f"{again}traffic {split} -> {stable or 'what served before'} 100 % ({version})"
    seconds = seconds_of(plan.intent, state)
    took = "nobody knows how long that takes" if seconds is None else f"some {seconds:.0f} s, as last time"
    return f"{again}traffic {split} stays until {version} has come up anew ({took}), then it takes 100 %"


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
        self.begun_on: Document | None = None  # the service as it was read before the intent was written down
        self.sent: float | None = None
        self.patched: float | None = None
        self.effective: float | None = None
        self.restored: float | None = None

    def drive(self, service: Document, resumed: bool) -> Act[tuple[str, str, Document]]:
        """Outcome, why, and the service at the end. `resumed`: the intent was written down by an earlier run."""
        self.begun_on = None if resumed else service
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
                self.effective = self.effective if self.effective is not None else self.clock() - self.started
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
        if service is not self.begun_on:
            yield from store.still(self.name, self.namespace, self.epoch)
        if action.kind == decide.RESTORE:
            yield from self._note_newest(service)
        sent = self.clock() - self.started
        (answer,) = yield k8s.Together((k8s.patch(path, action.patch or {}),))
        if store.conflict(answer):
            return (yield from self._reread())
        stored = yield from store.seen(store.existing(answer, self.name, self.namespace))
        at = self._tell(action.kind, action.why)
        # In Standard mode content that came up anew takes the traffic when it is made the predictor.
        if action.kind == decide.STOP or (action.kind == decide.FINISH and self.effective is None):
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
        seconds = max(0.05, min(_LOOK, self.ends - self.clock()))
        found: Document | None = yield from store.after(service, seconds)
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
