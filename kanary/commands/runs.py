"""`kanary runs`, `run`, `retry` and `terminate`: pipeline runs on the command line."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kanary import kfp
from kanary.api import Client
from kanary.commands.show import as_json, run_report, stream_log, when
from kanary.commands.watch import exit_code, watch
from kanary.config import Config
from kanary.discovery import kfp_client
from kanary.errors import InputError
from kanary.kfp_types import Run, TaskDetail, progress
from kanary.text import duration, table

if TYPE_CHECKING:
    from kanary.cli import Action


def runs(parser: argparse.ArgumentParser) -> Action:
    """List pipeline runs of all experiments, newest first."""
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.add_argument("--limit", type=_positive, default=20, metavar="N", help="at most this many (default: 20)")
    parser.add_argument("--state", help="only runs in this state, such as FAILED")
    parser.add_argument("--experiment", metavar="NAME", help="only runs of this experiment")
    parser.add_argument("--archived", action="store_true", help="archived runs too")
    return _runs


def _runs(given: argparse.Namespace, config: Config) -> int:
    predicates = [] if given.archived else [kfp.NOT_ARCHIVED]
    if given.state:
        predicates.append(kfp.Predicate("state", "EQUALS", given.state.upper()))
    with kfp_client(config) as api:
        experiment_id = _experiment_id(api, given.experiment, config.namespace) if given.experiment else ""
        operation = kfp.newest_runs(
            given.limit,
            predicates=predicates,
            experiment_id=experiment_id,
            namespace=config.namespace,
            with_tasks=True,
        )
        page = api.call(operation)
    if given.json:
        print(json.dumps([as_json(run) for run in page.runs], indent=2))
        return 0
    now = datetime.now(UTC)
    print(table(("RUN", "NAME", "STATE", "TASKS", "STARTED", "DURATION"), [_row(run, now) for run in page.runs]))
    if len(page.runs) < page.total:
        print(f"{len(page.runs)} of {page.total}; --limit shows more", file=sys.stderr)
    return 0


def run(parser: argparse.ArgumentParser) -> Action:
    """Show one run: its tasks, and why it failed. RUN is its id, the beginning of it, or `latest`.

    With --watch, goes on until the run ends; the exit code is then 0 only if it succeeded.
    """
    parser.add_argument("run", metavar="RUN", help="the run's id, the beginning of it, or `latest`")
    parser.add_argument("--json", action="store_true", help="print one JSON object (with --watch: at the end)")
    parser.add_argument("--watch", action="store_true", help="print each step as it happens, until the run ends")
    parser.add_argument("--deadline", type=_positive, metavar="SECONDS", help="with --watch: give up after this long")
    parser.add_argument("--log", metavar="TASK", help="print the log of this task instead")
    parser.add_argument("-f", "--follow", action="store_true", help="with --log: go on until the task ends")
    return _run


def _run(given: argparse.Namespace, config: Config) -> int:
    with kfp_client(config) as api:
        run_id = api.call(kfp.find_run(given.run, namespace=config.namespace))
        if given.log:
            stream_log(api, run_id, _task(api.call(kfp.get_run(run_id)), given.log), follow=given.follow)
            return 0
        if given.watch:
            found = watch(api, run_id, quiet=given.json, deadline=given.deadline)
        else:
            found = api.call(kfp.get_run(run_id))
    if given.json:
        print(json.dumps(as_json(found), indent=2))
    elif not given.watch:
        print(run_report(found, datetime.now(UTC)))
    return exit_code(found) if given.watch else 0


def retry(parser: argparse.ArgumentParser) -> Action:
    """Run again what failed or was cancelled in a run; what succeeded is kept."""
    parser.add_argument("run", metavar="RUN", help="the run's id, the beginning of it, or `latest`")
    parser.add_argument("--watch", action="store_true", help="print each step as it happens, until the run ends")

    def act(given: argparse.Namespace, config: Config) -> int:
        with kfp_client(config) as api:
            run_id = api.call(kfp.find_run(given.run, namespace=config.namespace))
            api.call(kfp.retry_run(run_id))
            print(f"Run {run_id} is tried again.")
            return exit_code(watch(api, run_id)) if given.watch else 0

    return act


def terminate(parser: argparse.ArgumentParser) -> Action:
    """End a run: its running tasks are stopped, the rest never starts."""
    parser.add_argument("run", metavar="RUN", help="the run's id, or the beginning of it")

    def act(given: argparse.Namespace, config: Config) -> int:
        if given.run == "latest":
            raise InputError("`latest` may be another run by now.", "Give the id of the run to end.")
        with kfp_client(config) as api:
            run_id = api.call(kfp.find_run(given.run, namespace=config.namespace))
            api.call(kfp.terminate_run(run_id))
        print(f"Run {run_id} is being ended; `kanary run {run_id} --watch` shows when it is.")
        return 0

    return act


def _row(run: Run, now: datetime) -> tuple[str, ...]:
    done, total = progress(run)
    # A list of runs may count the tasks without naming them.
    tasks = f"{done}/{total}" if total else str(run.task_count or "")
    return run.run_id, run.name, run.state, tasks, when(run.created_at), duration(run.seconds(now))


def _experiment_id(api: Client, name: str, namespace: str) -> str:
    found = api.call(kfp.find_experiment(name, namespace=namespace))
    if found is None:
        raise InputError(f"There is no experiment {name!r}.", "`kanary runs` lists the runs of all experiments.")
    return found.experiment_id


def _task(run: Run, name: str) -> TaskDetail:
    """The task of that id, or the newest of that name: the last iteration, the last attempt."""
    found = [task for task in run.tasks if name in (task.task_id, task.name)]
    if not found:
        names = ", ".join(dict.fromkeys(task.name for task in run.tasks)) or "none so far"
        raise InputError(f"Run {run.run_id} has no task {name!r}.", f"Its tasks: {names}.")
    oldest = datetime.min.replace(tzinfo=UTC)
    return max(found, key=lambda task: (bool(task.pod_name), task.started_at or oldest))


def _positive(text: str) -> Any:
    value = int(text)
    if value <= 0:
        raise ValueError
    return value
