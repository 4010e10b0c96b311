"""What can be done about a service, in the list or opened: roll back, promote, give the canary another share.

Each goes through the very functions of kanary.kserve that the command line and the automation call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from textual.widget import Widget

from kanary.errors import KanaryError
from kanary.kserve import decide
from kanary.kserve.status import ServiceStatus
from kanary.release import Intent, Release
from kanary.snapshot_hub import Hub
from kanary.snapshot_services import Service
from kanary.text import duration, one_line, rate, shortened
from tui.dialog import Act, Dialog, Field, Lines, Question
from tui.graph import share_bar
from tui.look import Spans

Say = Callable[[str, str], None]
_BAR = 24
_QUIET = 60.0  # seconds that the end of the canary's requests is waited for
REASON = Field("reason", "Reason (may be empty)")


class ServiceActs(Widget):
    """Mixed into what shows services; `the_service` says which one is meant."""

    hub: Hub

    def the_service(self) -> Service | None:
        raise NotImplementedError

    def chosen_release(self) -> Release | None:
        """The release to go back to, where one was chosen; None for the stable one."""
        return None

    def act_rollback(self) -> None:
        service, chosen = self._service("Roll back"), self.chosen_release()
        if service is None:
            return
        try:
            plan = decide.plan(service.document, service.state, "you", "", "", chosen)
        except KanaryError as error:
            self._refuse("Roll back", f"{error.message} {error.hint}")
            return
        if plan.nothing or plan.intent is None:
            self._refuse("Roll back", plan.nothing)
            return
        intent = plan.intent
        question = Question(
            f"Roll back {service.status.name}{f' to {chosen.version or chosen.digest}' if chosen else ''}?",
            lambda typed: rollback_lines(service, intent, plan.resumed),
            "Roll back",
            (REASON,),
            self._type_name(service),
            lambda: now_lines(self.hub, service.key, intent.bad),
            stay=True,
        )

        async def act(typed: dict[str, str], say: Say) -> str:
            to = chosen.digest if chosen else ""
            return await roll_back(self.hub, service, typed["reason"], to, intent.bad, say)

        self.app.push_screen(Dialog(question, act))

    def act_promote(self) -> None:
        service = self._service("Promote")
        if service is None or not self._has_canary("Promote", service):
            return
        status = service.status
        after = [(100, "canary")]
        question = Question(
            f"Promote {status.name}?",
            lambda typed: [
                *move_lines(service, after, f"{short(status, status.canary)} 100 %"),
                [("STABLE    ", "dim"), (version_of(service, status.stable), ""), ("  →  ", "dim"),
                 (version_of(service, status.canary), "canary")],
                [("", "")],
                [("The canary becomes the stable release: all callers get it.", "")],
                *warnings(service),
            ],
            "Promote",
            (REASON,),
            self._type_name(service),
            lambda: now_lines(self.hub, service.key, ()),
            stay=True,
        )  # fmt: skip

        async def act(typed: dict[str, str], say: Say) -> str:
            from kanary.kserve import steer

            api = await self.hub.connections.kubernetes()
            say("the percentage leaves the spec ...", "dim")
            moved = await api.call(steer.promote(status.name, status.namespace, typed["reason"]))
            return moved_words(moved.after, moved.in_force, moved.why)

        self.app.push_screen(Dialog(question, act))

    def act_traffic(self) -> None:
        service = self._service("Traffic")
        if service is None or not self._has_canary("Traffic", service):
            return
        status = service.status

        def lines(typed: dict[str, str]) -> Lines:
            percent = int(typed["percent"]) if not _no_share(typed.get("percent", "")) else None
            after = [(100 - percent, "stable"), (percent, "canary")] if percent is not None else []
            words = f"{short(status, status.canary)} {percent} %" if percent is not None else "?"
            return [*move_lines(service, after, words), *warnings(service)]

        question = Question(
            f"Give the canary of {status.name} another share?",
            lines,
            "Set traffic",
            (Field("percent", "Percent, 0 to 99", str(status.effective), _no_share), REASON),
            self._type_name(service),
            lambda: now_lines(self.hub, service.key, ()),
            stay=True,
        )

        async def act(typed: dict[str, str], say: Say) -> str:
            from kanary.kserve import steer

            api = await self.hub.connections.kubernetes()
            say("the percentage goes into the spec ...", "dim")
            act = steer.set_traffic(status.name, status.namespace, int(typed["percent"]), typed["reason"])
            moved = await api.call(act)
            return moved_words(moved.after, moved.in_force, moved.why)

        self.app.push_screen(Dialog(question, act))

    def act_hold(self) -> None:
        service = self._service("Pause")
        rollout = service.under_way if service else None
        if service is None or rollout is None:
            if service is not None:
                self._refuse("Pause", f"No rollout of {service.status.name} is under way.")
            return
        what = "Let it go on" if rollout.paused else "Pause"
        effect = "It goes on with its steps." if rollout.paused else "The split stays as it is; the brake stays on."

        async def act(typed: dict[str, str], say: Say) -> str:
            from kanary.rollout import acts

            api = await self.hub.connections.kubernetes()
            said = acts.resume if rollout.paused else acts.pause
            await api.call(said(service.status.name, service.status.namespace, typed["reason"], time.time()))
            return f"the rollout of {service.status.name} {'goes on' if rollout.paused else 'is paused'}"

        self._tell_rollout(service, f"{what}: the rollout of {service.status.name}?", what, effect, act)

    def act_approve(self) -> None:
        service = self._service("Approve")
        if service is None:
            return
        if service.under_way is None:
            self._refuse("Approve", f"No rollout of {service.status.name} is under way.")
            return

        async def act(typed: dict[str, str], say: Say) -> str:
            from kanary.rollout import acts

            api = await self.hub.connections.kubernetes()
            await api.call(acts.approve(service.status.name, service.status.namespace, typed["reason"], time.time()))
            return f"the step of {service.status.name} is approved"

        effect = "The step that waits for a person may pass."
        self._tell_rollout(service, f"Approve: the rollout of {service.status.name}?", "Approve", effect, act)

    def _tell_rollout(self, service: Service, title: str, go: str, effect: str, act: Act) -> None:
        def lines(typed: dict[str, str]) -> Lines:
            return [*rollout_lines(service), [], [(effect, "")]]

        self.app.push_screen(Dialog(Question(title, lines, go, (REASON,), self._type_name(service)), act))

    def _service(self, verb: str) -> Service | None:
        service = self.the_service()
        if service is None:
            self._refuse(verb, "There is no service under the cursor.")
        elif service.problem:
            self._refuse(verb, service.problem)
            return None
        return service

    def _has_canary(self, verb: str, service: Service) -> bool:
        status = service.status
        if not status.canary:
            self._refuse(verb, f"{status.name} has no canary: {status.stable or 'no revision'} takes all traffic.")
        elif not status.canary_ready:
            why = f": {one_line(status.failure)}" if status.failure else ""
            self._refuse(verb, f"The canary {status.canary} is not ready{why}. R takes it back.")
            return False
        return bool(status.canary)

    def _refuse(self, verb: str, why: str) -> None:
        self.notify(why, title=f"{verb}: not now", severity="warning", markup=False, timeout=8)

    def _type_name(self, service: Service) -> str:
        return service.status.name if self.hub.protected else ""


# ---- what the dialogs say


def rollout_lines(service: Service) -> list[Spans]:
    """How far its rollout is, what it waits for, and the judge's verdict in its sentence."""
    rollout = service.rollout
    if rollout is None:
        return []
    ended = f"{rollout.outcome} {rollout.ended}" if rollout.outcome else "paused" if rollout.paused else rollout.phase
    lines: list[Spans] = [
        [("rollout   ", "dim"), (f"{rollout.percent} %, {one_line(ended)}", "canary"),
         (f"   {one_line(rollout.version)}, by {one_line(rollout.who) or '-'}", "dim")],
    ]  # fmt: skip
    if rollout.waits and not rollout.outcome:
        lines.append([("waits     ", "dim"), (one_line(rollout.waits), "")])
    if rollout.sentence:
        lines.append([("judge     ", "dim"), (one_line(rollout.sentence), "info")])
    if rollout.problem and not rollout.outcome:
        lines.append([(f"! {one_line(rollout.problem)}", "warn")])
    return lines


