"""How runs end: exit handlers, tasks that ignore failures, what goes on beside a failure, retries, termination."""

# ruff: noqa: I002 -- kfp reads the types of components and pipelines from live annotations
import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from sandbox.engine.attempts import Attempts, backoff_s
from sandbox.errors import Conflict
from tests.engine import steps

Runs = Callable[..., Any]


@dsl.pipeline(name="guarded")
def guarded(message: str = "") -> None:
    with dsl.ExitHandler(steps.status_of(), name="the work"):
        first = steps.text(value="first")
        with dsl.If(message != ""):
            steps.boom(message=message)
        steps.text(value="beside").after(first)


@pytest.mark.kfp_local_differs("it names tasks and jobs in its own way")
def test_an_exit_task_learns_of_success(run: Runs) -> None:
    outcome = run(guarded)
    assert outcome.run.state == "SUCCEEDED"
    status = outcome.outputs()["status-of"]
    assert (status["state"], status["error"]) == ("SUCCEEDED", "")
    assert (status["task"], status["job"]) == ("exit-handler-1", "test")


@pytest.mark.kfp_local_differs("it tells no error, and skips what stands beside")
def test_an_exit_task_learns_of_failure_and_why_and_the_run_has_failed(run: Runs) -> None:
    outcome = run(guarded, message="out of luck")
    assert outcome.run.state == "FAILED"
    status = outcome.outputs()["status-of"]
    assert status["state"] == "FAILED"
    assert "out of luck" in status["error"]
    assert outcome.states()["the work"] == "FAILED"
    assert outcome.at["exit-handler-1/text-2"].state == "SUCCEEDED"


def test_an_exit_task_runs_after_a_termination_and_learns_of_it(engine: Any, compiled: Any, tmp_path: Path) -> None:
    @dsl.pipeline(name="terminated")
    def pipeline(path: str) -> None:
        with dsl.ExitHandler(steps.status_of()):
            steps.text(value="never").after(steps.wait_for(path=path))

    run_id = engine.submit(compiled(pipeline), path=str(tmp_path / "never"))
    engine.until(run_id, lambda _: (tmp_path / "never.began").exists())
    engine.call(engine.engine.terminate(run_id))
    outcome = engine.finish(run_id)
    assert outcome.run.state == "CANCELED"
    assert outcome.outputs()["status-of"]["state"] == "CANCELLED"
    assert outcome.steps() == {
        "exit-handler-1/wait-for": "CANCELED",
        "exit-handler-1/text": "CANCELED",
        "status-of": "SUCCEEDED",
    }


def test_a_second_termination_ends_the_exit_task(engine: Any, compiled: Any, tmp_path: Path) -> None:
    @dsl.pipeline(name="terminated-twice")
    def pipeline(work: str, exit: str) -> None:
        with dsl.ExitHandler(steps.wait_for(path=exit)):
            steps.wait_for(path=work)

    run_id = engine.submit(compiled(pipeline), work=str(tmp_path / "work"), exit=str(tmp_path / "exit"))
    engine.until(run_id, lambda _: (tmp_path / "work.began").exists())
    engine.call(engine.engine.terminate(run_id))
    engine.until(run_id, lambda _: (tmp_path / "exit.began").exists())
    engine.call(engine.engine.terminate(run_id))
    outcome = engine.finish(run_id)
    assert (outcome.run.state, set(outcome.steps().values())) == ("CANCELED", {"CANCELED"})
    with pytest.raises(Conflict):
        engine.call(engine.engine.terminate(run_id))


@pytest.mark.kfp_local_differs("only a task that takes a status is an exit task to it")
def test_an_exit_task_that_takes_no_status_runs_after_failure(run: Runs) -> None:
    @dsl.pipeline(name="plain-exit")
    def pipeline() -> None:
        with dsl.ExitHandler(steps.text(value="cleaned up")):
            steps.boom()

    outcome = run(pipeline)
    assert outcome.run.state == "FAILED"
    assert outcome.outputs() == {"text": "cleaned up"}


@pytest.mark.kfp_local_differs("it does not run pipelines as exit tasks")
def test_a_pipeline_is_an_exit_task(run: Runs) -> None:
    @dsl.pipeline(name="conclusion")
    def conclusion(value: str) -> None:
        steps.text(value=steps.text(value=value).output)

    @dsl.pipeline(name="with-conclusion")
    def pipeline() -> None:
        with dsl.ExitHandler(conclusion(value="done")):
            steps.boom()

    outcome = run(pipeline)
    assert outcome.outputs() == {"conclusion/text": "done", "conclusion/text-2": "done"}


