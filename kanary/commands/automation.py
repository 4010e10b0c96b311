"""`kanary rollout`, `plan`, `pause`, `resume` and `approve`: rollouts that judge themselves, on the command line."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kanary import kubernetes
from kanary.commands.numbers import above_zero
from kanary.commands.rollout import namespace_of
from kanary.config import Config
from kanary.errors import InputError, KanaryError
from kanary.kserve import steer
from kanary.kserve.status import ServiceStatus
from kanary.kubernetes import Act
from kanary.rollout import acts, brief
from kanary.rollout import policy as policies
from kanary.rollout import record as records
from kanary.rollout.observe import Arms
from kanary.rollout.policy import PROMOTION, Policy
from kanary.rollout.profiles import Where
from kanary.rollout.record import Record
from kanary.text import duration, one_line, table

if TYPE_CHECKING:
    from kanary.cli import Action
    from kanary.judge.planning import StepPlan
    from kanary.rollout.planning import Traffic

# What a script learns from the exit code of `kanary rollout`; 1 and 2 are errors, as everywhere.
EXIT = {records.PROMOTED: 0, records.ROLLED_BACK: 3, records.HELD: 4}


def rollout(parser: argparse.ArgumentParser) -> Action:
    """Take the canary through the steps of a policy, judged at each, to its promotion or back; until it is over.

    The policy is the section `rollout:` of the project file. Killed, it goes on where it was when started again; what
    was held is taken up again. Exit code 0: promoted, 3: rolled back, 4: held.
    """
    _add_service(parser)
    _add_policy(parser)
    parser.add_argument("--evidence", type=Path, metavar="FILE", help="write the evidence bundle there, as JSON")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    return _rollout


def _rollout(given: argparse.Namespace, config: Config) -> int:
    from kanary.rollout import bundle as bundles
    from kanary.rollout.run import Target
    from kanary.rollout.run import rollout as run
    from kanary.rollout_source import opened

    policy = _policy(given, config)
    with kubernetes.connect(config) as api, opened(policy.prometheus, config) as prometheus:
        namespace = namespace_of(api, config)
        if given.dry_run:
            return _say_what_would_be(given, policy, api.call(steer.status(given.service, namespace)))
        say: Callable[[str], None] = (lambda text: None) if given.json else _say
        record = run(api, prometheus, Target(given.service, namespace), policy, say=say)
        document = bundles.bundle(record, given.service, namespace)
        if given.evidence is not None:
            content, uri = bundles.written(document), given.evidence.absolute().as_uri()
            _write(given.evidence, content)
            api.call(acts.keep_evidence(given.service, namespace, record, uri, bundles.sha256(content)))
    if given.json:
        print(json.dumps(document, indent=2))
    return EXIT[record.outcome]


def plan(parser: argparse.ArgumentParser) -> Action:
    """Say what a rollout could find at each of its steps, in how many requests and how long.

    From the service's traffic of the last minutes, as Prometheus counted it, or from --rate.
    """
    _add_service(parser)
    _add_policy(parser)
    parser.add_argument("--size", type=_share, default=0.02, metavar="SHARE", help="of a regression (default: 0.02)")
    parser.add_argument("--window", type=above_zero, default=600.0, metavar="SECONDS", help="look back (default: 600)")
    parser.add_argument("--rate", type=above_zero, metavar="R", help="requests a second, instead of what is observed")
    return _plan


def _plan(given: argparse.Namespace, config: Config) -> int:
    from kanary.judge.planning import Baseline
    from kanary.rollout import planning
    from kanary.rollout_source import opened

    policy = _policy(given, config)
    traffic: Traffic | None = None
    if given.rate is None:
        with kubernetes.connect(config) as api, opened(policy.prometheus, config) as prometheus:
            status = api.call(steer.status(given.service, namespace_of(api, config)))
            where, arms = _whose(status, policy)
            traffic = planning.traffic(prometheus, where, arms, policy, time.time(), given.window)
    rate = given.rate if traffic is None else traffic.rate
    baseline = Baseline(0.001) if traffic is None else traffic.baseline
    steps = planning.plan(policy, rate, baseline, given.size)
    if given.json:
        print(json.dumps(_finite({"rate": rate, "baseline": asdict(baseline), "steps": [asdict(s) for s in steps]})))
    else:
        print(plan_report(policy, rate, baseline.errors, steps))
    return 0


def pause(parser: argparse.ArgumentParser) -> Action:
    """Keep the rollout's split as it is until `kanary resume`. The brake stays on: a bad canary is still taken back."""
    return _said(parser, acts.pause)


def resume(parser: argparse.ArgumentParser) -> Action:
    """Let a paused rollout go on."""
    return _said(parser, acts.resume)


