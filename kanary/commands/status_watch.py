"""`kanary status --watch`: what the monitor knows, for a pipe or a terminal that shows no full-screen programs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from kanary.commands.rollout import report
from kanary.config import Config
from kanary.errors import KanaryError
from kanary.kfp_types import Run, progress
from kanary.rollout import brief
from kanary.snapshot import sleep
from kanary.snapshot_connections import Connections
from kanary.snapshot_home import home, latest_ends
from kanary.snapshot_hub import ALERTS, DRIFT, EVENTS, METRICS, RIGHTS, RUNS, SERVICES, Hub, Scope
from kanary.snapshot_services import URGENCY, Service
from kanary.text import duration, latency, one_line, percent, rate, shortened, table

_TOGETHER = 0.2  # seconds in which changes that come close together are shown as one
_PATIENCE = 5.0  # seconds that the first picture waits for runs once services are known
_SOURCES = (("kubernetes", SERVICES), ("kubeflow pipelines", RUNS), ("prometheus", METRICS))
Facts = dict[str, Any]


def watch(service: str, config: Config, refresh: float, *, as_lines: bool) -> int:
    """Shows one service, or all and the runs, until it is interrupted. Raises KanaryError: there is no such service."""
    hub = sources(service, config, refresh)
    terminal = not as_lines and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    asyncio.run(follow(hub, service, _Place().draw if terminal else _print, as_lines=as_lines, numbers=terminal))
    return 0


def sources(service: str, config: Config, refresh: float) -> Hub:
    """What is asked: only what is shown."""
    without = {ALERTS, EVENTS, RIGHTS} | ({RUNS, DRIFT} if service else set())
    return Hub(Connections(config), Scope(config.namespace, interval=refresh), without)


async def follow(
    hub: Hub, service: str, show: Callable[[str], None], *, as_lines: bool = False, numbers: bool = False
) -> None:
    """Shows a picture for each change until it is cancelled; with `numbers` for each of theirs, too."""
    changed = asyncio.Event()
    hub.on_change = lambda name: changed.set()
    following = asyncio.create_task(hub.run())
    shown: Facts | None = None
    try:
        await _begun(hub, service, changed, following)
        while True:
            changed.clear()
            found = facts(hub, service)
            if found != shown or numbers:
                show(line(hub, found) if as_lines else block(hub, found, service))
                shown = found
            await asyncio.wait(
                {following, waiting := asyncio.ensure_future(changed.wait())}, return_when=asyncio.FIRST_COMPLETED
            )
            waiting.cancel()
            if following.done():
                following.result()
            await asyncio.sleep(_TOGETHER)
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        await hub.connections.close()


async def _begun(hub: Hub, service: str, changed: asyncio.Event, following: asyncio.Task[None]) -> None:
    """Until there is something to show: services, and runs where these do not keep it waiting."""
    deadline = float("inf")
    while not (_answered(hub, SERVICES) and (service or _answered(hub, RUNS))) and time.monotonic() < deadline:
        if _answered(hub, SERVICES):
            deadline = min(deadline, time.monotonic() + _PATIENCE)
        await sleep(changed, min(1.0, max(0.0, deadline - time.monotonic())))
        changed.clear()
        if following.done():
            following.result()
    if service and hub.services.value is not None and not hub.services.error and not _chosen(hub, service):
        names = ", ".join(sorted(known.status.name for known in hub.services.value.values()))
        raise KanaryError(f"There is no InferenceService {service}.", f"There are: {names or 'none'}.")


def _answered(hub: Hub, name: str) -> bool:
    found = hub.snapshot(name)
    return found.value is not None or bool(found.error)


def _chosen(hub: Hub, service: str) -> list[Service]:
    """The service of that name, or all, those first that need somebody."""
    known = (hub.services.value or {}).values()
    chosen = [entry for entry in known if not service or entry.status.name == service]
    return sorted(chosen, key=lambda entry: (URGENCY.index(entry.situation), entry.key))


def facts(hub: Hub, service: str) -> Facts:
    """What is told, as plain JSON types; equal as long as nothing happens: without the numbers, which always move."""
    found: Facts = {
        "context": hub.context,
        "services": [_service(entry) for entry in _chosen(hub, service)],
        "errors": {name: hub.snapshot(source).error for name, source in _SOURCES if hub.snapshot(source).error},
    }
    if service:
        return found
    runs = hub.runs.value.by_id if hub.runs.value else None
    needs = home(runs.values() if runs is not None else None, hub.services.value, hub.drift.value)
    going = [run for run in (runs or {}).values() if not run.final]
    failing = [run for run in latest_ends((runs or {}).values()).values() if run.state == "FAILED"]
    return found | {"needs": [item.text for item in needs], "runs": [_run(run) for run in (*failing, *_newest(going))]}


def line(hub: Hub, found: Facts) -> str:
    """A line of JSON: the facts, when, and the numbers at that moment."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"at": moment} | found | {"numbers": dict(_numbers(hub, found))})


def block(hub: Hub, found: Facts, service: str) -> str:
    """The same for a person, several lines."""
    where = " · ".join(filter(None, (found["context"], ", ".join(found.get("needs", ())))))
    lines = [f"{datetime.now().astimezone():%H:%M:%S}  {one_line(where)}".rstrip()]
    if service:
        chosen = _chosen(hub, service)
        lines += _whole(chosen[0]) if chosen else [] if found["errors"] else [f"{service} is gone"]
        lines += _revisions(hub, found)
    elif found["services"]:
        lines.append(_overview(hub, found))
    if found.get("runs"):
        rows = [(run["name"], run["state"], run["tasks"], one_line(run["error"])) for run in found["runs"]]
        lines += ["", table(("RUN", "STATE", "TASKS", "WHY"), rows)]
    lines += [f"! {name}: {one_line(error)}" for name, error in found["errors"].items()]
    return "\n".join(lines)


