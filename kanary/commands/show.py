"""Runs and logs as text and as JSON. Server text is made harmless before it reaches a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from kanary import kfp
from kanary.api import Client
from kanary.errors import ApiError, Unreachable
from kanary.kfp_types import Run, TaskDetail, task_tree
from kanary.text import duration, log_lines, one_line, plain, table

_REREAD = 1.0  # seconds before a log is read again where the server ended its answer before the task ended


def as_json(run: Run) -> dict[str, Any]:
    """The run as plain JSON types, points in time in ISO 8601."""
    plain_types: dict[str, Any] = _jsonable(asdict(run))
    return plain_types


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value


def when(moment: datetime | None) -> str:
    """A point in time as this machine's clock shows it, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def run_report(run: Run, now: datetime) -> str:
    """The run for a person: what and how long, why it failed, its tasks."""
    facts = [
        f"run       {run.run_id}",
        f"name      {one_line(run.name)}",
        f"pipeline  {one_line(run.pipeline_name) or '-'}",
        f"state     {run.state}{' (archived)' if run.archived else ''}",
        f"started   {when(run.created_at)}",
        f"duration  {duration(run.seconds(now))}",
    ]
    parts = ["\n".join(facts)]
    if failures := failure_lines(run):
        parts.append("\n".join(failures))
    if run.tasks:
        rows = [_task_row(depth, task, now) for depth, task in task_tree(run.tasks)]
        parts.append(table(("TASK", "STATE", "DURATION", "STARTED"), rows))
    return "\n\n".join(parts)


def failure_lines(run: Run) -> list[str]:
    """Why it failed, each reason once: the innermost tasks' words before the run's own."""
    innermost_first = sorted(task_tree(run.tasks), key=lambda item: -item[0])
    reasons = {plain(task.error).strip(): one_line(task.name) for _, task in innermost_first if task.error}
    lines = [f"{name}: {reason}" for reason, name in reasons.items()]
    own = plain(run.error).strip()
    # Servers wrap a task's reason into the run's: said once is enough.
    return lines + ([own] if own and not any(reason in own for reason in reasons) else [])


def state_words(task: TaskDetail) -> str:
    """The task's state, and whether its result came from the cache."""
    return f"{task.state} (cached)" if task.cached else task.state


def _task_row(depth: int, task: TaskDetail, now: datetime) -> tuple[str, ...]:
    started = when(task.started_at)
    return "· " * depth + one_line(task.name), state_words(task), duration(task.seconds(now)), started


def stream_log(api: Client, run_id: str, task: TaskDetail, *, follow: bool) -> None:
    """Prints the task's log; with `follow` until the task ends, through a server's absence too."""
    harmless = sys.stdout.isatty()
    rest = ""
    for piece in _log_pieces(api, run_id, task, follow=follow):
        # Whole lines only: an escape sequence may be cut anywhere.
        whole, newline, rest = (rest + piece).rpartition("\n")
        if newline:
            print("\n".join(log_lines(whole)) if harmless else whole, flush=True)
    if rest:
        print(log_lines(rest)[0] if harmless else rest, flush=True)


def _log_pieces(api: Client, run_id: str, task: TaskDetail, *, follow: bool) -> Iterator[str]:
    tail = kfp.LogTail()
    while True:
        # Asked before the log is read: what the task wrote last is then in it.
        task, over = _now(api, run_id, task) if follow else (task, True)
        try:
            if task.pod_name or over:
                tail.restart()
                for piece in api.stream(kfp.task_log(run_id, task, follow=follow)):
                    yield tail.feed(piece)
                yield tail.end()
        except ApiError as error:
            # Away for a moment, or its pod is not there yet.
            if over or not (error.status is None or error.status in (404, 500, 502, 503)):
                raise
        if over:
            return
        time.sleep(_REREAD)


def _now(api: Client, run_id: str, task: TaskDetail) -> tuple[TaskDetail, bool]:
    """The task as it is now, and whether it writes no more."""
    try:
        run = api.call(kfp.get_run(run_id))
    except Unreachable:
        return task, False
    found = next((found for found in run.tasks if found.task_id == task.task_id), task)
    return found, run.final or found.final
