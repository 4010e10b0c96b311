"""`kanary rollback`, `set-traffic` and `promote`: an InferenceService's traffic on the command line."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kanary import kubernetes
from kanary.commands.numbers import above_zero
from kanary.config import Config
from kanary.errors import KanaryError
from kanary.kserve import decide, steer
from kanary.kserve import readiness as way_back
from kanary.kserve import rollback as brake
from kanary.kserve.readiness import Readiness
from kanary.kserve.status import ServiceStatus
from kanary.kserve.steer import Moved
from kanary.kubernetes import Kubernetes
from kanary.text import one_line, table

if TYPE_CHECKING:
    from kanary.cli import Action


def rollback(parser: argparse.ArgumentParser) -> Action:
    """Take a service back to its stable release: its traffic at once, then the content of its spec.

    With --to, to any release of `kanary history`: its content comes up first, the traffic stays where it is healthy.
    The digest it is taken back from is denied: deploying it again is refused. Killed half-way, run it again.
    Exit code 0: done, or nothing to do. 1: impossible, and nothing was touched; or the traffic is as told, but the
    content does not serve yet.
    """
    parser.add_argument("service", metavar="SERVICE", help="the InferenceService's name")
    parser.add_argument(
        "--to", default="", metavar="RELEASE", help="a version, digest, revision or run id out of its history"
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="why; it stands in the release history")
    parser.add_argument(
        "--deadline", type=above_zero, default=300.0, metavar="SECONDS", help="stop waiting after so long"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    _add_dry_run(parser)
    return _rollback


def _rollback(given: argparse.Namespace, config: Config) -> int:
    started: list[float] = []

    def tell(step: brake.Progress) -> None:
        started.append(step.at)
        if not given.json and step.kind != decide.WAIT:
            print(f"{(step.at - started[0]) * 1000:6.0f} ms  {one_line(step.text)}", flush=True)

    with kubernetes.connect(config) as api:
        namespace = namespace_of(api, config)
        if given.dry_run:
            return _previewed(given, api.call(brake.preview(given.service, namespace, to=given.to)))
        act = brake.rollback(
            given.service, namespace, given.reason, to=given.to, deadline=given.deadline, on_progress=tell
        )
        done = api.call(act)
    if given.json:
        times = {"sent": done.sent, "patched": done.patched, "effective": done.effective, "restored": done.restored}
        facts: dict[str, Any] = {"outcome": done.outcome, "why": done.why, "started": done.started, "seconds": times}
        facts |= {"from": {"version": done.bad_version, "digest": done.bad_digest, "denied": done.denied}}
        facts |= {"to": done.target_version, "before": as_json(done.before), "after": as_json(done.after)}
        print(json.dumps(facts, indent=2))
    else:
        print(rollback_report(done))
    return 1 if done.outcome == "held" else 0


def set_traffic(parser: argparse.ArgumentParser) -> Action:
    """Give the canary a share of the traffic, and wait until that is so."""
    parser.add_argument("service", metavar="SERVICE", help="the InferenceService's name")
    parser.add_argument("percent", metavar="PERCENT", type=int, help="the canary's share, 0 to 99")
    _add_move(parser)

    def act(given: argparse.Namespace, config: Config) -> int:
        with kubernetes.connect(config) as api:
            space = namespace_of(api, config)
            act = steer.set_traffic(given.service, space, given.percent, given.reason, dry_run=given.dry_run)
            return _moved(given, api.call(act))

    return act


def promote(parser: argparse.ArgumentParser) -> Action:
    """Make the canary the stable release: all traffic goes to it.

    Before that it says what a rollback would need, and refuses where there would be no way back: the present release's
    content was never recorded, its model is gone or altered, or it would not take today's requests. --force promotes
    all the same. A cold start is told, and no reason to refuse: after a promotion it always is one.
    Exit code 0: promoted and in force. 1: refused, or not in force in time.
    """
    parser.add_argument("service", metavar="SERVICE", help="the InferenceService's name")
    parser.add_argument("--force", action="store_true", help="promote even where there is no way back")
    _add_move(parser)

    def act(given: argparse.Namespace, config: Config) -> int:
        with kubernetes.connect(config) as api:
            space = namespace_of(api, config)
            # What forbids the promotion itself is said first.
            tried = api.call(steer.promote(given.service, space, given.reason, dry_run=True)) if given.dry_run else None
            back = api.call(way_back.readiness(given.service, space))
            if not given.json:
                print(readiness_report(back), flush=True)
            if tried is not None:
                return _moved(given, tried, back)
            if not back.ok and not given.force:
                raise KanaryError(
                    f"{space}/{given.service} was not promoted: there would be no way back. {back.obstacles}",
                    "Mend that, or promote with --force.",
                )
            return _moved(given, api.call(steer.promote(given.service, space, given.reason)), back)

    return act


def readiness_report(back: Readiness) -> str:
    """Whether a rollback would work, for a person."""
    lines = [f"          {'!' if one.blocks else '-'} {one.what}: {one_line(one.said)}" for one in back.findings]
    return "\n".join((f"way back  {back.way}", *lines))


def namespace_of(api: Kubernetes, config: Config) -> str:
    """The namespace of the settings, else that of the kubeconfig's context."""
    return config.namespace or api.access.namespace


