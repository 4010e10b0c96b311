"""What is killed, full, damaged or set back while pipelines run has a defined end; nothing hangs in RUNNING."""

# ruff: noqa: I002 -- kfp reads the types of components and pipelines from live annotations
import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from kfp import dsl

from sandbox.engine.records import INTERRUPTED, MOST_INTERRUPTIONS
from sandbox.runstore.store import Store
from tests.engine import steps
from tests.waiting import wait_for

pytestmark = pytest.mark.destructive


@dsl.pipeline(name="interrupted")
def interrupted(done: str, wait: str, items: list[int] = [1, 2]) -> None:  # noqa: B006
    with dsl.ExitHandler(steps.status_of().set_caching_options(False)):
        first = steps.count_in(path=done).set_caching_options(False)
        steps.wait_for(path=wait).after(first).set_caching_options(False)
        with dsl.ParallelFor(items) as item:
            steps.double(value=item).set_caching_options(False)


@contextmanager
def server(home: Path) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """The pipelines process of a sandbox, and a client of its API; killed at the end, if it is still there."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sandbox.kfp", "--home", str(home), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=(home / "stderr").open("a"),
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on "), (home / "stderr").read_text()
        with httpx.Client(base_url=f"{line.split()[-1]}/apis/v2beta1", timeout=60) as client:
            yield process, client
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        process.stdout.close()


def tasks_of(client: httpx.Client, run_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run, and its tasks in the newer shape by name; of those that share one the last."""
    run = client.get(f"/runs/{run_id}", params={"view": "FULL"}).json()
    return run, {task["name"]: task for task in run.get("tasks", [])}


def test_a_killed_engine_is_followed_by_one_that_goes_on(compiled: Any, tmp_path: Path) -> None:
    body = {"display_name": "test", "pipeline_spec": compiled(interrupted)}
    given = {"done": str(tmp_path / "done"), "wait": str(tmp_path / "wait")}
    with server(tmp_path) as (process, client):
        answer = client.post("/runs", json=body | {"runtime_config": {"parameters": given}})
        run_id = answer.json()["run_id"]
        began = tmp_path / "wait.began"
        wait_for(lambda: began.exists() and began.read_text() == "x", "the step runs, and has said so", deadline=120)
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        wait_for(
            lambda: not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE],
            "warm parents and workers end with the engine",
            deadline=60,
        )
    (tmp_path / "wait").touch()
    with server(tmp_path) as (_, client):
        wait_for(lambda: tasks_of(client, run_id)[0]["state"] == "SUCCEEDED", "the run is finished", deadline=120)
        _, tasks = tasks_of(client, run_id)
        assert (tmp_path / "done").read_text() == "x", "what had finished stays finished"
        assert (tmp_path / "wait.began").read_text() == "xx", "what was interrupted has run again"
        assert {task["state"] for task in tasks.values()} == {"SUCCEEDED"}
        told = [entry.get("error", {}).get("message", "") for entry in tasks["wait-for"]["state_history"]]
        assert INTERRUPTED in told


def test_a_run_that_was_being_terminated_ends_canceled_after_a_restart(
    fresh_engine: Any, compiled: Any, tmp_path: Path
) -> None:
    first = fresh_engine()
    run_id = first.submit(compiled(interrupted), done=str(tmp_path / "done"), wait=str(tmp_path / "never"))
    first.until(run_id, lambda _: (tmp_path / "never.began").exists())

    async def say() -> None:
        run = first.store.get_run(run_id)
        first.store.save_run(dataclasses.replace(run, state="CANCELING"))

    first.call(say())
    first.close()
    outcome = fresh_engine().finish(run_id)
    assert outcome.run.state == "CANCELED"
    assert outcome.tasks["wait-for"].state == "CANCELED"
    assert outcome.outputs()["status-of"]["state"] == "CANCELLED"


