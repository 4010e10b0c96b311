"""The pipelines process killed in the middle of submissions, over a damaged store, on a full disk, under a burst."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.kfp.server import open_store
from sandbox.runstore.store import Run
from tests.sandbox.rig import final, get, google_error
from tests.sandbox.test_full_disk import Disk, disk
from tests.waiting import wait_for

__all__ = ["disk"]  # a fixture of this module, too

pytestmark = pytest.mark.destructive

NOTHING = {"pipelineInfo": {"name": "nothing"}, "schemaVersion": "2.1.0", "root": {"dag": {"tasks": {}}}}


@dataclass
class Server:
    """A pipelines process over `home`."""

    home: Path
    process: subprocess.Popen[str]
    http: httpx.Client

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    @property
    def log(self) -> str:
        return (self.home / "server.log").read_text(encoding="utf-8")


@contextmanager
def server(home: Path, **environment: str) -> Iterator[Server]:
    (home / "logs").mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-P", "-m", "sandbox.kfp", "--home", str(home), "--port", "0"]
    with (home / "server.log").open("ab") as log:
        known = {**os.environ, "PYTHONPATH": os.getcwd(), **environment}
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True, env=known)
    assert process.stdout is not None
    with process.stdout as output:
        address = output.readline().removeprefix("listening on ").strip()
        limits = httpx.Limits(max_connections=100)
        try:
            assert address, (home / "server.log").read_text(encoding="utf-8")
            with httpx.Client(base_url=f"{address}/apis/v2beta1", timeout=60, limits=limits) as http:
                yield Server(home, process, http)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)


def submit(http: httpx.Client, spec: dict[str, Any], name: str, **parameters: Any) -> httpx.Response:
    body = {"display_name": name, "pipeline_spec": spec, "runtime_config": {"parameters": parameters}}
    return http.post("/runs", json=body)


def run_ids(http: httpx.Client) -> set[str]:
    found: set[str] = set()
    token = ""
    while True:
        page = http.get("/runs", params={"page_size": "200", "page_token": token}).json()
        found |= {run["run_id"] for run in page["runs"]}
        token = page["next_page_token"]
        if not token:
            return found


EACH_SECOND = {
    "display_name": "each second",
    "pipeline_spec": NOTHING,
    "max_concurrency": 10,
    "mode": "ENABLE",
    "trigger": {"cron_schedule": {"cron": "* * * * * *"}},
}


def scheduled(http: httpx.Client, recurring_run_id: str) -> list[str]:
    """The times for which the runs of a recurring run were scheduled."""
    wanted = {"key": "recurring_run_id", "operation": "EQUALS", "string_value": recurring_run_id}
    given = {"page_size": "200", "sort_by": "scheduled_at", "filter": json.dumps({"predicates": [wanted]})}
    return [run["scheduled_at"] for run in http.get("/runs", params=given).json().get("runs", [])]


def test_what_was_answered_is_there_after_a_kill_and_runs_to_its_end_and_schedules_go_on(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    answered: list[str] = []
    enough = threading.Event()

    def keep_submitting(http: httpx.Client) -> None:
        for number in range(10**6):
            try:
                answer = submit(http, spec, "real", text="a") if number == 3 else submit(http, NOTHING, "empty")
            except httpx.TransportError:
                return
            answered.append(answer.json()["run_id"])
            if len(answered) > 60:
                enough.set()

    with server(tmp_path) as first:
        recurring = first.http.post("/recurringruns", json=EACH_SECOND).json()["recurring_run_id"]
        wait_for(lambda: scheduled(first.http, recurring), "a run of the schedule", 60)
        with ThreadPoolExecutor(6) as pool:
            for _ in range(6):
                pool.submit(keep_submitting, first.http)
            assert enough.wait(60)
            before = scheduled(first.http, recurring)
            first.kill()
    with server(tmp_path) as second:
        assert set(answered) <= run_ids(second.http), "a run that was answered is gone"
        after = wait_for(
            lambda: (found := scheduled(second.http, recurring))[len(before) + 1 :] and found,
            "more of the schedule",
            60,
        )
        assert after[: len(before)] == before
        assert len({moment[:19] for moment in after}) == len(after), "no second was run twice"
        second.http.post(f"/recurringruns/{recurring}:disable").raise_for_status()
        for run_id in run_ids(second.http):
            assert final(second.http, run_id)["state"] == "SUCCEEDED"
        assert "Traceback" not in second.log


def test_fifty_runs_submitted_at_once_all_run(tmp_path: Path, spec: dict[str, Any]) -> None:
    """Ten of them with steps; the others have nothing to do, and crowd the API and the store as much."""
    with server(tmp_path) as one, ThreadPoolExecutor(50) as pool:
        together = threading.Barrier(50)

        def go(number: int) -> httpx.Response:
            together.wait(30)
            return submit(one.http, NOTHING, "empty") if number % 5 else submit(one.http, spec, "r", text=f"t{number}")

        answers = list(pool.map(go, range(50)))
        assert {answer.status_code for answer in answers} == {200}
        ids = [answer.json()["run_id"] for answer in answers]
        assert len(set(ids)) == 50
        assert run_ids(one.http) == set(ids)
        for number, run_id in enumerate(ids):
            run = final(one.http, run_id)
            assert run["state"] == "SUCCEEDED"
            if number % 5 == 0:
                second = next(task for task in run["tasks"] if task["name"] == "second")
                text = f"t{number}"
                assert second["outputs"]["parameters"][0]["value"] == text * len(text), "runs do not mix their values"
        assert "Traceback" not in one.log


def test_a_damaged_store_is_put_aside_whole_and_a_new_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "kfp" / "kfp.sqlite"
    path.parent.mkdir()
    path.write_bytes(b"this is no database, " * 1000)
    with server(tmp_path) as after:
        assert run_ids(after.http) == set()
        (aside,) = path.parent.glob("kfp.sqlite.unreadable-*")
        assert aside.read_bytes() == b"this is no database, " * 1000
        assert str(aside) in after.log
        assert "nothing of it is deleted" in after.log
        run = submit(after.http, NOTHING, "new").json()
        assert final(after.http, run["run_id"])["state"] == "SUCCEEDED"
        assert "Traceback" not in after.log


@pytest.mark.parametrize("damage", ["torn pages", "cut short"])
def test_a_store_whose_pages_contradict_each_other_is_damaged(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "kfp.sqlite"
    store = open_store(path)
    for number in range(30):
        store.save_run(Run(str(number), "e", "n", {"n": "x" * 3000 + str(number)}, 1.0, 1.0))
    store.close()
    content = bytearray(path.read_bytes())
    if damage == "torn pages":
        for page in range(1, len(content) // 4096):
            content[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    else:
        del content[len(content) // 2 :]
    path.write_bytes(content)
    store = open_store(path)
    assert store.unfinished_runs() == []
    store.close()
    (aside,) = tmp_path.glob("kfp.sqlite.unreadable-*")
    assert aside.read_bytes() == bytes(content)


def test_a_full_disk_refuses_submissions_and_stores_none_by_half(disk: Disk) -> None:
    with server(disk.path / "home") as one:
        kept = submit(one.http, NOTHING, "before").json()["run_id"]
        final(one.http, kept)
        disk.fill()

        def refused() -> list[httpx.Response]:
            answer = submit(one.http, {**NOTHING, "sdkVersion": os.urandom(40_000).hex()}, "too much")
            return [] if answer.status_code == 200 else [answer]

        (answer,) = wait_for(refused, "a refusal", 30)
        assert google_error(answer) == (503, 14)
        assert "full" in answer.json()["message"]
        before = run_ids(one.http)
        assert google_error(submit(one.http, {**NOTHING, "sdkVersion": "y" * 90_000}, "too much")) == (503, 14)
        assert run_ids(one.http) == before
        assert get(one.http, f"/runs/{kept}")["state"] == "SUCCEEDED"
        assert get(one.http, "/healthz")["multi_user"] is False
        disk.free()
        after = submit(one.http, NOTHING, "after").json()["run_id"]
        assert final(one.http, after)["state"] == "SUCCEEDED"
        for run_id in before:
            assert final(one.http, run_id)["state"] in ("SUCCEEDED", "FAILED")