@pytest.mark.kfp_local_differs("it runs no exit task without a status")
def test_a_failing_exit_task_fails_the_run(run: Runs) -> None:
    @dsl.pipeline(name="bad-exit")
    def pipeline() -> None:
        with dsl.ExitHandler(steps.boom(message="exit failed")):
            steps.text(value="fine")

    outcome = run(pipeline)
    assert outcome.run.state == "FAILED"
    assert "exit failed" in outcome.run.error
    assert outcome.outputs() == {"exit-handler-1/text": "fine"}


@pytest.mark.kfp_local_differs("it tells no error")
def test_two_exit_handlers_each_have_their_own_status(run: Runs) -> None:
    @dsl.pipeline(name="two-handlers")
    def pipeline() -> None:
        with dsl.ExitHandler(steps.status_of()):
            steps.text(value="fine")
        with dsl.ExitHandler(steps.status_of()):
            steps.boom()

    outputs = run(pipeline).outputs()
    assert (outputs["status-of"]["state"], outputs["status-of-2"]["state"]) == ("SUCCEEDED", "FAILED")


@pytest.mark.kfp_local_differs("it fails where the output is not there")
def test_a_task_that_ignores_upstream_failure_runs_with_its_default(run: Runs) -> None:
    @dsl.pipeline(name="ignores")
    def pipeline() -> None:
        steps.fallback(value=steps.boom().output).ignore_upstream_failure()

    outcome = run(pipeline)
    assert outcome.outputs() == {"fallback": "the default"}
    assert outcome.run.state == "FAILED"


def test_a_task_that_ignores_upstream_failure_takes_what_is_there(run: Runs) -> None:
    @dsl.pipeline(name="ignores-nothing")
    def pipeline() -> None:
        steps.fallback(value=steps.text(value="there").output).ignore_upstream_failure()

    outcome = run(pipeline)
    assert outcome.outputs()["fallback"] == "there"
    assert outcome.run.state == "SUCCEEDED"


@pytest.mark.kfp_local_differs("it does not look at after() here")
def test_what_waits_for_a_task_that_ignored_a_failure_runs(run: Runs) -> None:
    @dsl.pipeline(name="goes-on")
    def pipeline() -> None:
        ignoring = steps.text(value="ignored").after(steps.boom()).ignore_upstream_failure()
        steps.text(value="after").after(ignoring).set_display_name("after")

    outcome = run(pipeline)
    assert outcome.output("after") == "after"
    assert outcome.run.state == "FAILED"


def test_a_task_that_ignores_failures_is_not_started_after_a_termination(
    engine: Any, compiled: Any, tmp_path: Path
) -> None:
    @dsl.pipeline(name="ignores-termination")
    def pipeline(path: str) -> None:
        steps.text(value="never").after(steps.wait_for(path=path)).ignore_upstream_failure()

    run_id = engine.submit(compiled(pipeline), path=str(tmp_path / "never"))
    engine.until(run_id, lambda _: (tmp_path / "never.began").exists())
    engine.call(engine.engine.terminate(run_id))
    assert engine.finish(run_id).states() == {"wait-for": "CANCELED", "text": "CANCELED"}


@pytest.mark.kfp_local_differs("it runs one task after the other and stops")
def test_a_failed_branch_does_not_stop_its_siblings(run: Runs) -> None:
    @dsl.pipeline(name="siblings")
    def pipeline() -> None:
        steps.text(value="downstream").after(steps.boom())
        steps.number(value=1).after(steps.text(value="beside"))

    outcome = run(pipeline)
    assert outcome.steps() == {
        "boom": "FAILED",
        "text": "SKIPPED",
        "text-2": "SUCCEEDED",
        "number": "SUCCEEDED",
    }


def test_a_failure_inside_a_nested_pipeline_is_told_at_every_level(run: Runs) -> None:
    @dsl.pipeline(name="inner")
    def inner() -> str:
        return steps.boom(message="deep inside").output  # type: ignore[no-any-return]

    @dsl.pipeline(name="outer")
    def pipeline() -> None:
        steps.text(value=inner().output)

    outcome = run(pipeline)
    assert "deep inside" in outcome.run.error
    assert "deep inside" in outcome.at["inner"].error
    assert outcome.steps() == {"inner/boom": "FAILED", "text": "SKIPPED"}


