"""Pipelines from a URL: fetched from http and https alone, bounded, and checked like any other."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from sandbox.errors import InvalidSpec
from sandbox.kfp import download
from sandbox.kfp.api import make_app
from tests.kfp_api.rig import SPEC, Stage

VERSION = {"display_name": "v1", "description": "from afar"}


class _Web(BaseHTTPRequestHandler):
    """A server of good files, endless ones and wrong turnings."""

    def do_GET(self) -> None:
        turnings = {"/file": "file:///etc/passwd", "/ftp": "ftp://localhost/x", "/around": "/around", "/to": "/p.json"}
        if self.path in turnings:
            self.send_response(302)
            self.send_header("Location", turnings[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/p.json":
            self._whole(json.dumps(SPEC).encode())
        elif self.path == "/page.html":
            self._whole(b"<html>")
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b" " * 4096)
                    time.sleep(0.001)
            except OSError:
                return
        else:
            self.send_error(404, "Not here")

    def _whole(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


async def post(stage: Stage, path: str, body: Any) -> httpx.Response:
    transport = httpx.ASGITransport(make_app(stage.service))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost/apis/v2beta1") as client:
        return await client.post(path, json=body)


async def test_a_pipeline_and_its_versions_are_taken_from_a_url(stage: Stage, web: str) -> None:
    version = VERSION | {"package_url": {"pipeline_url": f"{web}/to"}}
    made = await post(stage, "/pipelines/create", {"pipeline": {"display_name": "afar"}, "pipeline_version": version})
    assert made.status_code == 200, made.text
    pipeline_id = made.json()["pipeline_id"]
    second = {"packageUrl": {"pipelineUrl": f"{web}/p.json"}}
    answer = await post(stage, f"/pipelines/{pipeline_id}/versions", second)
    assert answer.status_code == 200, answer.text
    assert answer.json()["display_name"] == "p.json"
    assert answer.json()["pipeline_spec"] == SPEC


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/page.html", "pipeline_url: "),
        ("/nowhere", "answers 404"),
        ("/file", "'file:///etc/passwd' is not allowed"),
        ("/ftp", "only http and https are fetched"),
        ("/around", "redirect"),
        ("/endless", "larger than 65,536 bytes"),
    ],
)
async def test_what_is_no_pipeline_or_lies_elsewhere_is_refused_and_nothing_is_kept(
    stage: Stage, web: str, path: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 1 << 16)
    version = VERSION | {"package_url": {"pipeline_url": web + path}}
    body = {"pipeline": {"display_name": "afar"}, "pipeline_version": version}
    answer = await post(stage, "/pipelines/create", body)
    assert (answer.status_code, answer.json()["code"]) == (400, 3), answer.text
    assert says in answer.json()["message"]
    assert "passwd:" not in answer.text
    shown = await post(stage, "/pipelines", {"display_name": "afar"})
    assert shown.status_code == 200, "the name was not taken"


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "p.yaml", "http://", "http://[x", "gopher://h/x", 5])
async def test_a_url_that_is_none_of_the_web_is_refused_before_anything_is_asked(stage: Stage, url: Any) -> None:
    body = {"pipeline": {"display_name": "p"}, "pipeline_version": {"package_url": {"pipeline_url": url}}}
    answer = await post(stage, "/pipelines/create", body)
    assert (answer.status_code, answer.json()["code"]) == (400, 3), answer.text
    assert "pipeline_url" in answer.json()["message"]


async def test_a_server_that_takes_too_long_is_given_up(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_LONGEST_S", 0.1)
    with pytest.raises(InvalidSpec, match=r"longer than 0\.1 s"):
        await download.download(f"{web}/endless", "url")
