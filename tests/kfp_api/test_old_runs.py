"""Old runs go as the policy says; what runs, what was archived, and what is young stays."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sandbox.errors import SandboxError
from sandbox.kfp.pruner import prune_now
from sandbox.kfp.server import read_keep
from sandbox.runstore.listing import RUNS, parse_query
from sandbox.runstore.pruning import Keep
from sandbox.runstore.store import Run, Task
from tests.kfp_api.rig import NOON, SPEC, Stage

DAY = 86400.0


def add(stage: Stage, number: int, state: str = "SUCCEEDED", **fields: Any) -> None:
    """A run `number` days old; it ended an hour later."""
    moment = NOON - number * DAY
    finished = moment + 3600 if state in ("SUCCEEDED", "FAILED", "CANCELED") else None
    run = Run(f"r{number:03}", "e", "n", SPEC, moment, moment, state=state, finished_at=finished)
    stage.service.store.save_run(dataclasses.replace(run, **fields))


def left(stage: Stage) -> list[int]:
    """How old the runs are that are left, the youngest first."""
    page = stage.service.store.list_runs(parse_query(RUNS, {"sort_by": "created_at desc", "page_size": "200"}))
    return [int(run.run_id[1:]) for run in page.records]


def keeping(stage: Stage, runs: int | None = None, days: float | None = None) -> Any:
    return dataclasses.replace(stage.service, keep=Keep(runs, days))


async def test_the_newest_ended_runs_are_kept(stage: Stage) -> None:
    for number in range(50):
        add(stage, number)
    assert await prune_now(keeping(stage, runs=10)) == 40
    assert left(stage) == list(range(10))
    assert await prune_now(keeping(stage, runs=10)) == 0


async def test_runs_go_when_they_are_old(stage: Stage) -> None:
    for number in range(10):
        add(stage, number)
    assert await prune_now(keeping(stage, days=4.5)) == 5
    assert left(stage) == [0, 1, 2, 3, 4]


async def test_what_runs_waits_or_is_archived_stays(stage: Stage) -> None:
    add(stage, 0)
    for number, state in enumerate(("RUNNING", "PENDING", "CANCELING", "PAUSED"), 100):
        add(stage, number, state)
    add(stage, 200, storage_state="ARCHIVED")
    add(stage, 201, "FAILED")
    assert await prune_now(keeping(stage, runs=0, days=0)) == 2
    assert left(stage) == [100, 101, 102, 103, 200]


async def test_without_a_policy_everything_stays(stage: Stage) -> None:
    add(stage, 5000)
    assert keeping(stage).keep.everything
    assert await prune_now(keeping(stage)) == 0
    assert left(stage) == [5000]


async def test_an_idle_sandbox_and_a_clock_set_ahead_lose_nothing(stage: Stage) -> None:
    for number in range(1000, 1005):
        add(stage, number)
    stage.clock.now += 1000 * DAY
    assert await prune_now(keeping(stage, days=30)) == 0


async def test_logs_specs_and_tasks_go_along(stage: Stage) -> None:
    add(stage, 9, spec={"only": "here"})
    add(stage, 0)
    artifact = {"name": "m", "uri": "/u", "type": {"schemaTitle": "system.Model"}}
    store, log = stage.service.store, stage.service.engine.log_path("r009", "t")
    store.save_task(Task("t", "r009", "t", NOON, state="SUCCEEDED", outputs={"artifacts": {"m": [artifact]}}))
    log.parent.mkdir(parents=True)
    log.write_text("line\n", encoding="utf-8")
    assert await prune_now(keeping(stage, runs=1)) == 1
    assert not log.parent.parent.exists()
    for table, expected in (("tasks", 0), ("artifacts", 0), ("blobs", 1), ("runs", 1)):
        row = store.database.row(f"SELECT count(*) AS number FROM {table}")
        assert row is not None
        assert row["number"] == expected, table


@pytest.mark.parametrize(
    ("runs", "days"), [("many", ""), ("-1", ""), ("", "-2"), ("", "nan"), ("", "inf"), ("1.5", "")]
)
def test_a_policy_that_makes_no_sense_is_refused(runs: str, days: str) -> None:
    with pytest.raises(SandboxError, match="not numbers"):
        read_keep(runs, days)


def test_a_policy_is_read(stage: Stage) -> None:
    assert read_keep("", "") == Keep()
    assert read_keep("100", "0.5") == Keep(100, 0.5)
