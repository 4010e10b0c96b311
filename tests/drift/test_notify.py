"""Telling people: through a real webhook; no failure of it is the pipeline's, and no URL is ever shown."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.notify import notification
from kanary.errors import KanaryError, Unreachable
from pipelines import compile as compilation
from tests.engine.conftest import LiveEngine

pytest.importorskip("apprise")
TOKEN = "s3cr3t-t0ken"


class Hook(http.server.BaseHTTPRequestHandler):
    """Keeps what it is told; below /broken it fails."""

    heard: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.heard.append(json.loads(body) | {"path": self.path})
        self.send_response(500 if self.path.startswith("/broken") else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    heard: list[dict[str, Any]] = []
    handler = type("Handler", (Hook,), {"heard": heard})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"json://user:{TOKEN}@127.0.0.1:{server.server_address[1]}", heard
    server.shutdown()
    thread.join()
    server.server_close()


def test_everybody_named_in_the_environment_is_told(
    hook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, heard = hook
    monkeypatch.setenv(notification.VARIABLE, f"# the team\n{url}/one\n\n{url}/two\n")
    assert notification.tell("drift", "demand drifts", "warning", "") == (True, "told 2 of 2")
    assert [(one["path"], one["title"], one["message"], one["type"]) for one in heard] == [
        ("/one", "drift", "demand drifts", "warning"),
        ("/two", "drift", "demand drifts", "warning"),
    ]


def test_one_that_cannot_be_told_keeps_nobody_else_from_it_and_is_never_named(
    hook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    url, heard = hook
    gone = f"json://user:{TOKEN}@127.0.0.1:9/gone"
    monkeypatch.setenv(notification.VARIABLE, "\n".join([f"nonsense://{TOKEN}", gone, f"{url}/broken", f"{url}/good"]))
    told, said = notification.tell("t", "b", "no such level", "")
    assert (told, said) == (False, "told 1 of 4; 3 could not be told")
    assert heard[-1]["path"] == "/good"
    shown = "".join(capfd.readouterr())
    assert TOKEN not in shown + said


def test_where_to_is_read_from_a_secret() -> None:
    def read(name: str) -> dict[str, str]:
        return {"urls": base64.b64encode(b"json://a\njson://b\n").decode()} if name == "team" else {}

    assert notification.destinations("team", {notification.VARIABLE: "json://c"}, read) == ["json://a", "json://b"]
    assert notification.destinations("", {notification.VARIABLE: "json://c"}, read) == ["json://c"]
    with pytest.raises(KanaryError, match="no readable key"):
        notification.destinations("other", {}, read)


def test_nothing_that_fails_in_telling_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(notification.VARIABLE, raising=False)
    assert notification.tell("t", "b", "info", "")[0] is False

    def unreachable(name: str) -> dict[str, str]:
        raise Unreachable("the cluster cannot be reached")

    monkeypatch.setattr(notification, "read_secret", unreachable)
    assert notification.tell("t", "b", "info", "team") == (False, "nobody is told: the cluster cannot be reached")

    def broken(*_: Any) -> str:
        raise RuntimeError(TOKEN)

    monkeypatch.setattr(notification, "notify", broken)
    monkeypatch.setenv(notification.VARIABLE, "json://a")
    assert notification.tell("t", "b", "info", "") == (False, "not everybody is told: RuntimeError")


def test_the_exit_task_says_how_it_ended_and_never_fails(
    hook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp.dsl import PipelineTaskFinalStatus

    from components.notify.component import notify_end

    url, heard = hook
    monkeypatch.setenv(notification.VARIABLE, url)
    ended = PipelineTaskFinalStatus(
        state="FAILED",
        pipeline_job_resource_name="run-7",
        pipeline_task_name="train",
        error_code=1,
        error_message="no rows",
    )
    assert notify_end.python_func(status=ended, title="training") is True
    assert heard[-1]["message"] == "run-7: FAILED: no rows"
    assert heard[-1]["type"] == "failure"
    well = PipelineTaskFinalStatus(
        state="SUCCEEDED",
        pipeline_job_resource_name="run-8",
        pipeline_task_name="",
        error_code=None,
        error_message=None,
    )
    assert notify_end.python_func(status=well, title="training", only_failures=True) is True
    assert len(heard) == 1


def test_of_a_look_of_the_monitoring_pipeline_that_fails_people_are_told(
    hook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, heard = hook
    monkeypatch.setenv(notification.VARIABLE, url)
    assert compilation.main(["--out", str(tmp_path)]) == 0
    spec = yaml.safe_load((tmp_path / "monitoring.yaml").read_text(encoding="utf-8"))
    live = LiveEngine(tmp_path / "home")
    try:
        given: dict[str, Any] = {
            "service": "nobody",
            "training_uri": str(tmp_path / "training.yaml"),
            "training_parameters": {},
        }
        outcome = live.finish(live.submit(spec, **given))
    finally:
        live.close()
    assert outcome.run.state == "FAILED"
    assert outcome.tasks["notify-end"].state == "SUCCEEDED"
    assert outcome.output("notify-end") is True
    assert [(one["title"], one["type"]) for one in heard] == [("Kanary: a look at a model failed", "failure")]
    assert "FAILED" in heard[0]["message"]
    assert TOKEN not in outcome.log("notify-end")