def short(status: ServiceStatus, revision: str) -> str:
    """A revision's name without what it shares with its service."""
    return revision.removeprefix(f"{status.name}-predictor-").removeprefix(f"{status.name}-") or revision


def version_of(service: Service, revision: str) -> str:
    """`00004 (v-1a20a3b23d5d)`."""
    found = service.status.revision(revision)
    version = found.version if found else ""
    recorded = next((entry.version for entry in reversed(service.state.history) if entry.revision == revision), "")
    named = version or recorded
    return f"{short(service.status, revision) or '–'}{f' ({named})' if named else ''}"


def split_words(service: Service) -> str:
    return (
        ", ".join(f"{short(service.status, name)} {percent} %" for name, percent in service.status.split.items())
        or "none"
    )


def split_bar(service: Service) -> Spans:
    roles = [(r.percent, r.role if r.role in ("stable", "canary") else "dim") for r in service.status.revisions]
    return share_bar(roles, _BAR)


def move_lines(service: Service, after: Sequence[tuple[int, str]], words: str) -> list[Spans]:
    """The service, and its traffic now and then."""
    status, since = service.status, service.canary_since
    age = duration((datetime.now(UTC) - since).total_seconds()) if since else ""
    out = f"canary out for {age}" if age else f"since {status.since}"
    return [
        [(f"{status.namespace}/{status.name}", "bold"), (f"   {status.mode}   {out}", "dim")],
        [],
        [("TRAFFIC   ", "dim"), *split_bar(service), (f"  {split_words(service)}", "")],
        [("     then ", "dim"), *(share_bar(after, _BAR) if after else (("?" * _BAR, "dim"),)), (f"  {words}", "bold")],
    ]