def _service(entry: Service) -> Facts:
    status, under_way = entry.status, entry.under_way
    stable, canary = status.revision(status.stable), status.revision(status.canary)
    return {
        "name": status.name,
        "namespace": status.namespace,
        "situation": entry.situation,
        "stable": status.stable,
        "stable_version": stable.version if stable else "",
        "canary": status.canary,
        "canary_version": canary.version if canary else "",
        "asked": status.requested,
        "effective": status.effective if status.canary else None,
        "split": status.split,
        "ready": status.ready,
        "failure": status.failure or entry.problem,
        "notes": list(status.notes),
        "act": status.act,
        "rollout": {
            "phase": under_way.phase,
            "percent": under_way.percent,
            "verdict": under_way.verdict,
            "waits": under_way.waits,
        }
        if under_way
        else None,
    }


def _run(run: Run) -> Facts:
    done, total = progress(run)
    return {
        "id": run.run_id,
        "name": run.name,
        "pipeline": run.pipeline_name,
        "state": run.state,
        "tasks": f"{done}/{total}" if total else "",
        "error": run.error if run.state == "FAILED" else "",
    }


def _newest(runs: list[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: run.created_at.timestamp() if run.created_at else 0.0, reverse=True)


def _numbers(hub: Hub, found: Facts) -> Iterator[tuple[str, Mapping[str, float | None]]]:
    """What callers see of each revision with traffic: `namespace/revision`, and its newest point."""
    courses = hub.metrics.value.courses if hub.metrics.value else {}
    for entry in found["services"]:
        for name in dict.fromkeys((entry["stable"], entry["canary"], *entry["split"])):
            course = courses.get(f"{entry['namespace']}/{name}") if name else None
            if course is not None:
                now = course.now
                yield (
                    f"{entry['namespace']}/{name}",
                    {"requests": now.requests, "errors": now.errors, "p50": now.p50, "p99": now.p99},
                )


def _overview(hub: Hub, found: Facts) -> str:
    numbers = dict(_numbers(hub, found))
    rows = []
    for entry in found["services"]:
        mine = [numbers[key] for name in entry["split"] if (key := f"{entry['namespace']}/{name}") in numbers]
        share = entry["effective"]
        asked = "" if entry["asked"] in (None, share) else f" of {entry['asked']} %"
        said = [entry["failure"], *entry["notes"], *([entry["rollout"]["waits"]] if entry["rollout"] else [])]
        rows.append(
            (
                entry["situation"],
                entry["name"],
                entry["stable_version"] or entry["stable"],
                entry["canary_version"] or entry["canary"],
                f"{share} %{asked}" if share is not None else "",
                rate(sum(number["requests"] or 0.0 for number in mine)) if mine else "",
                _worst(percent, "errors", mine),
                _worst(latency, "p99", mine),
                "; ".join(one_line(text) for text in said if text),
            )
        )
    head = ("STATE", "SERVICE", "STABLE", "CANARY", "SHARE", "REQ/S", "ERRORS", "P99", "NOTES")
    # Of columns that say nothing there is no room for those that do.
    told = [index for index in range(len(head)) if any(row[index] for row in rows)]
    return table([head[index] for index in told], [[row[index] for index in told] for row in rows])


def _worst(words: Callable[[float | None], str], name: str, numbers: list[Mapping[str, float | None]]) -> str:
    known = [value for number in numbers if (value := number[name]) is not None]
    return words(max(known)) if known else ""


def _whole(entry: Service) -> list[str]:
    told = [report(entry.status)]
    if entry.rollout is not None:
        told += ["", brief.report(entry.rollout)]
    since = (datetime.now(UTC) - entry.canary_since).total_seconds() if entry.canary_since else None
    if since is not None:
        told.append(f"canary    for {duration(since)}")
    return told


def _revisions(hub: Hub, found: Facts) -> list[str]:
    rows = [
        (key.partition("/")[2], rate(n["requests"]), percent(n["errors"]), latency(n["p50"]), latency(n["p99"]))
        for key, n in _numbers(hub, found)
    ]
    return ["", table(("REVISION", "REQ/S", "ERRORS", "P50", "P99"), rows)] if rows else []


def _print(text: str) -> None:
    # A block ends with an empty line, so that blocks can be told apart.
    print(text if text.startswith("{") else f"{text}\n", flush=True)


class _Place:
    """A place on the terminal that each picture is drawn over the one before."""

    def __init__(self) -> None:
        self._height = 0

    def draw(self, text: str) -> None:
        columns, rows = shutil.get_terminal_size()
        lines = [shortened(line, columns) for line in text.split("\n")]
        if len(lines) > rows - 1:
            lines = [*lines[: rows - 2], f"… {len(lines) - rows + 2} more lines"]
        up = f"\x1b[{self._height}A" if self._height else ""
        # No wrapping while it is drawn: the height is what was counted.
        sys.stdout.write(f"\x1b[?7l{up}\r\x1b[J" + "\n".join(lines) + "\n\x1b[?7h")
        sys.stdout.flush()
        self._height = len(lines)