@pytest.mark.kfp_local_differs("its run is the fourth")
def test_a_step_is_tried_again_with_each_attempt_counted(run: Runs, tmp_path: Path) -> None:
    @dsl.pipeline(name="retries")
    def pipeline(path: str) -> None:
        steps.count_in(path=path, fail_until=2).set_retry(3, backoff_duration="0s")

    outcome = run(pipeline, path=str(tmp_path / "runs"))
    assert outcome.outputs() == {"count-in": 3}
    assert outcome.at["count-in"].attempt == 3
    log = outcome.log("count-in")
    assert "attempt 1 fails" in log
    assert "attempt 2 failed" in log


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, [0, 0, 0]),
        ({"backoffDuration": "2s"}, [2, 4, 8]),
        ({"backoffDuration": "2s", "backoffFactor": 3.0}, [2, 6, 18]),
        ({"backoffDuration": "2s", "backoffFactor": 3.0, "backoffMaxDuration": "5s"}, [2, 5, 5]),
        ({"backoffDuration": "1800s"}, [1800, 3600, 3600]),
    ],
)
def test_the_pause_between_attempts_grows_to_its_maximum(policy: dict[str, Any], expected: list[float]) -> None:
    assert [backoff_s(policy, retry) for retry in range(3)] == expected


def test_a_termination_does_not_wait_for_the_next_attempt(engine: Any, compiled: Any) -> None:
    @dsl.pipeline(name="long-pause")
    def pipeline() -> None:
        steps.boom().set_retry(2, backoff_duration="3000s")

    run_id = engine.submit(compiled(pipeline))
    engine.until(run_id, lambda outcome: "boom" in outcome.tasks and "trying again" in _log(outcome))
    engine.call(engine.engine.terminate(run_id))
    assert engine.finish(run_id).states() == {"boom": "CANCELED"}


def _log(outcome: Any) -> str:
    try:
        return str(outcome.log("boom"))
    except FileNotFoundError:
        return ""


def test_a_retried_run_runs_its_failures_and_its_exit_task_again(engine: Any, compiled: Any, tmp_path: Path) -> None:
    @dsl.pipeline(name="again")
    def pipeline(good: str, flaky: str) -> None:
        with dsl.ExitHandler(steps.status_of().set_caching_options(False)):
            first = steps.count_in(path=good).set_caching_options(False)
            with dsl.ParallelFor([1]) as item:
                steps.count_in(path=flaky, fail_until=item).after(first).set_caching_options(False)

    run_id = engine.submit(compiled(pipeline), good=str(tmp_path / "good"), flaky=str(tmp_path / "flaky"))
    before = engine.finish(run_id)
    assert (before.run.state, before.outputs()["status-of"]["state"]) == ("FAILED", "FAILED")
    engine.call(engine.engine.retry(run_id))
    outcome = engine.until(run_id, lambda outcome: outcome.run.state == "SUCCEEDED")
    assert outcome.outputs()["status-of"]["state"] == "SUCCEEDED"
    assert (tmp_path / "good").read_text() == "x"
    assert (tmp_path / "flaky").read_text() == "xx"
    assert len(outcome.at) == len(before.at)


def test_a_step_that_is_retried_after_its_input_changed_runs_again(engine: Any, compiled: Any, tmp_path: Path) -> None:
    @dsl.pipeline(name="changed")
    def pipeline(path: str, gate: str) -> None:
        count = steps.count_in(path=path).set_caching_options(False)
        steps.double(value=count.output).set_caching_options(False)
        steps.count_in(path=gate, fail_until=1).set_caching_options(False)

    spec = compiled(pipeline)
    run_id = engine.submit(spec, path=str(tmp_path / "n"), gate=str(tmp_path / "gate"))
    assert engine.finish(run_id).run.state == "FAILED"
    task = engine.outcome(run_id).at["count-in"]

    async def lose() -> None:
        engine.store.save_task(dataclasses.replace(task, state="FAILED"))

    engine.call(lose())
    engine.call(engine.engine.retry(run_id))
    outcome = engine.until(run_id, lambda outcome: outcome.run.state == "SUCCEEDED")
    assert (outcome.outputs()["count-in"], outcome.outputs()["double"]) == (2, 4)


def test_a_step_that_outlives_its_time_limit_fails(engine: Any, compiled: Any, tmp_path: Path) -> None:
    @dsl.pipeline(name="limited")
    def pipeline(path: str) -> None:
        steps.wait_for(path=path)

    config = {"exec-wait-for": {"activeDeadlineSeconds": "1"}}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": config}}}}
    outcome = engine.run(compiled(pipeline), platform, path=str(tmp_path / "never"))
    assert outcome.run.state == "FAILED"
    assert "activeDeadlineSeconds" in outcome.run.error


async def test_a_pause_that_ends_as_its_run_is_cancelled_ends_cancelled() -> None:
    attempts = Attempts(None, None)  # type: ignore[arg-type]  # a pause asks neither
    pause = asyncio.create_task(attempts._pause(60.0, exiting=False))
    for _ in range(3):
        await asyncio.sleep(0)
    attempts._cancelling.set()
    pause.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pause
