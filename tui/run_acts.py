"""What can be done about a run, in the list or opened: terminate, retry, clone, archive; and starting one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from textual.widget import Widget

from kanary import kfp
from kanary.kfp_types import Run, progress
from kanary.operations import Operation
from kanary.snapshot_hub import RUNS, Hub
from kanary.text import duration
from tui.look import clock_time, state_sign

if TYPE_CHECKING:
    from textual.app import App

    from tui.dialog import Lines


class RunActs(Widget):
    """Mixed into what shows runs; `the_run` says which one is meant."""

    hub: Hub

    def the_run(self) -> Run | None:
        raise NotImplementedError

    def act_terminate(self) -> None:
        self._ask(
            "Terminate",
            lambda run: "" if not run.final else f"It has ended already: {run.state}.",
            "Its tasks are stopped; what they have written stays.",
            kfp.terminate_run,
            "is being ended",
        )

    def act_retry(self) -> None:
        self._ask(
            "Retry",
            lambda run: (
                "" if run.state in ("FAILED", "CANCELED") else f"Only what failed is retried; it is {run.state}."
            ),
            "What failed or was cancelled runs again; what succeeded is kept.",
            kfp.retry_run,
            "runs again",
        )

    def act_archive(self) -> None:
        run = self.the_run()
        back = run is not None and run.archived
        self._ask(
            "Put back" if back else "Archive",
            lambda run: "",
            "It comes back into the lists." if back else "It leaves the lists; a shows archived runs.",
            kfp.unarchive_run if back else kfp.archive_run,
            "is back in the lists" if back else "is archived",
        )

    def act_clone(self) -> None:
        run = self.the_run()
        if run is None:
            self.notify("There is no run under the cursor.", severity="warning", timeout=3)
            return
        from tui.submit import SubmitScreen

        self.app.push_screen(SubmitScreen(self.hub, run))

    def act_submit(self) -> None:
        from tui.submit import SubmitScreen

        self.app.push_screen(SubmitScreen(self.hub))

    def _ask(
        self,
        verb: str,
        why_not: Callable[[Run], str],
        effect: str,
        operation: Callable[[str], Operation[None]],
        done: str,
    ) -> None:
        run = self.the_run()
        if run is None:
            self.notify("There is no run under the cursor.", severity="warning", timeout=3)
            return
        if why := why_not(run):
            self.notify(why, title=f"{verb}: nothing to do", severity="warning", markup=False, timeout=5)
            return
        from tui.dialog import Dialog, Question  # not before the first picture

        question = Question(
            f"{verb} this run?",
            lambda typed: [*_about(run, self.hub.now()), [], [(effect, "")]],
            verb,
            type_name=run.name if self.hub.protected else "",
        )
        self.app.push_screen(Dialog(question, _doing(self.app, self.hub, run, operation, done)))


def _about(run: Run, now: datetime) -> Lines:
    sign, style = state_sign(run.state)
    done, total = progress(run)
    tasks = f", {done} of {total} tasks done" if total else ""
    return [
        [(run.name, "bold")],
        [(f"{sign} {run.state}", style), (tasks, "")],
        [("pipeline  ", "dim"), (run.pipeline_name or "–", "")],
        [("started   ", "dim"), (f"{clock_time(run.created_at, now)}, {duration(run.seconds(now))}", "")],
        [("run       ", "dim"), (run.run_id, "")],
    ]


def _doing(
    app: App[Any], hub: Hub, run: Run, operation: Callable[[str], Operation[None]], done: str
) -> Callable[[dict[str, str], Callable[[str, str], None]], Awaitable[str]]:
    async def act(typed: dict[str, str], say: Callable[[str, str], None]) -> str:
        say("asking the server ...", "dim")
        await hub.connections.call(operation(run.run_id))
        hub.wake(RUNS, run.run_id)
        return f"{run.name} {done}"

    return act
