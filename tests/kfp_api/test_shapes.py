"""The two shapes of a run, and the tasks and artifacts of KFP's next release, over a store that the test fills."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from sandbox.kfp.api import make_app
from sandbox.kfp.wire import Release
from sandbox.runstore.store import Run, Task
from tests.kfp_api.rig import NOON, SPEC, Stage

MODEL = {"name": "model", "uri": "/a/model", "type": {"schemaTitle": "system.Model"}, "metadata": {"k": "v"}}
METRICS = {
    "name": "metrics",
    "uri": "/a/metrics",
    "type": {"schemaTitle": "system.Metrics"},
    "metadata": {"accuracy": 0.5, "loss": 2, "comment": "none of them"},
}


@asynccontextmanager
async def client_of(stage: Stage, release: Release = Release.BOTH) -> AsyncIterator[httpx.AsyncClient]:
    app = make_app(dataclasses.replace(stage.service, release=release))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost/apis/v2beta1") as client:
        yield client


@pytest.fixture
def filled(stage: Stage) -> Stage:
    store = stage.service.store
    store.save_run(Run("run", "e", "n", SPEC, NOON, NOON, state="SUCCEEDED", finished_at=NOON + 9))
    made = {"parameters": {}, "artifacts": {"model": [MODEL], "metrics": [METRICS]}}
    loop = Task("loop", "run", "for-loop-1", NOON, kind="DAG", state="SUCCEEDED", iteration_count=1)
    item = Task("item", "run", "for-loop-1", NOON + 1, "loop", kind="DAG", state="SUCCEEDED", iteration_index=0)
    train = Task("train", "run", "train", NOON + 2, "item", state="SUCCEEDED", pod_name="pod", outputs=made)
    use = Task("use", "run", "use", NOON + 3, state="SUCCEEDED", cached=True, inputs={"artifacts": {"m": [MODEL]}})
    for task in (loop, item, dataclasses.replace(train, finished_at=NOON + 5), use):
        store.save_task(task)
    return stage


@pytest.mark.parametrize(
    ("release", "view", "has", "lacks"),
    [
        (Release.BOTH, "", {"run_details", "task_count"}, {"tasks"}),
        (Release.BOTH, "FULL", {"run_details", "tasks", "task_count"}, set()),
        (Release.CURRENT, "", {"run_details"}, {"tasks", "task_count"}),
        (Release.CURRENT, "FULL", {"run_details"}, {"tasks", "task_count"}),
        (Release.NEXT, "", {"task_count"}, {"run_details", "tasks"}),
        (Release.NEXT, "FULL", {"tasks", "task_count"}, {"run_details"}),
    ],
)
async def test_a_run_has_the_shape_of_the_release(
    filled: Stage, release: Release, view: str, has: set[str], lacks: set[str]
) -> None:
    async with client_of(filled, release) as client:
        run = (await client.get("/runs/run", params={"view": view})).json()
        (listed,) = (await client.get("/runs", params={"view": view})).json()["runs"]
    assert has <= set(run)
    assert not lacks & set(run)
    assert not lacks & set(listed)
    assert ("run_details" in listed) == (release is Release.CURRENT or (release is Release.BOTH and view == "FULL"))


async def test_the_current_release_has_no_task_or_artifact_endpoints(filled: Stage) -> None:
    async with client_of(filled, Release.CURRENT) as client:
        for path in ("/runs/run/tasks", "/runs/run/tasks/train", "/artifacts", "/artifacts/1", "/artifact_tasks"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, 5), path


async def test_tasks_are_listed_shown_and_narrowed(filled: Stage) -> None:
    async with client_of(filled) as client:
        every = (await client.get("/runs/run/tasks")).json()
        assert [task["task_id"] for task in every["tasks"]] == ["loop", "item", "train", "use"]
        assert every["total_size"] == 4
        inside = (await client.get("/runs/run/tasks", params={"parent_id": "loop"})).json()["tasks"]
        assert [task["task_id"] for task in inside] == ["item"]
        first = (await client.get("/runs/run/tasks", params={"page_size": "3"})).json()
        assert [task["task_id"] for task in first["tasks"]] == ["loop", "item", "train"]
        rest = (await client.get("/runs/run/tasks", params={"page_token": first["next_page_token"]})).json()
        assert [task["task_id"] for task in rest["tasks"]] == ["use"]
        cached = {"predicates": [{"key": "state", "operation": "EQUALS", "string_value": "CACHED"}]}
        found = (await client.get("/runs/run/tasks", params={"filter": json.dumps(cached)})).json()["tasks"]
        assert [task["task_id"] for task in found] == ["use"]
        one = (await client.get("/runs/run/tasks/loop")).json()
        assert one["child_tasks"] == [{"task_id": "item", "name": "for-loop-1"}]
        assert (await client.get("/runs/run/tasks/nowhere")).status_code == 404


async def test_artifacts_are_listed_and_shown_a_metric_for_each_number(filled: Stage) -> None:
    async with client_of(filled) as client:
        listed = (await client.get("/artifacts", params={"sort_by": "name"})).json()
        shown = [(one["name"], one["type"], one.get("number_value")) for one in listed["artifacts"]]
        assert shown == [("accuracy", "Metric", 0.5), ("loss", "Metric", 2), ("model", "Model", None)]
        assert len({one["artifact_id"] for one in listed["artifacts"]}) == 3
        model = listed["artifacts"][-1]
        assert (model["uri"], model["metadata"]) == ("/a/model", {"k": "v"})
        assert (await client.get(f"/artifacts/{model['artifact_id']}")).json() == model
        assert (await client.get("/artifacts/12")).status_code == 404
        models = {"predicates": [{"key": "type", "operation": "EQUALS", "string_value": "Model"}]}
        found = (await client.get("/artifacts", params={"filter": json.dumps(models)})).json()
        assert [one["name"] for one in found["artifacts"]] == ["model"]
        run = (await client.get("/runs/run", params={"view": "FULL"})).json()
        (train,) = (task for task in run["tasks"] if task["task_id"] == "train")
        of_task = [one for entry in train["outputs"]["artifacts"] for one in entry["artifacts"]]
        assert sorted(one["artifact_id"] for one in of_task) == sorted(
            one["artifact_id"] for one in listed["artifacts"]
        )
        filled.service.store.delete_run("run")
        assert (await client.get("/artifacts")).json()["artifacts"] == []


async def test_it_is_told_which_task_reads_and_writes_an_artifact(filled: Stage) -> None:
    async with client_of(filled) as client:

        async def links(**given: str) -> list[tuple[str, str, str]]:
            answer = (await client.get("/artifact_tasks", params=given)).json()
            return sorted((link["task_id"], link["type"], link["key"]) for link in answer["artifact_tasks"])

        written = [("train", "OUTPUT", "metrics"), ("train", "OUTPUT", "metrics"), ("train", "OUTPUT", "model")]
        read = [("use", "TASK_OUTPUT_INPUT", "m")]
        assert await links(run_ids="run") == sorted(written + read)
        assert await links(task_ids="use") == read
        assert await links(run_ids="run", type="OUTPUT") == written
        found: Any = (await client.get("/artifacts", params={"sort_by": "name desc", "page_size": "1"})).json()
        model = found["artifacts"][0]["artifact_id"]
        assert await links(artifact_ids=model) == [("train", "OUTPUT", "model"), *read]
        assert (await client.get("/artifact_tasks")).status_code == 400
