from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from kanary import config, kfp
from kanary.api import AsyncClient, Client, Server
from kanary.errors import ApiError, ConfigError, InputError, KanaryError, Unreachable
from kanary.kfp_spec import Pipeline, bind, read_pipeline
from kanary.kfp_types import Run, TaskDetail, moment, progress, read_run, task_tree
from kanary.kfp_wait import wait
from tests.core.fake_kfp import FakeKfp, Json, run_json, serving, task_json

RUN = "11111111-0000-4000-8000-000000000000"


@pytest.fixture
def fake() -> Iterator[FakeKfp]:
    with serving() as server:
        yield server


@pytest.fixture
def api(fake: FakeKfp) -> Iterator[Client]:
    with Client(Server("KFP", fake.url, timeout=5)) as client:
        yield client


def answer_with(response: Response) -> Any:
    return lambda request: response


def test_authorities_are_read_for_an_address_with_tls_only(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    create = ssl.create_default_context

    def counted(*given: Any, **named: Any) -> ssl.SSLContext:
        made.append(named)
        return create(*given, **named)

    monkeypatch.setattr(ssl, "create_default_context", counted)
    Client(Server("KFP", "http://127.0.0.1:1")).close()
    assert made == []
    for url in ("https://127.0.0.1:1", "HTTPS://127.0.0.1:1"):
        made.clear()
        Client(Server("KFP", url)).close()
        assert len(made) == 1, url


# ---- reading runs


def test_a_run_of_the_older_shape(fake: FakeKfp, api: Client) -> None:
    tasks = [
        task_json("root", "RUNNING"),
        task_json("train", "RUNNING", parent_task_id="task-root", start_time="2026-11-21T07:00:05Z"),
        task_json("ingest", parent_task_id="task-root", outputs={"dataset": {"artifact_ids": ["17"]}}),
        task_json("deploy", "PENDING", parent_task_id="task-root"),
    ]
    fake.runs = [run_json(RUN, state="RUNNING", tasks=tasks)]
    run = api.call(kfp.get_run(RUN))
    assert (run.name, run.state, run.pipeline_name, run.parameters) == (
        "training", "RUNNING", "training-pipeline", {"epochs": 3},
    )  # fmt: skip
    assert run.finished_at is None
    assert not run.final
    by_name = {task.name: task for task in run.tasks}
    assert by_name["train"].finished_at is None
    assert by_name["deploy"].started_at is None
    assert by_name["ingest"].seconds(datetime.now(UTC)) == 3.5
    assert by_name["ingest"].outputs.artifacts["dataset"][0].artifact_id == "17"
    assert [(depth, task.name) for depth, task in task_tree(run.tasks)] == [
        (0, "root"), (1, "ingest"), (1, "train"), (1, "deploy"),
    ]  # fmt: skip
    assert progress(run) == (1, 3)


def newer_tasks() -> list[Json]:
    return [
        {"task_id": "1", "name": "root", "type": "ROOT", "state": "SUCCEEDED", "create_time": "2026-11-21T07:00:00Z",
         "end_time": "2026-11-21T07:00:09Z"},
        {"task_id": "2", "name": "ingest", "type": "RUNTIME", "state": "CACHED", "parent_task_id": "1",
         "create_time": "2026-11-21T07:00:01Z", "end_time": "2026-11-21T07:00:01.5Z",
         "pods": [{"name": "d", "type": "DRIVER"}, {"name": "ingest-pod", "type": "EXECUTOR"}],
         "outputs": {"parameters": [{"parameter_key": "rows", "value": 569, "type": "OUTPUT"}],
                     "artifacts": [{"artifact_key": "dataset", "artifacts": [
                         {"artifact_id": "9", "name": "data", "type": "Dataset", "uri": "minio://b/k",
                          "metadata": {"rows": 569}}]}]}},
        {"task_id": "3", "name": "evaluate", "type": "RUNTIME", "state": "FAILED", "parent_task_id": "1",
         "status_metadata": {"message": "gate accuracy: 0.7 < 0.9"},
         "outputs": {"artifacts": [{"artifact_key": "metrics", "artifacts": [
             {"name": "accuracy", "type": "Metric", "number_value": 0.7}]}]}},
    ]  # fmt: skip


def test_a_run_of_the_newer_shape_with_its_tasks_elsewhere(fake: FakeKfp, api: Client) -> None:
    fake.runs = [run_json(RUN, state="FAILED", task_count=3) | {"run_details": {}}]
    fake.tasks[RUN] = newer_tasks()
    run = api.call(kfp.get_run(RUN))
    root, ingest, evaluate = run.tasks
    assert (ingest.state, ingest.cached, ingest.kind, ingest.pod_name) == ("SUCCEEDED", True, "RUNTIME", "ingest-pod")
    assert ingest.outputs.parameters == {"rows": 569}
    artifact = ingest.outputs.artifacts["dataset"][0]
    assert (artifact.uri, artifact.type, artifact.metadata) == ("minio://b/k", "Dataset", {"rows": 569})
    assert evaluate.error == "gate accuracy: 0.7 < 0.9"
    assert evaluate.outputs.artifacts["metrics"][0].metadata == {"accuracy": 0.7}
    assert root.final
    assert progress(run) == (2, 2)
    assert fake.paths("GET") == [f"/apis/v2beta1/runs/{RUN}"] + [f"/apis/v2beta1/runs/{RUN}/tasks"] * 2


def test_a_run_of_both_shapes_takes_states_from_the_older_and_values_from_the_newer() -> None:
    older = [task_json("ingest", "CANCELED", task_id="2")]
    run = read_run(run_json(RUN, tasks=older) | {"tasks": newer_tasks()[1:2]})
    (ingest,) = run.tasks
    assert (ingest.state, ingest.cached, ingest.outputs.parameters["rows"]) == ("CANCELED", True, 569)


def test_driver_pods_are_no_tasks_but_a_users_driver_is() -> None:
    real = [task_json(name) for name in ("root-driver", "root", "train-driver", "train")]
    assert [task.name for task in read_run(run_json(RUN, tasks=real)).tasks] == ["root", "train"]
    own = [task_json("screw-driver")]
    assert [task.name for task in read_run(run_json(RUN, tasks=own)).tasks] == ["screw-driver"]


def test_why_a_run_failed_may_stand_in_its_history_only() -> None:
    history = [
        {"state": "RUNNING", "error": {"message": "a pod was evicted"}},
        {"state": "FAILED", "error": {"message": "out of memory"}},
    ]
    assert read_run(run_json(RUN, state="FAILED", state_history=history)).error == "out of memory"
    assert read_run(run_json(RUN, state="SUCCEEDED", state_history=history)).error == ""


@pytest.mark.parametrize("value", [None, "", "yesterday", 7, "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])
def test_no_time_is_none(value: object) -> None:
    assert moment(value) is None


def test_times_are_read_to_the_microsecond_in_any_zone() -> None:
    wanted = datetime(2026, 11, 21, 7, 0, 0, 123456, tzinfo=UTC)
    assert moment("2026-11-21T07:00:00.123456Z") == moment("2026-11-21T07:00:00.123456789Z") == wanted
    assert moment("2026-11-21T08:00:00.123456+01:00") == wanted
    assert moment("2026-11-21T07:00:00.123456") == wanted


def test_a_task_tree_gives_every_task_once_whatever_its_parents_are() -> None:
    tasks = [TaskDetail(i, i, "RUNNING", parent_id=p) for i, p in ("ab", "bc", "ca", "dd", ("e", "nobody"), "fe")]
    tree = task_tree(tasks)
    assert sorted(task.task_id for _, task in tree) == ["a", "b", "c", "d", "e", "f"]
    assert [(depth, task.task_id) for depth, task in tree if task.task_id in "ef"] == [(0, "e"), (1, "f")]


@pytest.mark.parametrize(
    "body",
    [[], "text", 3, {}, {"run_id": 7}, {"run_id": RUN, "run_details": {"task_details": {"a": 1}}},
     {"run_id": RUN, "run_details": {"task_details": [3]}}, {"run_id": RUN, "tasks": [{"name": "no id"}]}],
)  # fmt: skip
def test_an_answer_of_another_api_is_an_api_error(fake: FakeKfp, api: Client, body: Any) -> None:
    fake.override = answer_with(JSONResponse(body))
    with pytest.raises(ApiError) as caught:
        api.call(kfp.get_run(RUN))
    assert caught.value.hint


def test_odd_cosmetic_fields_do_no_harm() -> None:
    odd = {"run_id": RUN, "display_name": 3, "state": None, "error": "x", "state_history": 4, "runtime_config": [],
           "created_at": {}, "pipeline_spec": "x", "task_count": "many"}  # fmt: skip
    run = read_run(odd)
    assert (run.name, run.state, run.error, run.task_count) == ("", "PENDING", "", 0)


# ---- listing


def test_paging_filter_and_sort_reach_the_server(fake: FakeKfp, api: Client) -> None:
    fake.runs = [run_json(f"run-{i}") for i in range(5)]
    page = api.call(
        kfp.list_runs(
            page_size=2, predicates=[kfp.Predicate("state", "EQUALS", "FAILED")], experiment_id="e", namespace="team-a"
        )
    )
    assert ([run.run_id for run in page.runs], page.next_page_token, page.total) == (["run-0", "run-1"], "2", 5)
    params = fake.asked[-1].params
    assert (params["sort_by"], params["experiment_id"], params["namespace"]) == ("created_at desc", "e", "team-a")
    assert json.loads(params["filter"]) == {
        "predicates": [{"key": "state", "operation": "EQUALS", "string_value": "FAILED"}]
    }
    assert "page_token" not in params


def test_newest_runs_goes_over_pages_and_gives_each_run_once(fake: FakeKfp, api: Client) -> None:
    fake.runs = [run_json(f"run-{i}") for i in range(450)]
    fake.runs.insert(200, fake.runs[199])  # created between two pages, another was pushed over the edge
    page = api.call(kfp.newest_runs(1000))
    assert [run.run_id for run in page.runs] == [f"run-{i}" for i in range(450)]
    assert len(fake.asked) == 3
    assert len(api.call(kfp.newest_runs(7)).runs) == 7
    assert fake.asked[-1].params["page_size"] == "7"


def test_a_server_that_repeats_its_page_token_ends_the_list(fake: FakeKfp, api: Client) -> None:
    fake.override = answer_with(JSONResponse({"runs": [run_json("run-1")], "next_page_token": "same"}))
    assert len(api.call(kfp.newest_runs(50)).runs) == 1


def test_an_empty_list_is_an_empty_page(api: Client) -> None:
    page = api.call(kfp.newest_runs(10))
    assert (page.runs, page.total) == ((), 0)


def test_a_run_is_found_by_the_beginning_of_its_id(fake: FakeKfp, api: Client) -> None:
    fake.runs = [run_json("ab12-x"), run_json("ab34-y"), run_json("cd56-z")]
    assert api.call(kfp.find_run("cd")) == "cd56-z"
    assert api.call(kfp.find_run("latest")) == "ab12-x"
    assert api.call(kfp.find_run(RUN)) == RUN
    for text in ("ab", "zz", ""):
        with pytest.raises(InputError):
            api.call(kfp.find_run(text))


# ---- changing


def test_creating_a_run_sends_spec_parameters_and_nothing_empty(fake: FakeKfp, api: Client) -> None:
    run = api.call(kfp.create_run({"root": {}}, name="first", parameters={"epochs": 3}, experiment_id="e"))
    assert (run.name, run.state) == ("first", "PENDING")
    assert fake.asked[-1].body == {
        "display_name": "first",
        "experiment_id": "e",
        "pipeline_spec": {"root": {}},
        "runtime_config": {"parameters": {"epochs": 3}},
    }


def test_a_platform_spec_goes_beside_the_pipeline_spec(fake: FakeKfp, api: Client) -> None:
    api.call(kfp.create_run({"root": {}}, name="n", platform_spec={"platforms": {}}, pipeline_root="s3://b"))
    body = fake.asked[-1].body
    assert body["pipeline_spec"] == {"pipeline_spec": {"root": {}}, "platform_spec": {"platforms": {}}}
    assert body["runtime_config"] == {"parameters": {}, "pipeline_root": "s3://b"}


def test_what_can_be_done_to_a_run(fake: FakeKfp, api: Client) -> None:
    fake.runs = [run_json(RUN, state="RUNNING")]
    api.call(kfp.terminate_run(RUN))
    assert fake.run(RUN)["state"] == "CANCELING"
    api.call(kfp.retry_run(RUN))
    assert fake.run(RUN)["state"] == "RUNNING"
    api.call(kfp.archive_run(RUN))
    assert api.call(kfp.get_run(RUN)).archived
    api.call(kfp.unarchive_run(RUN))
    assert not api.call(kfp.get_run(RUN)).archived
    api.call(kfp.delete_run(RUN))
    with pytest.raises(ApiError) as caught:
        api.call(kfp.get_run(RUN))
    assert caught.value.status == 404
    assert f"Run {RUN} not found" in caught.value.message


def test_an_experiment_is_created_once(fake: FakeKfp, api: Client) -> None:
    fake.experiments = [{"experiment_id": "other", "display_name": "Other"}]
    first = api.call(kfp.ensure_experiment("Mine", namespace="team-a"))
    assert api.call(kfp.ensure_experiment("Mine")) == first
    assert (first.name, first.namespace) == ("Mine", "team-a")
    assert fake.paths("POST") == ["/apis/v2beta1/experiments"]
    assert api.call(kfp.find_experiment("Nobody's")) is None


def test_an_experiment_that_somebody_else_creates_meanwhile_is_taken(fake: FakeKfp, api: Client) -> None:
    def conflict(request: Request) -> Response | None:
        if request.method != "POST":
            return None
        fake.experiments.append({"experiment_id": "theirs", "display_name": "Mine"})
        return JSONResponse({"message": "already exists"}, 409)

    fake.override = conflict
    assert api.call(kfp.ensure_experiment("Mine")).experiment_id == "theirs"


def test_an_id_never_leaves_its_place_in_the_path() -> None:
    assert next(kfp.get_run("../a?x=1#y")).path == "/apis/v2beta1/runs/..%2Fa%3Fx%3D1%23y"
    for bad in ("", ".", ".."):
        with pytest.raises(InputError):
            next(kfp.delete_run(bad))


def test_read_only_lets_nothing_out_that_changes(fake: FakeKfp) -> None:
    fake.runs = [run_json(RUN)]
    with Client(Server("KFP", fake.url, readonly=True)) as api:
        api.call(kfp.get_run(RUN))
        for change in (kfp.terminate_run(RUN), kfp.delete_run(RUN), kfp.retry_run(RUN)):
            with pytest.raises(KanaryError, match="Read-only"):
                api.call(change)
        with pytest.raises(KanaryError, match="Read-only"):
            api.call(kfp.ensure_experiment("new"))
    assert {asked.method for asked in fake.asked} == {"GET"}


# ---- entering, and not getting in


def test_token_and_cookie_are_read_again_for_every_request(fake: FakeKfp, tmp_path: Path) -> None:
    token, cookie = tmp_path / "token", tmp_path / "cookie"
    cookie.write_text("authservice_session=abc; x=y\n", encoding="utf-8")
    with Client(Server("KFP", fake.url, token_file=token, cookie_file=cookie)) as api:
        for value in ("first", "second"):
            token.write_text(f"{value}\n", encoding="utf-8")
            api.call(kfp.healthz())
            assert fake.asked[-1].headers["authorization"] == f"Bearer {value}"
            assert fake.asked[-1].headers["cookie"] == "authservice_session=abc; x=y"


def test_a_token_may_be_asked_for_and_a_cookie_given(fake: FakeKfp) -> None:
    tokens = iter(("one", "two"))
    with Client(Server("KFP", fake.url, token=lambda: next(tokens), cookie="session=1")) as api:
        for token in ("one", "two"):
            api.call(kfp.healthz())
            assert fake.asked[-1].headers["authorization"] == f"Bearer {token}"
            assert fake.asked[-1].headers["cookie"] == "session=1"


@pytest.mark.parametrize("content", [None, "", "two\nlines", "smörgås"])
def test_an_unusable_token_file_is_a_config_error(fake: FakeKfp, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with Client(Server("KFP", fake.url, token_file=path)) as api, pytest.raises(ConfigError, match="token_file"):
        api.call(kfp.healthz())
    assert fake.asked == []


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, {"message": "token expired"}, "token expired"),
        (403, {"error": "not in namespace"}, "not in namespace"),
        (400, {"error_message": "no such parameter"}, "no such parameter"),
        (500, ["odd"], "500"),
        (503, {"message": "a\x1b[31mred"}, "ared"),
    ],
)
def test_a_refusal_carries_status_and_what_the_server_says(
    fake: FakeKfp, api: Client, status: int, body: Any, said: str
) -> None:
    fake.override = answer_with(JSONResponse(body, status))
    with pytest.raises(ApiError) as caught:
        api.call(kfp.get_run(RUN))
    assert caught.value.status == status
    assert said in caught.value.message
    assert "\x1b" not in caught.value.message


def test_a_login_page_is_no_answer(fake: FakeKfp, api: Client) -> None:
    fake.override = answer_with(PlainTextResponse("<html>log in</html>", media_type="text/html"))
    with pytest.raises(ApiError, match="text/html"):
        api.call(kfp.healthz())
    fake.override = answer_with(RedirectResponse("http://elsewhere/login"))
    with pytest.raises(ApiError) as caught:
        api.call(kfp.healthz())
    assert "token_file" in caught.value.hint


def test_nobody_there_is_unreachable_with_the_server_hint() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: every connection is refused
        server = Server("KFP", f"http://127.0.0.1:{held.getsockname()[1]}", hint="Start it.")
        with Client(server) as api, pytest.raises(Unreachable) as caught:
            api.call(kfp.healthz())
        assert caught.value.hint == "Start it."
        assert caught.value.status is None


def test_a_silent_server_is_unreachable_in_time() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = Server("KFP", f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=0.2)
        with Client(server) as api, pytest.raises(Unreachable, match="in time"):
            api.call(kfp.healthz())


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{}", b"garbage\r\n\r\n"])
def test_a_server_that_breaks_off_is_unreachable(sent: bytes) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(sent)

        thread = threading.Thread(target=answer)
        thread.start()
        server = Server("KFP", f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=5)
        with Client(server) as api, pytest.raises(Unreachable):
            api.call(kfp.healthz())
        thread.join(10)


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(fake: FakeKfp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Client(Server("KFP", fake.url)) as api:
        assert api.call(kfp.healthz()) == {"multi_user": False}


def test_the_hint_says_where_the_address_came_from(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    assert "kanary up" in kfp.server(config.load({}, environ, tmp_path)).hint
    assert "--endpoint" in kfp.server(config.load({"kfp_endpoint": "http://x"}, environ, tmp_path)).hint


def test_the_async_client_gives_and_raises_the_same(fake: FakeKfp) -> None:
    fake.runs = [run_json(RUN, tasks=[task_json("train")])]
    fake.logs["pod-train"] = "one\ntwo\n"

    async def ask() -> tuple[Run, str]:
        api = AsyncClient(Server("KFP", fake.url))
        try:
            run = await api.call(kfp.get_run(RUN))
            text = "".join([piece async for piece in api.stream(kfp.task_log(RUN, run.tasks[0]))])
            with pytest.raises(ApiError):
                await api.call(kfp.get_run("nobody"))
            return run, text
        finally:
            await api.close()

    run, text = asyncio.run(ask())
    with Client(Server("KFP", fake.url)) as api:
        assert run == api.call(kfp.get_run(RUN))
        assert text == "".join(api.stream(kfp.task_log(RUN, run.tasks[0]))) == "one\ntwo\n"


# ---- logs


def read_log(api: Client, tail: kfp.LogTail, task: TaskDetail) -> str:
    tail.restart()
    return "".join([*map(tail.feed, api.stream(kfp.task_log(RUN, task))), tail.end()])


def test_a_log_read_again_gives_only_what_is_new(fake: FakeKfp, api: Client) -> None:
    task = TaskDetail("1", "train", "RUNNING", pod_name="pod-train")
    tail = kfp.LogTail()
    fake.logs["pod-train"] = "epoch 1\n"
    assert read_log(api, tail, task) == "epoch 1\n"
    fake.logs["pod-train"] += "epoch 2 ✓\n"
    assert read_log(api, tail, task) == "epoch 2 ✓\n"
    assert read_log(api, tail, task) == ""


def test_an_error_inside_an_answered_log_is_an_api_error(fake: FakeKfp, api: Client) -> None:
    task = TaskDetail("1", "train", "RUNNING", pod_name="gone")
    with pytest.raises(ApiError, match="not found"):
        read_log(api, kfp.LogTail(), task)


@pytest.mark.parametrize("text", ['{"error_message":', '{"error_message": 3}', '{"er', '{"loss": 0.3}\nmore\n', "\n"])
def test_a_log_that_only_looks_like_an_error_is_shown_whole(text: str) -> None:
    for size in (1, 3, len(text)):
        tail = kfp.LogTail()
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert "".join([*map(tail.feed, pieces), tail.end()]) == text


def test_a_task_without_a_pod_has_no_log_to_ask_for() -> None:
    with pytest.raises(InputError) as caught:
        kfp.task_log(RUN, TaskDetail("1", "train", "RUNNING"))
    assert f"pipeline/runid={RUN}" in caught.value.hint


# ---- waiting


class Clock:
    """Time that passes only by sleeping; `at` maps seconds to what happens then."""

    def __init__(self, at: dict[float, Any] | None = None) -> None:
        self.now = 0.0
        self.at = at or {}

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        for moment_due in [due for due in self.at if due <= self.now]:
            self.at.pop(moment_due)()


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"])
def test_waiting_ends_with_every_final_state_and_tells_each_change(fake: FakeKfp, api: Client, state: str) -> None:
    fake.runs = [run_json(RUN, state="RUNNING", tasks=[task_json("train", "RUNNING")])]

    def task_ends() -> None:
        fake.run(RUN)["run_details"] = {"task_details": [task_json("train")]}

    clock = Clock({3.0: task_ends, 7.0: lambda: fake.run(RUN).update(state=state)})
    seen: list[tuple[str, str]] = []
    run = wait(
        api, RUN, lambda before, after: seen.append((after.state, after.tasks[0].state)),
        clock=clock, sleep=clock.sleep,
    )  # fmt: skip
    assert run.state == state
    assert seen == [("RUNNING", "RUNNING"), ("RUNNING", "SUCCEEDED"), (state, "SUCCEEDED")]


def test_waiting_stops_at_its_deadline(fake: FakeKfp, api: Client) -> None:
    fake.runs = [run_json(RUN, state="PAUSED")]
    clock = Clock()
    with pytest.raises(KanaryError, match="still PAUSED after 5 s"):
        wait(api, RUN, deadline=5, clock=clock, sleep=clock.sleep)
    assert clock.now == 5


def test_waiting_outlives_a_server_that_is_away_for_a_while(fake: FakeKfp, api: Client) -> None:
    fake.runs = [run_json(RUN, state="RUNNING")]

    def back() -> None:
        fake.run(RUN)["state"] = "SUCCEEDED"
        fake.start()

    clock = Clock({1.0: fake.stop, 20.0: back})
    assert wait(api, RUN, clock=clock, sleep=clock.sleep).state == "SUCCEEDED"


def test_waiting_gives_up_when_the_server_stays_away(fake: FakeKfp, api: Client) -> None:
    fake.runs = [run_json(RUN, state="RUNNING")]
    clock = Clock({1.0: fake.stop})
    with pytest.raises(Unreachable):
        wait(api, RUN, clock=clock, sleep=clock.sleep)
    assert clock.now > 60


def test_waiting_for_a_run_that_is_not_there_ends_at_once(api: Client) -> None:
    clock = Clock()
    with pytest.raises(ApiError) as caught:
        wait(api, RUN, clock=clock, sleep=clock.sleep)
    assert (caught.value.status, clock.now) == (404, 0.0)


def test_a_run_that_goes_on_has_gone_on_for_so_long() -> None:
    now = datetime(2026, 11, 21, 7, 0, 30, tzinfo=UTC)
    run = Run(RUN, "n", "RUNNING", created_at=now - timedelta(seconds=30))
    assert run.seconds(now) == 30
    assert Run(RUN, "n", "PENDING").seconds(now) is None


# ---- compiled pipelines

SPEC = """
pipelineInfo: {name: train}
root:
  inputDefinitions:
    parameters:
      uri: {parameterType: STRING}
      epochs: {parameterType: NUMBER_INTEGER, defaultValue: 3.0, isOptional: true}
      rate: {parameterType: NUMBER_DOUBLE, defaultValue: 0.1}
      fast: {parameterType: BOOLEAN, isOptional: true}
      hidden: {parameterType: LIST, isOptional: true}
      gates: {parameterType: STRUCT, isOptional: true}
"""
PLATFORM = "platforms: {kubernetes: {deploymentSpec: {}}}\n"


def test_a_pipeline_of_one_or_two_documents() -> None:
    one = read_pipeline(SPEC, "p.yaml")
    assert (one.name, one.platform_spec) == ("train", None)
    two = read_pipeline(f"{SPEC}---\n{PLATFORM}", "p.yaml")
    assert (two.spec, two.platform_spec) == (one.spec, {"platforms": {"kubernetes": {"deploymentSpec": {}}}})
    both = json.dumps({"pipeline_spec": one.spec, "platform_spec": two.platform_spec})
    assert read_pipeline(both, "p.json") == two


@pytest.mark.parametrize(
    "text",
    ["", "3", "a: [", "a: 1", "- 1", f"{SPEC}---\n{SPEC}", f"{SPEC}---\nx: 1", "apiVersion: argoproj.io/v1alpha1",
     f"{SPEC}      when: {{parameterType: STRING, defaultValue: 2026-11-21}}", "!!python/object/apply:os.getcwd []"],
)  # fmt: skip
def test_what_is_no_compiled_pipeline_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(InputError, match=r"thing\.yaml"):
        read_pipeline(text, "thing.yaml")


@pytest.fixture
def pipeline() -> Pipeline:
    return read_pipeline(SPEC, "p.yaml")


def test_parameters_get_the_types_that_the_pipeline_declares(pipeline: Pipeline) -> None:
    given = ["uri=a=b", "epochs=5", "rate=1", "fast=True", "hidden=[64, 32]", 'gates={"auc": {"min": 0.9}}']
    assert bind(pipeline, given) == {
        "uri": "a=b", "epochs": 5, "rate": 1, "fast": True, "hidden": [64, 32], "gates": {"auc": {"min": 0.9}},
    }  # fmt: skip
    assert bind(pipeline, ["uri=7"]) == {"uri": "7"}
    assert isinstance(bind(pipeline, ["uri=", "epochs=2.0"])["epochs"], int)


@pytest.mark.parametrize(
    "assignment",
    ["epochs=1.5", "epochs=true", "epochs=", "epochs=abc", "epochs=1e999", f"epochs={'9' * 400}", "rate=NaN",
     "rate=Infinity", "rate=1e999", "fast=1", "fast=yes", "hidden={}", "hidden=64,32", "gates=[]", "gates=null"],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_with_an_example(pipeline: Pipeline, assignment: str) -> None:
    with pytest.raises(InputError, match=assignment.partition("=")[0]) as caught:
        bind(pipeline, ["uri=x", assignment])
    assert "such as" in caught.value.hint or "true or false" in caught.value.hint


def test_unknown_doubled_malformed_and_missing_parameters_are_refused(pipeline: Pipeline) -> None:
    with pytest.raises(InputError, match="epoch") as caught:
        bind(pipeline, ["uri=x", "epoch=3"])
    assert "epochs" in caught.value.hint
    with pytest.raises(InputError, match="twice"):
        bind(pipeline, ["uri=x", "uri=y"])
    with pytest.raises(InputError, match="key=value"):
        bind(pipeline, ["uri"])
    with pytest.raises(InputError, match="uri"):
        bind(pipeline, [])