def rollback_lines(service: Service, intent: Intent, resumed: bool) -> Lines:
    """Before and after of a rollback, and what exactly will be done."""
    status = service.status
    goal = {decide.CANARY: status.stable, decide.PROMOTION: status.previous}.get(intent.kind, "")
    bad = ", ".join(version_of(service, name) for name in intent.bad) or "what the spec holds"
    goal_ready = status.revision(goal)
    readiness = {
        decide.CANARY: "ready, it serves now" if goal_ready and goal_ready.ready else "",
        decide.PROMOTION: "KServe starts it again: a cold start",
        decide.CONTENT: "a new revision must come up first; until then the traffic stays",
    }.get(intent.kind, "")
    then = f"{short(status, goal)} 100 %" if goal else "a new revision of the stable content 100 %"
    restored = intent.target_version or (intent.target_digest and shortened(intent.target_digest, 30)) or ""
    lines: list[Spans] = [
        *move_lines(service, [(100, "stable")], then),
        [("REVISION  ", "dim"), (bad, "canary"), ("  →  ", "dim"),
         (version_of(service, goal) if goal else "a new one", "stable")],
        [("READY     ", "dim"), (readiness, "")],
        [("RESTORED  ", "dim"), (f"the content of {restored}, as spec.predictor" if restored else
                                 "nothing: the stable content was never recorded; apply its manifest", "")],
    ]  # fmt: skip
    if intent.digest != intent.target_digest:
        denied = intent.version or shortened(intent.digest, 40)
        lines.append([("DENIED    ", "dim"), (f"{denied}: deploy refuses it from then on", "")])
    if resumed:
        lines.append([("A rollback is unfinished: it goes on where it stands.", "warn")])
    return lines


def warnings(service: Service) -> Lines:
    """What a person should know before giving the canary more traffic."""
    notes = [*service.status.notes, *([service.status.failure] if service.status.failure else [])]
    return [[(f"! {one_line(note)}", "warn")] for note in notes]


def now_lines(hub: Hub, key: str, bad: Sequence[str]) -> Lines:
    """How the service stands at this moment: the split as its status tells it, and what its callers send where."""
    service = (hub.services.value or {}).get(key)
    if service is None:
        return [[("The service is gone.", "warn")]]
    lines: list[Spans] = [[("NOW       ", "dim"), *split_bar(service), (f"  {split_words(service)}", "bold")]]
    metrics = hub.metrics.value
    if metrics is not None and metrics.profile is not None:
        names = dict.fromkeys((*service.status.split, *bad))
        courses = {name: metrics.courses.get(f"{service.status.namespace}/{name}") for name in names}
        parts = [f"{short(service.status, name)} {rate(c.now.requests)}" for name, c in courses.items() if c]
        lines.append(
            [("REQ/S     ", "dim"), (", ".join(parts) or "none", ""), (f"  over {metrics.window:.0f} s", "dim")]
        )
    return lines


