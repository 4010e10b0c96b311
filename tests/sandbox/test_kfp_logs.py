"""Step logs, whole and live."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.sandbox.rig import final, get, log_url
from tests.waiting import wait_for

pytestmark = pytest.mark.sandbox


def test_a_followed_log_streams_while_the_step_runs_and_ends_with_it(
    http: httpx.Client, submit: Callable[..., str], tmp_path: Path
) -> None:
    held = tmp_path / "blocker.first"
    held.touch()
    run_id = submit(ticks=8, blocker=str(tmp_path / "blocker"))
    details = wait_for(lambda: get(http, f"/runs/{run_id}").get("run_details", {}), "tasks")
    node = next(task["pod_name"] for task in details["task_details"] if task["display_name"] == "first")
    with http.stream("GET", log_url(http, run_id, node), params={"follow": "true"}) as stream:
        lines = stream.iter_lines()
        seen = next(line for line in lines if line.startswith("tick 0"))
        assert get(http, f"/runs/{run_id}")["state"] == "RUNNING", "the first line came before the step ended"
        held.unlink()
        rest = list(lines)
    assert [seen, *rest][:8] == [f"tick {tick} ab" for tick in range(8)]
    assert final(http, run_id)["state"] == "SUCCEEDED"
    whole = http.get(log_url(http, run_id, node))
    assert whole.headers["content-type"].startswith("text/plain")
    assert [line for line in whole.text.splitlines() if line.startswith("tick")] == [seen, *rest][:8]


def test_a_reader_that_stops_reading_does_not_hold_up_others(http: httpx.Client, submit: Callable[..., str]) -> None:
    run_id = submit(ticks=3)
    details = wait_for(lambda: get(http, f"/runs/{run_id}").get("run_details", {}), "tasks")
    target = httpx.URL(log_url(http, run_id, details["task_details"][0]["task_id"]))
    with socket.create_connection((target.host, target.port or 80), 5) as deaf:
        deaf.sendall(f"GET {target.path}?follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert final(http, run_id)["state"] == "SUCCEEDED"


def test_the_log_of_an_unknown_node_is_not_found(http: httpx.Client, submit: Callable[..., str]) -> None:
    run_id = submit()
    for node in ("no-such-pod", "..%2F..%2Fkfp.sqlite"):
        answer = http.get(log_url(http, run_id, node))
        assert (answer.status_code, answer.json()["code"]) == (404, 5)
    final(http, run_id)
