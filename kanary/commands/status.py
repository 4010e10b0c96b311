"""`kanary status`: where services' traffic really goes, once or again and again."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from kanary import kubernetes
from kanary.commands.numbers import above_zero
from kanary.commands.rollout import add_harmless_dry_run, as_json, namespace_of, report
from kanary.config import Config
from kanary.kserve import models, steer
from kanary.kserve import readiness as way_back
from kanary.kserve.status import ServiceStatus
from kanary.rollout import acts, brief
from kanary.text import table

if TYPE_CHECKING:
    from kanary.cli import Action


def status(parser: argparse.ArgumentParser) -> Action:
    """Show where a service's traffic really goes, next to what was asked. Without SERVICE, all of the namespace.

    With --watch it goes on, until it is interrupted: on a terminal one picture that is kept up to date, with requests,
    errors and latencies; into a pipe or a file a block for each change; with --json a line for each. Without SERVICE it
    tells of failing and running pipelines, too.
    """
    parser.add_argument("service", nargs="?", metavar="SERVICE", help="the InferenceService's name")
    parser.add_argument("--json", action="store_true", help="print JSON: one object, or without SERVICE a list")
    parser.add_argument("-w", "--watch", action="store_true", help="go on, and show what changes")
    parser.add_argument(
        "--refresh",
        type=above_zero,
        default=2.0,
        metavar="SECONDS",
        help="with --watch: ask servers so often (default: 2)",
    )
    add_harmless_dry_run(parser)
    return _status


def _status(given: argparse.Namespace, config: Config) -> int:
    if given.watch:
        from kanary.commands import status_watch

        return status_watch.watch(given.service or "", config, given.refresh, as_lines=given.json)
    with kubernetes.connect(config) as api:
        namespace = namespace_of(api, config)
        if given.service:
            found = api.call(steer.status(given.service, namespace))
            record = api.call(acts.current(given.service, namespace))
            if given.json:
                back = asdict(api.call(way_back.readiness(given.service, namespace, look=models.glance)))
                told = brief.summary(record) if record is not None else None
                print(json.dumps(as_json(found) | {"readiness": back, "rollout": told}, indent=2))
            else:
                print(report(found) + (f"\n\n{brief.report(record)}" if record is not None else ""))
            return 0
        services = api.call(steer.statuses(namespace))
    if given.json:
        print(json.dumps([as_json(entry) for entry in services], indent=2))
        return 0
    headers = ("SERVICE", "STABLE", "VERSION", "CANARY", "VERSION", "ASKED", "EFFECTIVE", "NOTES")
    print(table(headers, [_row(entry) for entry in services]))
    return 0


def _row(status: ServiceStatus) -> tuple[str, ...]:
    stable, canary = status.revision(status.stable), status.revision(status.canary)
    asked = "" if status.requested is None else f"{status.requested} %"
    return (
        status.name,
        status.stable,
        stable.version if stable else "",
        status.canary,
        canary.version if canary else "",
        asked,
        f"{status.effective} %" if status.canary else "",
        "; ".join((*status.notes, *([status.failure] if status.failure else []))),
    )
