"""What the tests of the KFP API share: a pipeline, and reading answers."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import httpx

from tests.waiting import wait_for

DEADLINE_S = 120.0

# kfp reads types from live annotations, so it cannot read them in this file.
TWO_STEPS = """
from kfp import dsl

IMAGE = "localhost/kanary/pipeline:0.1.0"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def first(text: str, ticks: int, blocker: str, out: dsl.Output[dsl.Dataset], scores: dsl.Output[dsl.Metrics]) -> int:
    import os
    import time

    for tick in range(ticks):
        print(f"tick {tick} {text}", flush=True)
        time.sleep(0.1)
    while blocker and os.path.exists(blocker + ".first"):
        time.sleep(0.05)
    with open(out.path, "w", encoding="utf-8") as written:
        written.write(text)
    scores.log_metric("length", len(text))
    return len(text)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def second(length: int, data: dsl.Input[dsl.Dataset], blocker: str) -> str:
    import os

    if blocker and os.path.exists(blocker):
        raise ValueError("blocked by " + blocker)
    with open(data.path, encoding="utf-8") as written:
        return written.read() * length


@dsl.pipeline(name="two-steps")
def two_steps(text: str, ticks: int = 0, blocker: str = ""):
    one = first(text=text, ticks=ticks, blocker=blocker).set_caching_options(False)
    second(length=one.outputs["Output"], data=one.outputs["out"], blocker=blocker).set_caching_options(False)
"""

Cli = Callable[..., str]


def printed(output: str) -> Any:
    """The JSON at the end of a command's output, after the lines meant for people."""
    lines = output.splitlines()
    start = next(number for number, line in enumerate(lines) if line[:1] in "[{" and line)
    return json.loads("\n".join(lines[start:]))


def get(http: httpx.Client, path: str) -> dict[str, Any]:
    answer = http.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def final(http: httpx.Client, run_id: str) -> dict[str, Any]:
    """The run once it has ended, tasks in both shapes."""

    def ended() -> dict[str, Any]:
        run = get(http, f"/runs/{run_id}?view=FULL")
        return run if run["state"] in ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED") else {}

    return wait_for(ended, f"the end of run {run_id}", DEADLINE_S)


def task_of(run: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(task for task in run["run_details"]["task_details"] if task["display_name"] == name)
    return found


def log_url(http: httpx.Client, run_id: str, node: str) -> str:
    return str(http.base_url.join(f"/apis/v1alpha1/runs/{run_id}/nodes/{node}/log"))


def google_error(answer: httpx.Response) -> tuple[int, int]:
    """Status and code, once the body has proved to be in Google's shape."""
    body = answer.json()
    assert body["error"] == body["message"] != ""
    assert body["details"][0]["@type"] == "type.googleapis.com/google.rpc.Status"
    return answer.status_code, body["code"]


def archive_of(kind: str, content: bytes, member: str = "pipeline.yaml") -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr(member, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as packed_tar:
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            packed_tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