def test_a_step_that_ends_the_sandbox_again_and_again_is_given_up(
    fresh_engine: Any, compiled: Any, tmp_path: Path
) -> None:
    first = fresh_engine()
    run_id = first.submit(compiled(interrupted), done=str(tmp_path / "done"), wait=str(tmp_path / "never"))
    first.until(run_id, lambda _: (tmp_path / "never.began").exists())
    task = first.outcome(run_id).tasks["wait-for"]
    first.close()
    again = [{"state": "PENDING", "update_time": 0.0, "error": INTERRUPTED}] * (MOST_INTERRUPTIONS - 1)
    store = Store(first.home / "kfp" / "kfp.sqlite")
    store.save_task(dataclasses.replace(task, state="RUNNING", state_history=[*task.state_history, *again]))
    store.close()
    outcome = fresh_engine().finish(run_id)
    assert outcome.run.state == "FAILED"
    assert f"{MOST_INTERRUPTIONS} times" in outcome.tasks["wait-for"].error


def test_a_killed_warm_parent_fails_its_steps_and_the_next_run_has_another(
    fresh_engine: Any, compiled: Any, tmp_path: Path
) -> None:
    @dsl.pipeline(name="parent-killed")
    def pipeline(path: str) -> None:
        steps.wait_for(path=path).set_caching_options(False)

    live = fresh_engine()
    run_id = live.submit(compiled(pipeline), path=str(tmp_path / "x"))
    live.until(run_id, lambda _: (tmp_path / "x.began").exists())
    os.kill(live.engine.parents.bare.pid, signal.SIGKILL)
    outcome = live.finish(run_id)
    assert (outcome.run.state, outcome.tasks["wait-for"].error) == (
        "FAILED",
        "the sandbox's worker process was lost",
    )
    (tmp_path / "x").touch()
    assert live.run(compiled(pipeline), path=str(tmp_path / "x")).run.state == "SUCCEEDED"


def test_a_step_killed_while_it_writes_leaves_nothing_that_its_next_attempt_takes_for_whole(
    engine: Any, compiled: Any, tmp_path: Path
) -> None:
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def halfway(path: str, data: dsl.Output[dsl.Dataset], out: dsl.OutputPath(str)) -> None:  # type: ignore[valid-type]
        import os
        import signal

        first = not os.path.exists(path)
        with open(path, "a") as file:
            file.write("x")
        assert not os.path.exists(data.path)
        for name in (data.path, out):
            os.makedirs(os.path.dirname(name), exist_ok=True)
            with open(name, "w") as file:
                file.write("half")
                file.flush()
                if first:
                    os.kill(os.getpid(), signal.SIGKILL)
                file.write(" and half")

    @dsl.pipeline(name="halfway")
    def pipeline(path: str) -> None:
        made = halfway(path=path).set_retry(1, backoff_duration="0s")
        steps.read(data=made.outputs["data"])
        steps.text(value=made.outputs["out"])

    outcome = engine.run(compiled(pipeline), path=str(tmp_path / "tries"))
    assert outcome.run.state == "SUCCEEDED", outcome.run.error
    assert (outcome.outputs()["read"], outcome.outputs()["text"]) == ("half and half", "half and half")
    assert "SIGKILL" in outcome.log("halfway")


@pytest.mark.parametrize(("content", "says"), [('{"parameterValues": {"Out', "no JSON"), ("[]", "no JSON object")])
def test_a_damaged_output_file_fails_its_step(engine: Any, compiled: Any, content: str, says: str) -> None:
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def damages(content: str) -> str:
        import os

        with open("../executor_output.json", "w") as file:
            file.write(content)
        os._exit(0)

    @dsl.pipeline(name="damages")
    def pipeline(content: str) -> None:
        damages(content=content).set_caching_options(False)

    outcome = engine.run(compiled(pipeline), content=content)
    assert outcome.run.state == "FAILED"
    assert says in outcome.run.error


def test_a_step_that_meets_a_full_disk_fails_with_that_reason(engine: Any, compiled: Any) -> None:
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def fills(data: dsl.Output[dsl.Dataset]) -> None:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        with open(data.path, "wb") as file:
            file.write(b"\0" * (1 << 20))

    @dsl.pipeline(name="fills")
    def pipeline() -> None:
        fills()

    outcome = engine.run(compiled(pipeline))
    assert outcome.run.state == "FAILED"
    assert "File too large" in outcome.run.error


