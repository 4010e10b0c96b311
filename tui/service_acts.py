"""What can be done about a service, in the list or opened: roll back, promote, give the canary another share.

Each goes through the very functions of kanary.kserve that the command line and the automation call.
"""

from __future__ import annotations

import time

from textual.widget import Widget

from kanary.errors import KanaryError
from kanary.kserve import decide
from kanary.release import Release
from kanary.snapshot_hub import Hub
from kanary.snapshot_services import Service
from kanary.text import one_line
from tui.dialog import AGREED, Act, Dialog, Field, Lines, Question
from tui.promotion import ANYWAY, Promotion
from tui.rollback import Say, roll_back
from tui.service_words import (
    move_lines,
    moved_words,
    no_share,
    now_lines,
    rollback_lines,
    rollout_lines,
    short,
    warnings,
)

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
            plan = decide.plan(service.seen, service.state, "you", "", "", chosen)
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
        promotion = Promotion(self.hub, service)
        question = Question(
            f"Promote {service.status.name}?",
            promotion.lines,
            "Promote",
            (REASON,),
            self._type_name(service),
            lambda: now_lines(self.hub, service.key, ()),
            stay=True,
            look=promotion.look,
        )

        async def act(typed: dict[str, str], say: Say) -> str:
            return await promotion.act(typed["reason"], typed[AGREED] == ANYWAY, say)

        self.app.push_screen(Dialog(question, act))

    def act_traffic(self) -> None:
        service = self._service("Traffic")
        if service is None or not self._has_canary("Traffic", service):
            return
        status = service.status

        def lines(typed: dict[str, str]) -> Lines:
            percent = int(typed["percent"]) if not no_share(typed.get("percent", "")) else None
            after = [(100 - percent, "stable"), (percent, "canary")] if percent is not None else []
            words = f"{short(status, status.canary)} {percent} %" if percent is not None else "?"
            return [*move_lines(service, after, words), *warnings(service)]

        question = Question(
            f"Give the canary of {status.name} another share?",
            lines,
            "Set traffic",
            (Field("percent", "Percent, 0 to 99", str(status.effective), no_share), REASON),
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