def approve(parser: argparse.ArgumentParser) -> Action:
    """Let the rollout take the step for which it waits for a person, or go on with what the judge has found."""
    parser.add_argument(
        *("--step", "-s"), type=_step, metavar="STEP", help="a step ahead of time: a percentage, or `promotion`"
    )
    return _said(parser, acts.approve, "step")


def _said(parser: argparse.ArgumentParser, act: Callable[..., Act[Record]], *more: str) -> Action:
    _add_service(parser)
    parser.add_argument("--reason", default="", metavar="TEXT", help="why; it stands in the evidence")
    parser.add_argument("--dry-run", action="store_true", help="say what would be said, and write nothing")

    def run(given: argparse.Namespace, config: Config) -> int:
        extra = {name: getattr(given, name) for name in more}
        with kubernetes.connect(config) as api:
            space = namespace_of(api, config)
            record = api.call(act(given.service, space, given.reason, time.time(), dry=given.dry_run, **extra))
        if given.json:
            print(json.dumps(brief.summary(record), indent=2))
        else:
            print(brief.report(record))
        return 0

    return run


def plan_report(policy: Policy, rate: float, errors: float, steps: tuple[StepPlan, ...]) -> str:
    """A plan for a person."""
    head = ("STEP", "BAKES", "REQUESTS", "FINDS ERRORS", "FINDS LATENCY", "ROLLS BACK WITHIN", "MAY PASS WITHIN")
    rows = [
        (
            f"{step.share:.0%}",
            duration(step.bake_s),
            f"{step.requests:,.0f}",
            "none" if step.finds is None else f"+{step.finds:.1%}",
            "none" if step.slows is None else f"x {step.slows:g}",
            _within(step.within, step.within_s),
            _within(step.promotes, step.promotes_s),
        )
        for step in steps
    ]
    size = steps[0].size if steps else 0.0
    return "\n".join(
        (
            f"{rate:.1f} requests/s, {errors:.2%} of them fail; looked at every {policy.interval:g} s",
            table(head, rows),
            f"FINDS: in 95 % of the cases, within the bake. ROLLS BACK WITHIN: 95 % of canaries that fail "
            f"{size:.1%} more often than stable. Requests are those of both arms.",
            f"Then {PROMOTION} %: only the absolute limits judge, for {duration(policy.watch.seconds)}.",
        )
    )


def _say_what_would_be(given: argparse.Namespace, policy: Policy, status: ServiceStatus) -> int:
    if not status.canary:
        raise KanaryError(f"{status.namespace}/{status.name} has no canary to roll out.", "Deploy a new model first.")
    at = [step for step in policy.steps[:-1] if step <= status.effective] or [policy.steps[0]]
    told = {
        "service": status.name,
        "namespace": status.namespace,
        "canary": status.canary,
        "canary_ready": status.canary_ready,
        "effective": status.effective,
        "begins_at": at[-1],
        "policy": policy.as_json(),
    }
    if given.json:
        print(json.dumps(told, indent=2))
        return 0
    lines = [f"would take {status.canary} of {status.namespace}/{status.name} from {status.effective} %:"]
    for step in policy.steps[policy.steps.index(at[-1]) :]:
        asked = ", after an approval" if step in policy.approve else ""
        if step == PROMOTION:
            lines.append(
                f"  promotion{asked}: once the judge says so; then watched for {duration(policy.watch.seconds)}"
            )
        else:
            least = f"{policy.bake.requests} requests of the canary"
            lines.append(f"  {step} %{asked}: for {duration(policy.bake.seconds)} and {least} at least")
    lines.append(f"  a step that lasts {duration(policy.deadline)} is held; a finding is rolled back at once")
    print("\n".join(lines))
    return 0


def _whose(status: ServiceStatus, policy: Policy) -> tuple[Where, Arms]:
    if not status.stable:
        raise InputError(f"{status.namespace}/{status.name} has no revision that serves yet.", "Deploy a model first.")
    names = tuple(name for name in (status.stable, status.canary) if name)
    versions = {revision.name: revision.version for revision in status.revisions}
    where = Where(status.namespace, status.name, names, policy.prometheus.selectors)
    return where, Arms(status.canary, status.stable, versions.get(status.canary, ""), versions.get(status.stable, ""))


def _policy(given: argparse.Namespace, config: Config) -> Policy:
    from kanary.rollout_source import with_settings

    return with_settings(policies.load(given.project) if given.project else Policy(), config)


def _add_service(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", metavar="SERVICE", help="the InferenceService's name")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--project", type=Path, metavar="FILE", help="project file with the section `rollout:` (default: the defaults)"
    )


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        raise InputError(f"The evidence cannot be written to {path}: {error}", "Name another file.") from error


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {one_line(text)}", flush=True)


def _within(requests: float, seconds: float) -> str:
    return "not foreseeable" if math.isinf(requests) else f"{requests:,.0f} ({duration(seconds)})"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _step(text: str) -> int:
    return PROMOTION if text == "promotion" else int(text)


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise ValueError
    return value