def moved_words(after: ServiceStatus, in_force: bool, why: str) -> str:
    split = ", ".join(f"{short(after, name)} {percent} %" for name, percent in after.split.items()) or "none"
    if not in_force:
        raise KanaryError(f"Traffic is {split}: not as asked yet.", one_line(why))
    return f"traffic is {split}"


def _no_share(text: str) -> str:
    return "" if text.isdecimal() and int(text) <= 99 else "A whole number from 0 to 99; P gives the canary everything."


# ---- the rollback


async def roll_back(hub: Hub, service: Service, reason: str, to: str, bad: Sequence[str], say: Say) -> str:
    """Rolls back, tells each step and when the last request has gone to what it is taken from. Gives the last word."""
    from kanary.kserve import rollback as brake

    api = await hub.connections.kubernetes()
    status, started = service.status, time.time()
    quiet: asyncio.Task[None] | None = None

    def tell(step: brake.Progress) -> None:
        nonlocal quiet
        if step.kind != brake.PLAN:  # the dialog has said it already
            text = one_line(step.text).replace(f"{status.name}-predictor-", "")
            say(f"{max(0.0, step.at - started) * 1000:6.0f} ms  {text}", _STEP.get(step.kind, ""))
        if step.kind == brake.EFFECTIVE and bad and quiet is None:
            quiet = asyncio.create_task(tell_last_request(hub, status, bad, say))

    try:
        done = await api.call(brake.rollback(status.name, status.namespace, reason, to=to, on_progress=tell))
        if quiet is not None:
            await quiet
    finally:
        if quiet is not None:
            quiet.cancel()
    if done.outcome == "held":
        raise KanaryError(f"Unfinished: {one_line(done.why)}.", "R goes on with it.")
    if done.outcome == "already":
        return f"nothing to do: {one_line(done.why)}"
    return f"{status.name} is rolled back to {done.target_version or 'the stable content'}"


_STEP = {decide.WAIT: "dim", "effective": "good", decide.COMPLETE: "good"}


async def tell_last_request(hub: Hub, status: ServiceStatus, bad: Sequence[str], say: Say) -> None:
    """Tells when the callers' proxy has counted the last request to revisions that get no traffic any more."""
    from kanary import snapshot_metrics
    from kanary.rollout.profiles import Where

    names = ", ".join(short(status, name) for name in bad)
    metrics = hub.metrics.value
    if metrics is None or metrics.profile is None:
        why = one_line(hub.metrics.error or (metrics.note if metrics else "") or "no metrics yet")
        say(f"whether requests still reach {names} cannot be seen: {why}", "warn")
        return
    where = Where(status.namespace, status.name, tuple(bad), hub.connections.config.prometheus_selectors)
    before: snapshot_metrics.Count | None = None
    ends = time.monotonic() + max(_QUIET, 4 * metrics.interval)
    try:
        client = await hub.connections.prometheus()
        while time.monotonic() < ends:
            found = await client.call(snapshot_metrics.count(metrics.profile, where))
            if found.total is None:
                say(f"the proxy has no route to {names} any more: its last request is gone", "good")
                return
            if (
                before is not None
                and before.total == found.total
                and before.scraped < found.scraped
                and not found.active
            ):
                at = datetime.fromtimestamp(before.scraped).astimezone()
                say(f"the last request to {names} is gone: none since {at:%H:%M:%S}, {found.total:.0f} in all", "good")
                return
            if before is None or before.total != found.total:
                before = found
            await asyncio.sleep(min(1.0, metrics.interval / 2))
        say(f"requests still reach {names} after {_QUIET:.0f} s", "bold bad")
    except KanaryError as error:
        say(f"whether requests still reach {names} cannot be seen: {one_line(error.message)}", "warn")