def test_with_the_store_full_a_run_fails_once_there_is_room_and_the_next_one_runs(
    fresh_engine: Any, compiled: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def much(size: int) -> str:
        return "x" * size

    @dsl.pipeline(name="much")
    def pipeline(wait: str) -> None:
        much(size=500_000).after(steps.wait_for(path=wait)).set_caching_options(False)

    live = fresh_engine()
    run_id = live.submit(compiled(pipeline), wait=str(tmp_path / "wait"))
    live.until(run_id, lambda _: (tmp_path / "wait.began").exists())

    async def limit(pages: int | None) -> None:
        connection = live.store.database._connection
        (used,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={used if pages is None else pages}")

    async def is_full() -> bool:
        try:
            with live.store.database.transaction() as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS ballast (b BLOB)")
                connection.execute("INSERT INTO ballast VALUES (zeroblob(3000))")
        except sqlite3.OperationalError as error:
            return "full" in str(error)
        return False

    live.call(limit(None))
    wait_for(lambda: live.call(is_full()), "the store is full")
    (tmp_path / "wait").touch()
    wait_for(lambda: "ended by an error of the sandbox itself" in caplog.text, "the engine has met it", deadline=60)
    live.call(limit(1 << 20))
    outcome = live.finish(run_id)
    assert not [task for task in outcome.at.values() if task.state in ("RUNNING", "PENDING")]
    assert outcome.run.state == "FAILED"
    assert "full" in outcome.run.error
    assert live.run(compiled(pipeline), wait=str(tmp_path / "wait")).run.state == "SUCCEEDED"


def test_a_run_whose_pipeline_is_lost_fails_and_the_others_go_on(
    fresh_engine: Any, compiled: Any, tmp_path: Path
) -> None:
    @dsl.pipeline(name="lost")
    def lost(path: str) -> None:
        steps.wait_for(path=path)

    first = fresh_engine()
    spec = compiled(interrupted)
    runs = [
        first.submit(compiled(lost), path=str(tmp_path / "lost")),
        first.submit(spec, done=str(tmp_path / "done"), wait=str(tmp_path / "wait")),
    ]
    first.until(runs[1], lambda _: (tmp_path / "wait.began").exists())
    first.close()
    (tmp_path / "wait").touch()
    database = sqlite3.connect(tmp_path / "kfp" / "kfp.sqlite")
    with database:
        database.execute(
            "UPDATE blobs SET body = '{\"cut' WHERE hash = (SELECT spec_hash FROM runs WHERE run_id = ?)", (runs[0],)
        )
    database.close()
    second = fresh_engine()
    outcomes = [second.finish(run_id) for run_id in runs]
    assert [outcome.run.state for outcome in outcomes] == ["FAILED", "SUCCEEDED"]
    assert "cannot be read from the store" in outcomes[0].run.error


def test_the_wall_clock_may_be_set_while_a_run_goes_on(
    engine: Any, compiled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dsl.pipeline(name="clock")
    def pipeline(path: str, wait: str) -> None:
        waited = steps.wait_for(path=wait)
        steps.count_in(path=path, fail_until=1).after(waited).set_retry(1, backoff_duration="1s")

    run_id = engine.submit(compiled(pipeline), path=str(tmp_path / "n"), wait=str(tmp_path / "wait"))
    engine.until(run_id, lambda _: (tmp_path / "wait.began").exists())
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86400)
    (tmp_path / "wait").touch()
    outcome = engine.finish(run_id)
    assert outcome.run.state == "SUCCEEDED"
    for task in outcome.at.values():
        assert task.created_at <= task.started_at <= task.finished_at
    assert outcome.run.created_at <= outcome.run.finished_at


def test_fifty_runs_at_once_all_end(engine: Any, compiled: Any) -> None:
    @dsl.pipeline(name="crowd")
    def pipeline(n: int) -> None:
        with dsl.If(n < 25):
            steps.double(value=n).set_caching_options(False)

    spec = compiled(pipeline)
    runs = [engine.submit(spec, n=number) for number in range(50)]
    outcomes = [engine.finish(run_id, timeout=200) for run_id in runs]
    assert [outcome.run.state for outcome in outcomes] == ["SUCCEEDED"] * 50
    given = [list(outcome.outputs().values()) for outcome in outcomes]
    assert given == [[2 * number] for number in range(25)] + [[]] * 25
