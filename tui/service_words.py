"""What is said of a service where something is to be done about it: before, after, and how it stands now. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from kanary.errors import KanaryError
from kanary.kserve import decide
from kanary.kserve.status import ServiceStatus
from kanary.release import Intent
from kanary.snapshot_hub import Hub
from kanary.snapshot_services import Service, moment
from kanary.text import duration, one_line, rate, shortened
from tui.dialog import Lines
from tui.graph import share_bar
from tui.look import Spans, clock_time

_BAR = 24


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
    out = f"canary out for {age}" if age else f"since {clock_time(moment(status.since), datetime.now(UTC))}"
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


def no_share(text: str) -> str:
    """Why this is no share to give the canary; empty where it is one."""
    return "" if text.isdecimal() and int(text) <= 99 else "A whole number from 0 to 99; P gives the canary everything."
