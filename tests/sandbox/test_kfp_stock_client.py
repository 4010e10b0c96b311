"""kfp.Client through every public method that it has, against a live server."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sandbox.rig import final, get
from tests.waiting import wait_for

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def pipeline_func(package: str) -> Any:
    """The pipeline of `package` as the function that it was compiled from."""
    spec = importlib.util.spec_from_file_location("two_steps", Path(package).with_name("two_steps.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.two_steps


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def named(name: str) -> str:
    return json.dumps({"predicates": [{"operation": 1, "key": "display_name", "stringValue": name}]})


def test_client_makes_finds_and_files_experiments(client: Any) -> None:
    made = client.create_experiment("of the client", description="d")
    assert client.create_experiment("of the client").experiment_id == made.experiment_id
    assert client.get_experiment(experiment_name="of the client").description == "d"
    found = client.list_experiments(page_size=1, filter=named("of the client"))
    assert [one.experiment_id for one in found.experiments] == [made.experiment_id]
    client.archive_experiment(made.experiment_id)
    assert client.get_experiment(experiment_id=made.experiment_id).storage_state == "ARCHIVED"
    client.unarchive_experiment(made.experiment_id)
    assert client.get_experiment(experiment_id=made.experiment_id).storage_state == "AVAILABLE"
    client.delete_experiment(made.experiment_id)
    with pytest.raises(ValueError, match="No experiment is found"):
        client.get_experiment(experiment_name="of the client")


def test_client_uploads_finds_and_deletes_pipelines(client: Any, package: str, pipeline_func: Any) -> None:
    made = client.upload_pipeline(package, "of the client", description="d")
    by_function = client.upload_pipeline_from_pipeline_func(pipeline_func, "of a function")
    assert client.get_pipeline_id("of the client") == made.pipeline_id
    assert client.get_pipeline_id("of nobody") is None
    assert client.get_pipeline(made.pipeline_id).description == "d"
    found = client.list_pipelines(filter=named("of a function"))
    assert [one.pipeline_id for one in found.pipelines] == [by_function.pipeline_id]
    second = client.upload_pipeline_version(package, "second", pipeline_name="of the client", description="v")
    third = client.upload_pipeline_version_from_pipeline_func(pipeline_func, "third", pipeline_id=made.pipeline_id)
    listed = client.list_pipeline_versions(made.pipeline_id, sort_by="created_at desc", page_size=2)
    assert [one.display_name for one in listed.pipeline_versions] == ["third", "second"]
    rest = client.list_pipeline_versions(made.pipeline_id, page_token=listed.next_page_token)
    assert [one.display_name for one in rest.pipeline_versions] == ["of the client"]
    shown = client.get_pipeline_version(made.pipeline_id, second.pipeline_version_id)
    assert (shown.description, shown.pipeline_spec["pipelineInfo"]["name"]) == ("v", "two-steps")
    for version in (*listed.pipeline_versions, *rest.pipeline_versions):
        client.delete_pipeline_version(made.pipeline_id, version.pipeline_version_id)
    client.delete_pipeline(made.pipeline_id)
    assert client.get_pipeline_id("of the client") is None
    assert third.pipeline_id == made.pipeline_id


def test_client_runs_waits_terminates_and_files_runs(
    client: Any, package: str, pipeline_func: Any, http: httpx.Client
) -> None:
    experiment = client.create_experiment("runs of the client").experiment_id
    pipeline = client.upload_pipeline(package, "run by the client")
    (version,) = client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions
    ids = {"pipeline_id": pipeline.pipeline_id, "version_id": version.pipeline_version_id}
    kept = client.run_pipeline(experiment, "of a version", params={"text": "a"}, **ids)
    ended = client.wait_for_run_completion(kept.run_id, timeout=120, sleep_duration=0.1)
    assert (ended.state, ended.pipeline_version_reference.pipeline_id) == ("SUCCEEDED", pipeline.pipeline_id)
    by_package = client.create_run_from_pipeline_package(package, {"text": "b"}, experiment_id=experiment)
    final(http, by_package.run_id)
    assert by_package.wait_for_run_completion(timeout=120).state == "SUCCEEDED"
    slow = client.create_run_from_pipeline_func(
        pipeline_func, {"text": "c", "ticks": 600}, run_name="slow", experiment_id=experiment, enable_caching=False
    )
    wait_for(lambda: client.get_run(slow.run_id).state == "RUNNING", "the slow run", 60)
    client.terminate_run(slow.run_id)
    assert final(http, slow.run_id)["state"] == "CANCELED"
    listed = client.list_runs(experiment_id=experiment, sort_by="created_at", page_size=2)
    assert [one.run_id for one in listed.runs] == [kept.run_id, by_package.run_id]
    rest = client.list_runs(page_token=listed.next_page_token, experiment_id=experiment)
    assert [one.run_id for one in rest.runs] == [slow.run_id]
    client.archive_run(kept.run_id)
    assert client.get_run(kept.run_id).storage_state == "ARCHIVED"
    client.unarchive_run(kept.run_id)
    assert client.get_run(kept.run_id).storage_state == "AVAILABLE"
    for run in (kept, by_package, slow):
        client.delete_run(run.run_id)
    assert not client.list_runs(experiment_id=experiment).runs


def test_client_makes_switches_and_deletes_recurring_runs(client: Any, package: str) -> None:
    experiment = client.create_experiment("schedules of the client").experiment_id
    pipeline = client.upload_pipeline(package, "scheduled by the client")
    (version,) = client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions
    kept = client.create_recurring_run(
        experiment,
        "of a version",
        interval_second=86400,
        start_time="2099-01-01T00:00:00Z",
        params={"text": "a"},
        pipeline_id=pipeline.pipeline_id,
        version_id=version.pipeline_version_id,
    )
    assert kept.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    other = client.create_recurring_run(
        experiment,
        "of a package",
        cron_expression="0 0 3 * * *",
        max_concurrency=2,
        no_catchup=True,
        params={"text": "b"},
        pipeline_package_path=package,
        enabled=False,
    )
    shown = client.get_recurring_run(other.recurring_run_id)
    assert (shown.status, shown.no_catchup, shown.trigger.cron_schedule.cron) == ("DISABLED", True, "0 0 3 * * *")
    client.enable_recurring_run(other.recurring_run_id)
    assert client.get_recurring_run(other.recurring_run_id).status == "ENABLED"
    client.disable_recurring_run(other.recurring_run_id)
    client.disable_job(kept.recurring_run_id)
    assert client.get_recurring_run(kept.recurring_run_id).status == "DISABLED"
    client.enable_job(kept.recurring_run_id)
    assert client.get_recurring_run(kept.recurring_run_id).status == "ENABLED"
    listed = client.list_recurring_runs(experiment_id=experiment, sort_by="created_at")
    assert [one.recurring_run_id for one in listed.recurring_runs] == [kept.recurring_run_id, other.recurring_run_id]
    client.delete_recurring_run(other.recurring_run_id)
    client.delete_job(kept.recurring_run_id)
    assert not client.list_recurring_runs(experiment_id=experiment).recurring_runs


def test_client_keeps_a_namespace_and_asks_in_it(
    client: Any, http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(client), "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setattr(client, "_context_setting", {"namespace": ""})
    client.set_user_namespace("team")
    assert client.get_user_namespace() == "team"
    made = client.create_experiment("of a team")
    assert get(http, f"/experiments/{made.experiment_id}")["namespace"] == "team"
    assert [one.display_name for one in client.list_experiments().experiments] == ["of a team"]


def test_client_asks_for_health(client: Any, http: httpx.Client) -> None:
    assert client.get_kfp_healthz().multi_user is False
    version = httpx.get(http.base_url.join("/apis/v1beta1/healthz"), timeout=60).json()
    assert set(version) == {"multi_user", "tag_name", "commit_sha"}
