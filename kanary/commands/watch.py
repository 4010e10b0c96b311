"""Following a run on the command line: one line a change, then its end and the reason of a failure."""

from __future__ import annotations

from datetime import UTC, datetime

from kanary.api import Client
from kanary.commands.show import failure_lines, state_words
from kanary.kfp_types import Run, TaskDetail, task_tree
from kanary.kfp_wait import wait
from kanary.text import duration, one_line


def watch(api: Client, run_id: str, *, quiet: bool = False, deadline: float | None = None) -> Run:
    """The run once it has ended; prints each step as it happens unless `quiet`."""
    run = wait(api, run_id, None if quiet else _print_changes, deadline=deadline)
    if not quiet:
        now = datetime.now(UTC)
        print(f"{one_line(run.name)}: {run.state} after {duration(run.seconds(now))}  ({run.run_id})", flush=True)
        for line in failure_lines(run):
            print(f"  {line}", flush=True)
    return run


def exit_code(run: Run) -> int:
    """0 for a run that did what it was to do, 1 for one that failed or was ended."""
    return 0 if run.state in ("SUCCEEDED", "SKIPPED") else 1


def _print_changes(before: Run | None, after: Run) -> None:
    for line in changes(before, after, datetime.now(UTC)):
        print(line, flush=True)


def changes(before: Run | None, after: Run, now: datetime) -> list[str]:
    """A line for each task whose state is another than before."""
    known = {task.task_id: task.state for task in before.tasks} if before else {}
    return [
        _line(depth, task, now)
        for depth, task in task_tree(after.tasks)
        if known.get(task.task_id) != task.state and task.state != "PENDING"
    ]


def _line(depth: int, task: TaskDetail, now: datetime) -> str:
    took = duration(task.seconds(now)) if task.final else ""
    moment = ((task.finished_at if task.final else task.started_at) or now).astimezone()
    return f"{moment:%H:%M:%S}  {'  ' * depth}{one_line(task.name)}  {state_words(task)}  {took}".rstrip()
