"""The KFP API as its stock clients see it: the `kfp` CLI, kfp.Client, and plain HTTP, against a live server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sandbox.rig import Cli, archive_of, final, get, printed, task_of
from tests.waiting import wait_for

pytestmark = pytest.mark.sandbox


# ---------------------------------------------------------------- the stock clients


def test_healthz_satisfies_the_client(client: Any) -> None:
    assert client.get_kfp_healthz().multi_user is False


def test_cli_creates_shows_archives_and_deletes_experiments(cli: Cli, client: Any) -> None:
    created = printed(cli("experiment", "create", "cli-experiment", "-d", "made by hand"))
    assert created["display_name"] == "cli-experiment"
    again = printed(cli("experiment", "create", "cli-experiment"))
    assert again["experiment_id"] == created["experiment_id"], "an existing experiment is found, not doubled"
    assert client.get_experiment(experiment_id=created["experiment_id"]).description == "made by hand"
    assert printed(cli("experiment", "get", created["experiment_id"]))["display_name"] == "cli-experiment"
    names = [row["display_name"] for row in printed(cli("experiment", "list"))]
    assert {"Default", "cli-experiment"} <= set(names)
    archived = printed(cli("experiment", "archive", "--experiment-id", created["experiment_id"]))
    assert archived["storage_state"] == "ARCHIVED"
    restored = printed(cli("experiment", "unarchive", "--experiment-name", "cli-experiment"))
    assert restored["storage_state"] == "AVAILABLE"
    cli("experiment", "delete", created["experiment_id"], answer="y\n")
    assert "not found" in cli("experiment", "get", created["experiment_id"], status=1)


def test_cli_uploads_shows_and_deletes_pipelines_and_versions(cli: Cli, package: str) -> None:
    pipeline = printed(cli("pipeline", "create", "-p", "cli-pipeline", "-d", "two steps", package))
    assert pipeline["display_name"] == "cli-pipeline"
    assert printed(cli("pipeline", "get", pipeline["pipeline_id"]))["pipeline_id"] == pipeline["pipeline_id"]
    assert pipeline["pipeline_id"] in [row["pipeline_id"] for row in printed(cli("pipeline", "list"))]
    version = printed(cli("pipeline", "create-version", "-v", "v2", "-n", "cli-pipeline", package))
    assert version["pipeline_id"] == pipeline["pipeline_id"]
    versions = printed(cli("pipeline", "list-versions", pipeline["pipeline_id"]))
    assert [row["display_name"] for row in versions] == ["v2", "cli-pipeline"], "the newest first, as the CLI asks for"
    shown = printed(cli("pipeline", "get-version", pipeline["pipeline_id"], version["pipeline_version_id"]))
    assert shown["display_name"] == "v2"
    assert "existing pipeline versions" in cli("pipeline", "delete", pipeline["pipeline_id"], answer="y\n", status=1)
    for row in versions:
        cli("pipeline", "delete-version", pipeline["pipeline_id"], row["pipeline_version_id"], answer="y\n")
    cli("pipeline", "delete", pipeline["pipeline_id"], answer="y\n")
    assert "not found" in cli("pipeline", "get", pipeline["pipeline_id"], status=1)


def test_cli_creates_shows_archives_and_deletes_runs(cli: Cli, package: str, http: httpx.Client) -> None:
    created = printed(cli("run", "create", "-e", "cli-runs", "-r", "by-hand", "-f", package, "text=abc"))
    assert created["display_name"] == "by-hand"
    assert final(http, created["run_id"])["state"] == "SUCCEEDED"
    assert printed(cli("run", "get", created["run_id"]))["state"] == "SUCCEEDED"
    assert "is finished with state SUCCEEDED" in cli("run", "get", "--watch", created["run_id"])
    experiment = printed(cli("experiment", "create", "cli-runs"))
    listed = printed(cli("run", "list", "-e", experiment["experiment_id"]))
    assert [row["run_id"] for row in listed] == [created["run_id"]]
    assert printed(cli("run", "archive", created["run_id"]))["storage_state"] == "ARCHIVED"
    assert printed(cli("run", "unarchive", created["run_id"]))["storage_state"] == "AVAILABLE"
    cli("run", "delete", created["run_id"], answer="y\n")
    assert "not found" in cli("run", "get", created["run_id"], status=1)


def test_the_installed_kfp_command_submits_with_only_the_endpoint_set(url: str, package: str, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("kfp")
    argv = [str(command), "run", "create", "-e", "by-command", "-f", package, "--watch", "text=x"]
    environment = {**os.environ, "KFP_ENDPOINT": url}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "Run is finished with state SUCCEEDED" in done.stdout


def test_cli_runs_an_uploaded_pipeline_version(cli: Cli, package: str, http: httpx.Client) -> None:
    pipeline = printed(cli("pipeline", "create", "-p", "kept", package))
    version = printed(cli("pipeline", "list-versions", pipeline["pipeline_id"]))[0]
    ids = (pipeline["pipeline_id"], version["pipeline_version_id"])
    created = printed(cli("run", "create", "-e", "kept", "-p", ids[0], "-v", ids[1], "text=abc"))
    http.delete(f"/pipelines/{pipeline['pipeline_id']}?cascade=true").raise_for_status()
    run = final(http, created["run_id"])
    assert run["state"] == "SUCCEEDED", "a run keeps its spec when its pipeline is deleted"
    reference = {"pipeline_id": pipeline["pipeline_id"], "pipeline_version_id": version["pipeline_version_id"]}
    assert run["pipeline_version_reference"] == reference
    assert "pipeline_spec" not in run


def test_client_compiles_submits_and_waits(client: Any, package: str) -> None:
    result = client.create_run_from_pipeline_package(package, arguments={"text": "q"}, experiment_name="waited")
    finished = client.wait_for_run_completion(result.run_id, timeout=120, sleep_duration=0.1)
    assert finished.state == "SUCCEEDED"
    assert finished.finished_at > finished.created_at
    assert [status.state for status in finished.state_history] == ["PENDING", "RUNNING", "SUCCEEDED"]


# ---------------------------------------------------------------- runs


def test_a_run_shows_its_tasks_in_both_shapes(http: httpx.Client, submit: Callable[..., str]) -> None:
    run = final(http, submit())
    assert run["state"] == "SUCCEEDED"
    one, two = task_of(run, "first"), task_of(run, "second")
    assert one["pod_name"]
    assert one["start_time"] < one["end_time"]
    assert one["outputs"]["out"] == two["inputs"]["data"], "an artifact has one id for producer and consumer"
    newer = {task["name"]: task for task in run["tasks"]}
    assert newer["first"]["type"] == "RUNTIME"
    assert newer["first"]["outputs"]["parameters"] == [{"parameter_key": "Output", "value": 2, "type": "OUTPUT"}]
    artifacts = {entry["artifact_key"]: entry["artifacts"] for entry in newer["first"]["outputs"]["artifacts"]}
    assert (artifacts["scores"][0]["name"], artifacts["scores"][0]["number_value"]) == ("length", 2)
    assert artifacts["out"][0]["type"] == "Dataset"
    assert Path(artifacts["out"][0]["uri"].removeprefix("file://")).read_text() == "ab"
    assert newer["second"]["outputs"]["parameters"][0]["value"] == "abab"
    listed = get(http, f"/runs/{run['run_id']}/tasks")
    assert [task["task_id"] for task in listed["tasks"]] == [task["task_id"] for task in run["tasks"]]
    assert run["task_count"] == listed["total_size"] == 2


def test_parameters_keep_their_types_and_defaults_are_bound(http: httpx.Client, submit: Callable[..., str]) -> None:
    run_id = submit(ticks=1)
    assert get(http, f"/runs/{run_id}")["runtime_config"]["parameters"] == {"text": "ab", "ticks": 1, "blocker": ""}
    assert final(http, run_id)["state"] == "SUCCEEDED"


def test_a_failed_run_says_why_and_a_retry_repeats_only_what_failed(
    http: httpx.Client, submit: Callable[..., str], tmp_path: Path
) -> None:
    blocker = tmp_path / "blocker"
    blocker.touch()
    run_id = submit(blocker=str(blocker))
    run = final(http, run_id)
    assert run["state"] == "FAILED"
    assert "blocked by" in run["error"]["message"]
    assert "blocked by" in task_of(run, "second")["error"]["message"]
    first_ended = task_of(run, "first")["end_time"]
    blocker.unlink()
    http.post(f"/runs/{run_id}:retry").raise_for_status()
    run = wait_for(lambda: (found := final(http, run_id))["state"] == "SUCCEEDED" and found, "the retry")
    assert task_of(run, "first")["end_time"] == first_ended
    refused = http.post(f"/runs/{run_id}:retry")
    assert (refused.status_code, refused.json()["code"]) == (400, 9)


def test_terminate_cancels_a_running_run_once(http: httpx.Client, submit: Callable[..., str]) -> None:
    run_id = submit(ticks=600)
    wait_for(lambda: get(http, f"/runs/{run_id}")["state"] == "RUNNING", "running")
    unfinished = get(http, f"/runs/{run_id}")
    assert unfinished["finished_at"] == "1970-01-01T00:00:00Z", "as the real server shows an unfinished run"
    http.post(f"/runs/{run_id}:terminate").raise_for_status()
    assert final(http, run_id)["state"] == "CANCELED"
    refused = http.post(f"/runs/{run_id}:terminate")
    assert refused.status_code == 400
    assert "CANCELED already" in refused.json()["message"]


def test_a_running_run_can_be_deleted_and_leaves_no_logs(
    http: httpx.Client, submit: Callable[..., str], kfp_home: Path
) -> None:
    run_id = submit(ticks=600)
    wait_for(lambda: get(http, f"/runs/{run_id}")["state"] == "RUNNING", "running")
    http.delete(f"/runs/{run_id}").raise_for_status()
    assert http.get(f"/runs/{run_id}").status_code == 404
    assert not (kfp_home / "kfp" / "runs" / run_id).exists()


def test_archiving_an_experiment_archives_its_runs_and_guards_them(
    http: httpx.Client, spec: dict[str, Any], client: Any
) -> None:
    experiment = http.post("/experiments", json={"display_name": "guarded"}).json()["experiment_id"]
    body = {"display_name": "r", "experiment_id": experiment, "pipeline_spec": spec}
    run_id = http.post("/runs", json=body | {"runtime_config": {"parameters": {"text": "a"}}}).json()["run_id"]
    final(http, run_id)
    client.archive_experiment(experiment)
    assert get(http, f"/runs/{run_id}")["storage_state"] == "ARCHIVED"
    refused = http.post(f"/runs/{run_id}:unarchive")
    assert (refused.status_code, refused.json()["code"]) == (400, 9)
    client.unarchive_experiment(experiment)
    http.post(f"/runs/{run_id}:unarchive").raise_for_status()
    assert get(http, f"/runs/{run_id}")["storage_state"] == "AVAILABLE"


# ---------------------------------------------------------------- uploads


@pytest.mark.parametrize("kind", ["yaml", "json", "zip", "tar.gz"])
def test_pipelines_are_taken_from_every_kind_of_file(
    http: httpx.Client, package: str, spec: dict[str, Any], kind: str
) -> None:
    text = Path(package).read_bytes()
    content = {"yaml": text, "json": json.dumps(spec).encode()}.get(kind) or archive_of(kind, text)
    files = {"uploadfile": (f"p.{kind}", content)}
    answer = http.post("/pipelines/upload", params={"name": f"from {kind}"}, files=files)
    assert answer.status_code == 200, answer.text
    versions = get(http, f"/pipelines/{answer.json()['pipeline_id']}/versions")["pipeline_versions"]
    assert versions[0]["pipeline_spec"] == spec
    by_name = get(http, f"/pipelines/names/from {kind}")
    assert by_name["pipeline_id"] == answer.json()["pipeline_id"]


def test_a_platform_spec_is_kept_beside_the_pipeline(http: httpx.Client, package: str) -> None:
    platforms = "\n---\nplatforms:\n  kubernetes:\n    deploymentSpec:\n      executors: {}\n"
    files = {"uploadfile": ("p.yaml", Path(package).read_text() + platforms)}
    pipeline_id = http.post("/pipelines/upload", params={"name": "with platform"}, files=files).json()["pipeline_id"]
    shown = get(http, f"/pipelines/{pipeline_id}/versions")["pipeline_versions"][0]["pipeline_spec"]
    assert set(shown) == {"pipeline_spec", "platform_spec"}
    body = {"display_name": "r", "pipeline_spec": shown, "runtime_config": {"parameters": {"text": "a"}}}
    run = http.post("/runs", json=body).json()
    assert final(http, run["run_id"])["pipeline_spec"] == shown


def test_a_run_is_cloned_from_what_is_shown_of_it(http: httpx.Client, spec: dict[str, Any]) -> None:
    body = {"display_name": "r", "pipeline_spec": spec, "runtime_config": {"parameters": {"text": "cloned"}}}
    shown = final(http, http.post("/runs", json=body).json()["run_id"])
    kept = ("experiment_id", "pipeline_spec", "runtime_config", "service_account")
    clone = {name: shown[name] for name in kept if name in shown} | {"display_name": "Clone of r"}
    again = final(http, http.post("/runs", json=clone).json()["run_id"])
    assert again["run_id"] != shown["run_id"]
    for name in ("state", *kept):
        assert again.get(name) == shown.get(name), name


def test_names_are_taken_once(http: httpx.Client, package: str) -> None:
    for _ in range(2):
        files = {"uploadfile": ("p.yaml", Path(package).read_bytes())}
        second = http.post("/pipelines/upload", params={"name": "only once"}, files=files)
    assert (second.status_code, second.json()["code"]) == (409, 6)
    assert http.post("/experiments", json={"display_name": "only once"}).status_code == 200
    assert http.post("/experiments", json={"display_name": "only once"}).status_code == 409


# ---------------------------------------------------------------- lists


@pytest.fixture(scope="module")
def many(http: httpx.Client) -> list[str]:
    """25 experiments in a namespace of their own, oldest first."""
    return [
        http.post("/experiments", json={"display_name": f"many {n:02}", "namespace": "many"}).json()["display_name"]
        for n in range(25)
    ]


def pages(http: httpx.Client, **parameters: str) -> list[list[str]]:
    """Every page of the list, as display names, following the tokens and nothing but the tokens."""
    found, token = [], ""
    while True:
        answer = http.get("/experiments", params={**parameters, "page_token": token})
        assert answer.status_code == 200, answer.text
        found.append([experiment["display_name"] for experiment in answer.json().get("experiments", [])])
        token = answer.json()["next_page_token"]
        parameters.pop("sort_by", None)
        parameters.pop("filter", None)
        if not token:
            return found


def test_pages_hold_everything_once_in_order(http: httpx.Client, many: list[str]) -> None:
    found = pages(http, namespace="many", page_size="10")
    assert [len(page) for page in found] == [10, 10, 5]
    assert [name for page in found for name in page] == many
    descending = pages(http, namespace="many", page_size="7", sort_by="display_name desc")
    assert [name for page in descending for name in page] == many[::-1]
    assert get(http, "/experiments?namespace=many&page_size=3")["total_size"] == 25


@pytest.mark.parametrize("operation", [9, "9", "IS_SUBSTRING"])
def test_filters_take_operations_by_number_and_by_name(
    http: httpx.Client, many: list[str], operation: int | str
) -> None:
    predicate = {"operation": operation, "key": "display_name", "stringValue": "MANY 1"}
    found = pages(http, namespace="many", page_size="4", filter=json.dumps({"predicates": [predicate]}))
    assert [name for page in found for name in page] == many[10:20]


def test_filters_compare_times_and_sets(http: httpx.Client, many: list[str]) -> None:
    middle = get(http, "/experiments?namespace=many&page_size=200")["experiments"][12]["created_at"]
    later = {"operation": "GREATER_THAN", "key": "created_at", "timestamp_value": middle}
    either = {"operation": "IN", "key": "name", "string_values": {"values": many[11:15]}}
    found = pages(http, namespace="many", filter=json.dumps({"predicates": [later, either]}))
    assert found == [many[13:15]]
