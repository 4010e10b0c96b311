"""Recurring runs as the stock clients see them, on a live server with the engine behind it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.sandbox.rig import Cli, final, get, google_error, printed
from tests.waiting import wait_for

pytestmark = pytest.mark.sandbox


def runs_of(http: httpx.Client, recurring_run_id: str) -> list[dict[str, Any]]:
    wanted = {"key": "recurring_run_id", "operation": "EQUALS", "string_value": recurring_run_id}
    listed = http.get("/runs", params={"filter": json.dumps({"predicates": [wanted]}), "page_size": "200"}).json()
    found: list[dict[str, Any]] = listed.get("runs", [])
    return found


def test_cli_creates_shows_disables_enables_and_deletes_recurring_runs(
    cli: Cli, package: str, http: httpx.Client
) -> None:
    words = ["--experiment-name", "on time", "--job-name", "each second", "--cron-expression", "* * * * * *"]
    created = printed(cli("recurring-run", "create", *words, "--pipeline-package-path", package, "--enabled", "text=x"))
    wanted = created["recurring_run_id"]
    assert (created["status"], created["mode"], created["max_concurrency"]) == ("ENABLED", "ENABLE", "1")
    (first, *_) = wait_for(lambda: runs_of(http, wanted), "the first run", 60)
    assert first["display_name"].startswith("each second-1-")
    assert first["recurring_run_id"] == wanted
    assert final(http, first["run_id"])["state"] == "SUCCEEDED"
    wait_for(lambda: len(runs_of(http, wanted)) > 1, "another run", 60)
    assert printed(cli("recurring-run", "disable", wanted))["status"] == "DISABLED"
    before = len(runs_of(http, wanted))
    assert printed(cli("recurring-run", "get", wanted))["trigger"]["cron_schedule"]["cron"] == "* * * * * *"
    experiment = created["experiment_id"]
    listed = printed(cli("recurring-run", "list", "-e", experiment))
    assert [row["recurring_run_id"] for row in listed] == [wanted]
    assert len(runs_of(http, wanted)) == before, "a disabled one makes no runs"
    assert printed(cli("recurring-run", "enable", wanted))["status"] == "ENABLED"
    wait_for(lambda: len(runs_of(http, wanted)) > before, "a run after it was enabled", 60)
    cli("recurring-run", "delete", wanted, answer="y\n")
    assert "not found" in cli("recurring-run", "get", wanted, status=1)
    assert runs_of(http, wanted), "its runs stay"
    for run in runs_of(http, wanted):
        assert final(http, run["run_id"])["state"] == "SUCCEEDED"


def recurring(spec: dict[str, Any], **fields: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "display_name": "nightly",
        "pipeline_spec": spec,
        "runtime_config": {"parameters": {"text": "a"}},
        "max_concurrency": "1",
        "mode": "DISABLE",
        "trigger": {"periodic_schedule": {"interval_second": "3600"}},
    }
    return known | fields


def test_what_was_asked_for_is_shown_again(http: httpx.Client, spec: dict[str, Any]) -> None:
    window = {"start_time": "2027-01-01T00:00:00Z", "end_time": "2028-01-01T01:00:00+01:00"}
    trigger = {"cronSchedule": {**window, "cron": "0 0 3 ? * MON-FRI"}}
    body = recurring(spec, trigger=trigger, description="d", no_catchup=True, max_concurrency=3, mode=2)
    created = http.post("/recurringruns", json=body)
    assert created.status_code == 200, created.text
    shown = get(http, f"/recurringruns/{created.json()['recurring_run_id']}")
    assert shown == created.json()
    assert shown["trigger"]["cron_schedule"] == {
        "cron": "0 0 3 ? * MON-FRI",
        "start_time": "2027-01-01T00:00:00.000000Z",
        "end_time": "2028-01-01T00:00:00.000000Z",
    }
    assert (shown["max_concurrency"], shown["no_catchup"], shown["status"]) == ("3", True, "DISABLED")
    assert shown["pipeline_spec"] == spec
    assert shown["runtime_config"] == {"parameters": {"text": "a"}}
    http.delete(f"/recurringruns/{shown['recurring_run_id']}?propagation_policy=ORPHAN").raise_for_status()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"display_name": ""}, "display_name"),
        ({"display_name": "x" * 200}, "longer than 128"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"max_concurrency": None}, "recurring_run.max_concurrency"),
        ({"max_concurrency": 0}, "from 1 to 10"),
        ({"max_concurrency": "11"}, "from 1 to 10"),
        ({"max_concurrency": "many"}, "from 1 to 10"),
        ({"max_concurrency": True}, "from 1 to 10"),
        ({"mode": "SOMETIMES"}, "recurring_run.mode"),
        ({"no_catchup": "yes"}, "recurring_run.no_catchup"),
        ({"trigger": None}, "recurring_run.trigger"),
        ({"trigger": {}}, "exactly one of"),
        ({"trigger": {"cron_schedule": {"cron": "* * * * * *"}, "periodic_schedule": {}}}, "exactly one of"),
        ({"trigger": {"cron_schedule": {"cron": "61 * * * * *"}}}, "cron_schedule.cron: '61 * * * * *'"),
        ({"trigger": {"cron_schedule": {"cron": 5}}}, "cron_schedule.cron: 5 is not a string"),
        ({"trigger": {"cron_schedule": {"cron": "0 0 0 30 2 ?"}}}, "never comes"),
        ({"trigger": {"cron_schedule": {"cron": "* * * * *", "start_time": "soon"}}}, "cron_schedule.start_time"),
        ({"trigger": {"periodic_schedule": {"interval_second": 0}}}, "periodic_schedule.interval_second"),
        ({"trigger": {"periodic_schedule": {}}}, "periodic_schedule.interval_second"),
        (
            {
                "trigger": {
                    "periodic_schedule": {
                        "interval_second": 1,
                        "start_time": "2027-01-02T00:00:00Z",
                        "end_time": "2027-01-01T00:00:00Z",
                    }
                }
            },
            "ends before it starts",
        ),
        ({"runtime_config": {"parameters": {"text": 5}}}, "runtime_config.parameters.text"),
        ({"runtime_config": {"parameters": {}}}, "'text' is missing"),
        ({"runtime_config": {"parameters": {"text": "a", "other": 1}}}, "unknown parameter 'other'"),
        ({"runtime_config": {"parameters": {"text": "a"}, "pipeline_root": "s3://b"}}, "local folders"),
        ({"pipeline_spec": None}, "give pipeline_spec or"),
        ({"pipeline_version_reference": {"pipeline_id": "p"}}, "not both"),
    ],
)
def test_wrong_recurring_runs_are_refused_saying_where(
    http: httpx.Client, spec: dict[str, Any], fields: dict[str, Any], says: str
) -> None:
    answer = http.post("/recurringruns", json=recurring(spec, **fields))
    assert google_error(answer) == (400, 3)
    assert says in answer.json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/recurringruns/nowhere", 404),
        ("DELETE", "/recurringruns/nowhere", 404),
        ("POST", "/recurringruns/nowhere:enable", 404),
        ("POST", "/recurringruns/nowhere:disable", 404),
        ("DELETE", "/recurringruns/nowhere?propagation_policy=NOW", 400),
        ("GET", "/recurringruns?experiment_id=nowhere", 404),
        ("GET", "/recurringruns?sort_by=cron", 400),
        ("POST", "/recurringruns/nowhere:explode", 405),
    ],
)
def test_wrong_requests_for_recurring_runs_get_their_code(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    assert google_error(http.request(method, path))[0] == status


def test_recurring_runs_come_in_pages_and_are_filtered(http: httpx.Client, spec: dict[str, Any]) -> None:
    experiment = http.post("/experiments", json={"display_name": "many schedules"}).json()["experiment_id"]
    for number in range(7):
        body = recurring(spec, display_name=f"s{number}", experiment_id=experiment)
        assert http.post("/recurringruns", json=body).status_code == 200
    seen: list[str] = []
    token = ""
    while True:
        given = {"experiment_id": experiment, "page_size": "3", "page_token": token, "sort_by": "display_name desc"}
        page = http.get("/recurringruns", params=given).json()
        assert page["total_size"] == 7
        seen += [one["display_name"] for one in page["recurringRuns"]]
        token = page["next_page_token"]
        if not token:
            break
    assert seen == [f"s{number}" for number in range(6, -1, -1)]
    one = {"predicates": [{"key": "name", "operation": 8, "string_values": {"values": ["s3", "s5"]}}]}
    found = http.get("/recurringruns", params={"experiment_id": experiment, "filter": json.dumps(one)}).json()
    assert [one["display_name"] for one in found["recurringRuns"]] == ["s3", "s5"]
