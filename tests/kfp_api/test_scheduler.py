"""The scheduler over a real store: what is made, once, whatever the clock, a crash or a vanished pipeline does."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import NotFound
from sandbox.kfp.scheduler import Scheduler
from sandbox.runstore.listing import RUNS, parse_query
from sandbox.runstore.recurring import Trigger
from tests.kfp_api.rig import NOON, SPEC, Clock, Stage, open_stage

EVERY_TEN = Trigger(interval_second=10)
HOURLY = Trigger(cron="0 0 * * * *")


def advance(stage: Stage, scheduler: Scheduler, seconds: float) -> None:
    stage.clock.now += seconds
    scheduler.tick()


def test_a_run_is_made_when_it_is_due_and_not_before(stage: Stage) -> None:
    scheduler = Scheduler(stage.service)
    record = stage.recurring(EVERY_TEN, parameters={"text": "[[Index]] at [[ScheduledTime]]"})
    assert 0 < scheduler.tick() <= 1
    advance(stage, scheduler, 9.9)
    assert stage.runs() == []
    advance(stage, scheduler, 0.3)
    (run,) = stage.runs()
    assert (run.recurring_run_id, run.scheduled_at, run.created_at) == (record.recurring_run_id, NOON + 10, NOON + 10.2)
    assert run.display_name.startswith("nightly-1-")
    assert run.parameters == {"text": "1 at 20270115080010"}
    assert run.state == "PENDING"
    advance(stage, scheduler, 0.1)
    assert len(stage.runs()) == 1


def test_runs_are_found_by_their_recurring_run(stage: Stage) -> None:
    record = stage.recurring(EVERY_TEN)
    advance(stage, Scheduler(stage.service), 10)
    wanted = {"key": "recurring_run_id", "operation": "EQUALS", "string_value": record.recurring_run_id}
    page = stage.service.store.list_runs(parse_query(RUNS, {"filter": json.dumps({"predicates": [wanted]})}))
    assert [run.run_id for run in page.records] == stage.engine.submitted


def test_no_more_run_at_once_than_is_allowed(stage: Stage) -> None:
    scheduler = Scheduler(stage.service)
    stage.recurring(EVERY_TEN, max_concurrency=2)
    advance(stage, scheduler, 100)
    assert stage.scheduled() == [10, 20]
    stage.end_all()
    scheduler.tick()
    assert stage.scheduled() == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("trigger", "no_catchup", "expected"),
    [
        (HOURLY, False, [3600, 7200, 10800]),
        (HOURLY, True, [10800]),
        (Trigger(interval_second=3600), False, [3600, 7200, 10800]),
        (Trigger(interval_second=3600), True, [10900]),
    ],
)
def test_after_a_pause_all_or_the_newest_is_caught_up_on(
    stage: Stage, trigger: Trigger, no_catchup: bool, expected: list[float]
) -> None:
    scheduler = Scheduler(stage.service)
    record = stage.recurring(trigger, no_catchup=no_catchup, max_concurrency=10)
    stage.service.recurring.set_enabled(record.recurring_run_id, False, stage.clock.now)
    advance(stage, scheduler, 10900)
    assert stage.scheduled() == []
    stage.service.recurring.set_enabled(record.recurring_run_id, True, stage.clock.now)
    scheduler.tick()
    assert stage.scheduled() == expected


def test_an_ended_schedule_makes_no_more_runs(stage: Stage) -> None:
    scheduler = Scheduler(stage.service)
    stage.recurring(dataclasses.replace(EVERY_TEN, end_time=NOON + 25), max_concurrency=10)
    advance(stage, scheduler, 500)
    advance(stage, scheduler, 500)
    assert stage.scheduled() == [10, 20]


def test_a_restart_goes_on_where_the_schedule_was(tmp_path: Path) -> None:
    clock = Clock()
    before = open_stage(tmp_path, clock)
    before.recurring(EVERY_TEN, max_concurrency=10)
    advance(before, Scheduler(before.service), 20)
    assert before.scheduled() == [10, 20]
    before.service.store.close()
    clock.now += 15
    after = open_stage(tmp_path, clock)
    Scheduler(after.service).tick()
    assert after.scheduled() == [30]
    assert len(after.service.store.unfinished_runs()) == 3
    after.service.store.close()


class Crash(BaseException):
    """Stands for the end of the process."""


def test_a_crash_between_making_a_run_and_noting_it_makes_it_once(stage: Stage, monkeypatch: Any) -> None:
    stage.recurring(EVERY_TEN)

    def crash(*arguments: Any) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(stage.service.recurring, "triggered", crash)
        with pytest.raises(Crash):
            advance(stage, Scheduler(stage.service), 10)
    assert stage.service.store.unfinished_runs() == []
    Scheduler(stage.service).tick()
    assert [run.scheduled_at for run in stage.service.store.unfinished_runs()] == [NOON + 10]


def test_only_the_pipeline_given_each_run_takes_its_newest_version(stage: Stage) -> None:
    scheduler = Scheduler(stage.service)
    pipeline_id = stage.service.catalog.create_pipeline("p", "p", "", "").pipeline_id
    stage.version(pipeline_id, "v1", SPEC)
    stage.recurring(EVERY_TEN, spec={}, pipeline_id=pipeline_id, max_concurrency=10)
    advance(stage, scheduler, 10)
    stage.version(pipeline_id, "v2", SPEC | {"sdkVersion": "new"})
    advance(stage, scheduler, 10)
    assert [run.pipeline_version_id for run in stage.runs()] == ["v1", "v2"]
    assert stage.runs()[1].spec["sdkVersion"] == "new"


def test_a_pipeline_that_is_gone_is_told_and_tried_again_with_patience(stage: Stage) -> None:
    scheduler = Scheduler(stage.service)
    catalog = stage.service.catalog
    pipeline_id = catalog.create_pipeline("p", "p", "", "").pipeline_id
    record = stage.recurring(EVERY_TEN, spec={}, pipeline_id=pipeline_id)
    other = stage.recurring(EVERY_TEN)
    advance(stage, scheduler, 10)
    assert [run.recurring_run_id for run in stage.runs()] == [other.recurring_run_id], "the other one is not held up"
    assert "not found" in stage.service.recurring.get(record.recurring_run_id).error
    stage.version(pipeline_id, "v1", SPEC)
    advance(stage, scheduler, 1)
    assert len(stage.runs()) == 1, "it is not tried at once"
    advance(stage, scheduler, 10)
    assert {run.recurring_run_id for run in stage.runs()} == {record.recurring_run_id, other.recurring_run_id}
    found = stage.service.recurring.get(record.recurring_run_id)
    assert (found.error, found.last_triggered) == ("", NOON + 10)


def test_a_store_that_refuses_loses_no_run(stage: Stage, monkeypatch: Any) -> None:
    scheduler = Scheduler(stage.service)
    record = stage.recurring(EVERY_TEN)

    def full(*arguments: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(stage.service.store, "save_run", full)
        advance(stage, scheduler, 10)
    assert "disk is full" in stage.service.recurring.get(record.recurring_run_id).error
    advance(stage, scheduler, 6)
    assert stage.scheduled() == [10]


def test_archiving_the_experiment_disables_its_recurring_runs(stage: Stage) -> None:
    record = stage.recurring(EVERY_TEN)
    stage.service.catalog.set_experiment_storage(record.experiment_id, "ARCHIVED")
    advance(stage, Scheduler(stage.service), 100)
    assert stage.runs() == []
    stage.service.catalog.set_experiment_storage(record.experiment_id, "AVAILABLE")
    assert not stage.service.recurring.get(record.recurring_run_id).enabled


def test_a_deleted_recurring_run_leaves_its_runs_and_takes_its_pipeline_along(stage: Stage) -> None:
    record = stage.recurring(EVERY_TEN)
    advance(stage, Scheduler(stage.service), 10)
    stage.service.recurring.delete(record.recurring_run_id)
    advance(stage, Scheduler(stage.service), 100)
    (run,) = stage.runs()
    assert run.spec == SPEC
    stage.service.store.delete_run(run.run_id)
    row = stage.service.store.database.row("SELECT count(*) AS number FROM blobs")
    assert row is not None
    assert row["number"] == 0
    with pytest.raises(NotFound):
        stage.service.recurring.delete(record.recurring_run_id)


def test_a_clock_set_ahead_and_back_leaves_the_schedule_working(stage: Stage) -> None:
    scheduler = Scheduler(stage.service)
    stage.recurring(HOURLY, no_catchup=True, max_concurrency=10)
    advance(stage, scheduler, 400 * 86400)
    assert len(stage.runs()) == 1
    advance(stage, scheduler, -400 * 86400)
    for _ in range(70):
        advance(stage, scheduler, 60)
    assert stage.scheduled()[1:] == [3600]


def test_a_recurring_run_that_cannot_be_scheduled_holds_up_no_other(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.recurring(Trigger(cron="no expression at all"), recurring_run_id="broken")
    other = stage.recurring(EVERY_TEN, recurring_run_id="other")
    advance(stage, Scheduler(stage.service), 10)
    assert [run.recurring_run_id for run in stage.runs()] == [other.recurring_run_id]
    assert "recurring run broken cannot be scheduled" in caplog.text


async def test_a_change_wakes_the_scheduler_at_once(stage: Stage) -> None:
    working = asyncio.create_task(Scheduler(stage.service).run())
    for seconds in range(3):
        stage.recurring(EVERY_TEN, recurring_run_id=f"r{seconds}")
        stage.clock.now += 10
        stage.service.schedule_changed.set()
        async with asyncio.timeout(30):
            while {run.recurring_run_id for run in stage.runs()} != {f"r{n}" for n in range(seconds + 1)}:
                await asyncio.sleep(0.001)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