def as_json(status: ServiceStatus) -> dict[str, Any]:
    """A status as plain JSON types."""
    return asdict(status) | {"split": status.split, "effective": status.effective, "canary_url": status.canary_url}


def report(status: ServiceStatus) -> str:
    """A status for a person."""
    asked = "-" if status.requested is None else f"{status.requested} %"
    facts = [
        f"service   {status.namespace}/{status.name} ({status.mode})",
        f"url       {status.url or '-'}",
        f"asked     {asked}",
        f"last act  {one_line(status.act) or '-'}{f', {status.since}' if status.since else ''}",
    ]
    if status.failure:
        facts.append(f"failure   {one_line(status.failure)}")
    facts += [f"note      {one_line(note)}" for note in status.notes]
    rows = [
        (r.role or "-", r.name, f"{r.percent} %", "yes" if r.ready else "no", r.version or "?", ", ".join(r.tags))
        for r in status.revisions
    ]
    return "\n".join(facts) + "\n\n" + table(("ROLE", "REVISION", "TRAFFIC", "READY", "VERSION", "TAGS"), rows)


def rollback_report(done: brake.Rollback) -> str:
    """How a rollback went, for a person."""
    version = done.bad_version or done.bad_digest
    if done.outcome == "already":
        return f"Nothing to do: {one_line(done.why)}\ntraffic   {_split(done.after)}"
    lines = [f"traffic   {_split(done.after)}"]
    if done.outcome == "done":
        lines.append(f"version   {version} -> {done.target_version or '?'}")
    if done.denied:
        lines.append(f"denied    {done.bad_digest}")
    if done.outcome == "held":
        lines.append(f"unfinished: {one_line(done.why)}")
    return "\n".join(lines)


def _add_move(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", default="", metavar="TEXT", help="why; it stands in the release state")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    _add_dry_run(parser)


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be patched, let the API server check it, change nothing"
    )


def add_harmless_dry_run(parser: argparse.ArgumentParser) -> None:
    """For verbs that only read: a script may pass the flag to every verb."""
    parser.add_argument("--dry-run", action="store_true", help="as ever: this verb changes nothing")


def _previewed(given: argparse.Namespace, found: brake.Preview) -> int:
    if given.json:
        facts: dict[str, Any] = {"dry_run": True, "text": found.text, "patch": found.patch, "cold": found.cold}
        print(json.dumps(facts | {"seconds": found.seconds, "before": as_json(found.before)}, indent=2))
        return 0
    print(one_line(found.text))
    print(f"patch     {json.dumps(found.patch) if found.patch else 'none'}\ndry run: nothing was changed")
    return 0


def _moved(given: argparse.Namespace, moved: Moved, back: Readiness | None = None) -> int:
    if given.json:
        facts: dict[str, Any] = {"in_force": moved.in_force, "why": moved.why, "patch": moved.patch}
        facts |= {"dry_run": given.dry_run} | ({"readiness": asdict(back)} if back is not None else {})
        print(json.dumps(facts | {"before": as_json(moved.before), "after": as_json(moved.after)}, indent=2))
    elif given.dry_run:
        print(f"traffic   {_split(moved.before)}\npatch     {json.dumps(moved.patch)}\ndry run: nothing was changed")
    else:
        print(f"traffic   {_split(moved.before)}  ->  {_split(moved.after)}")
        if not moved.in_force:
            print(f"not in force: {one_line(moved.why)}")
    return 0 if moved.in_force or given.dry_run else 1


def _split(status: ServiceStatus) -> str:
    parts = []
    for name, percent in status.split.items():
        found = status.revision(name)
        parts.append(f"{name}{f' ({found.version})' if found and found.version else ''} {percent} %")
    return ", ".join(parts) or "none"
