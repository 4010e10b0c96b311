"""What the KFP API refuses: each with its code, in Google's shape, saying where, and going on unharmed."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sandbox.rig import archive_of, get, google_error

pytestmark = pytest.mark.sandbox


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "name is empty"),
        ({"display_name": "r"}, "pipeline_spec or pipeline_version_reference"),
        ({"display_name": 5}, "run.display_name"),
        ({"display_name": "r" * 200}, "longer than 128"),
        ({"display_name": "r", "surprise": 1}, "unknown field 'surprise'"),
        ({"display_name": "r", "pipeline_spec": []}, "pipeline_spec"),
        ({"display_name": "r", "pipeline_spec": {}}, ""),
        (
            {"display_name": "r", "pipeline_spec": {"pipelineInfo": {"name": "x"}, "schemaVersion": "9"}},
            "schemaVersion",
        ),
        ({"display_name": "r", "pipeline_version_reference": 5}, "pipeline_version_reference"),
        ([], "not a JSON object"),
        ("text", "not a JSON object"),
    ],
)
def test_a_wrong_run_is_refused_saying_where(http: httpx.Client, body: Any, says: str) -> None:
    answer = http.post("/runs", json=body)
    assert google_error(answer) == (400, 3)
    assert says in answer.json()["message"]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"parameters": {}}, "text"),
        ({"parameters": {"text": "a", "ticks": "many"}}, "ticks"),
        ({"parameters": {"text": "a", "unknown": 1}}, "unknown"),
        (5, "runtime_config"),
        ({"parameters": []}, "runtime_config.parameters"),
        ({"parameters": {"text": "a"}, "pipeline_root": "s3://bucket/x"}, "local folders"),
        ({"parameters": {"text": "a"}, "pipeline_root": "relative/x"}, "absolute"),
        ({"parameters": {"text": "a"}, "pipeline_root": "file://host/x"}, "local folders"),
    ],
)
def test_wrong_parameters_are_refused_saying_which(
    http: httpx.Client, spec: dict[str, Any], config: Any, says: str
) -> None:
    answer = http.post("/runs", json={"display_name": "r", "pipeline_spec": spec, "runtime_config": config})
    assert google_error(answer) == (400, 3)
    assert says in answer.json()["message"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"{]",
        b"\xff\xfe\x00",
        b'{"display_name": NaN}',
        b'{"display_name": "\\ud800"}',
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b'{"display_name": "r", "pipeline_spec": {"a": ' + b"9" * 10_000 + b"}}",
    ],
    ids=["empty", "truncated", "mismatched", "binary", "nan", "surrogate", "deep objects", "deep lists", "long number"],
)
def test_malformed_json_is_refused(http: httpx.Client, content: bytes) -> None:
    assert google_error(http.post("/runs", content=content)) == (400, 3)


BOMB = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "0 documents"),
        (b"just text", "not a mapping"),
        (b"a: [1", "not valid YAML"),
        (b"a: \x00", "not valid YAML"),
        (b"- " * 20_000 + b"a", "nested"),
        (b"[" * 100_000, "nested"),
        (BOMB.encode(), "aliases"),
        (MERGE_BOMB.encode(), "merge key"),
        (b"a: &a [*a]", "nested"),
        (b"a: !!python/object/apply:os.system [id]", "not valid YAML"),
        (b"a: !!binary aGVsbG8=", "type bytes"),
        (b"a: .inf", "not a JSON number"),
        (b"a: 1\n---\nb: 2\n---\nc: 3", "3 documents"),
    ],
)
def test_hostile_yaml_is_refused(http: httpx.Client, content: bytes, says: str) -> None:
    answer = http.post("/pipelines/upload", params={"name": "hostile"}, files={"uploadfile": ("p.yaml", content)})
    assert google_error(answer) == (400, 3)
    assert says in answer.json()["message"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.exe", b"MZ"),
        ("p.zip", b"PK\x03\x04broken"),
        ("p.tar.gz", b"\x1f\x8bbroken"),
        ("p.zip", archive_of("zip", b"a: 1", "readme.txt")),
        ("p.zip", archive_of("zip", b"\0" * 40_000_000)),
        ("p.tar.gz", archive_of("tar.gz", b"\0" * 40_000_000)),
    ],
    ids=["kind", "zip", "tarball", "no pipeline", "zip bomb", "tarball bomb"],
)
def test_broken_archives_are_refused(http: httpx.Client, name: str, content: bytes) -> None:
    answer = http.post("/pipelines/upload", files={"uploadfile": (name, content)})
    assert google_error(answer) == (400, 3)
    assert "uploadfile" in answer.json()["message"]


def test_an_upload_without_its_file_is_refused(http: httpx.Client) -> None:
    assert google_error(http.post("/pipelines/upload", files={"other": ("p.yaml", b"a: 1")})) == (400, 3)
    assert google_error(http.post("/pipelines/upload", content=b"a: 1")) == (400, 3)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/runs/nowhere", 404),
        ("DELETE", "/runs/nowhere", 404),
        ("POST", "/runs/nowhere:terminate", 404),
        ("POST", "/runs/nowhere:retry", 404),
        ("POST", "/runs/nowhere:archive", 404),
        ("GET", "/runs?experiment_id=nowhere", 404),
        ("GET", "/experiments/nowhere", 404),
        ("DELETE", "/experiments/nowhere", 404),
        ("POST", "/experiments/nowhere:archive", 404),
        ("GET", "/pipelines/nowhere", 404),
        ("GET", "/pipelines/nowhere/versions", 404),
        ("GET", "/pipelines/nowhere/versions/nowhere", 404),
        ("DELETE", "/pipelines/nowhere/versions/nowhere", 404),
        ("GET", "/nothing", 404),
        ("POST", "/runs/nowhere:explode", 405),
        ("PUT", "/runs", 405),
        ("POST", "/pipelines/create", 400),
        ("POST", "/workflows", 501),
        ("POST", "/scheduledworkflows", 501),
        ("POST", "/visualizations/default", 501),
        ("GET", "/auth", 501),
        ("GET", "/runs?page_size=-1", 400),
        ("GET", "/runs?page_size=x", 400),
        ("GET", "/runs?page_token=rubbish", 400),
        ("GET", "/runs?page_token=W10=", 400),
        ("GET", "/runs?sort_by=nonsense", 400),
        ("GET", "/runs?sort_by=created_at%20sideways", 400),
        ("GET", "/runs?sort_by=1;drop%20table%20runs", 400),
        ("GET", "/runs?filter=rubbish", 400),
        ("GET", '/runs?filter={"predicates":[{}]}', 400),
        ("GET", '/runs?filter={"predicates":[{"key":"name","operation":99,"string_value":"x"}]}', 400),
        ("GET", '/runs?filter={"predicates":[{"key":"created_at","operation":1,"timestamp_value":"x"}]}', 400),
        ("GET", '/runs?filter={"predicates":[{"key":"name","operation":8,"string_value":"x"}]}', 400),
    ],
)
def test_wrong_requests_get_their_code(http: httpx.Client, method: str, path: str, status: int) -> None:
    assert google_error(http.request(method, path))[0] == status


def test_a_filter_with_an_enormous_number_is_no_fault_of_ours(http: httpx.Client) -> None:
    predicate = {"key": "created_at", "operation": "LESS_THAN", "long_value": str(10**30)}
    assert get(http, f"/experiments?filter={json.dumps({'predicates': [predicate]})}")["total_size"] > 0


def test_bodies_are_bounded_declared_or_not(http: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"display_name": "'
        for _ in range(40):
            yield b"x" * 1024 * 1024

    target = http.base_url.join("/apis/v2beta1/experiments")
    with socket.create_connection((target.host, target.port or 80), 60) as raw:
        head = f"POST {target.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**12}\r\n\r\n"
        raw.sendall(head.encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 413")
    # The server may hang up on us in mid-flow, which bounds the body as well.
    with httpx.Client(timeout=60) as client, contextlib.suppress(httpx.WriteError, httpx.RemoteProtocolError):
        assert google_error(client.post(target, content=endless())) == (413, 8)
    assert get(http, "/healthz") == {"multi_user": False, "pipeline_store": "database"}


def test_web_pages_cannot_reach_the_server(http: httpx.Client) -> None:
    body = json.dumps({"display_name": "by a page"})
    pages = [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "rebound.evil.example"}, {"Host": "[::1"}]
    for headers in pages:
        answer = http.post("/experiments", content=body, headers={"Content-Type": "text/plain", **headers})
        assert google_error(answer) == (403, 7)
    for host in ("localhost:1", "127.0.0.1", "[::1]:80", "kfp"):
        assert http.get("/healthz", headers={"Host": host}).status_code == 200


def test_the_default_experiment_stays(http: httpx.Client, client: Any) -> None:
    default = client.get_experiment(experiment_name="Default")
    answer = http.delete(f"/experiments/{default.experiment_id}")
    assert google_error(answer) == (400, 9)


def changed(spec: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of the pipeline with one thing in it replaced; a value of None removes it."""
    copied: dict[str, Any] = json.loads(json.dumps(spec))
    place = copied
    *parents, last = path.split("/")
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return copied


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("root", [], "root: must be an object, not list"),
        ("components", "x", "components"),
        ("root/dag/tasks/first", 5, "root.dag.tasks.first: must be an object, not int"),
        ("root/dag/tasks/first/inputs", [], "root.dag.tasks.first.inputs"),
        ("root/dag/tasks/second/dependentTasks", [1], "root.dag.tasks.second.dependentTasks[0]: must be text"),
        ("root/dag/tasks/first/cachingOptions/enableCache", 1, "enableCache: must be true or false, not int"),
        ("root/dag/tasks/second/inputs/parameters/length/taskOutputParameter/producerTask", None, "lacks producerTask"),
        ("root/dag/tasks/..", {}, "cannot be a name"),
        ("components/comp-first/outputDefinitions/artifacts/..", {}, "cannot be a name"),
        ("deploymentSpec/executors/exec-first/container/command", "sh", "container.command: must be a list, not str"),
        ("deploymentSpec/executors/exec-first/container/image", 5, "container.image: must be text, not int"),
        ("deploymentSpec/executors/" + "x" * 300, {}, "cannot be a name"),
        ("pipelineInfo/name", None, "name"),
        ("schemaVersion", "99.0", "schemaVersion"),
    ],
)
def test_a_misshapen_pipeline_is_refused_saying_where(
    http: httpx.Client, spec: dict[str, Any], path: str, value: Any, says: str
) -> None:
    answer = http.post("/runs", json={"display_name": "r", "pipeline_spec": changed(spec, path, value)})
    assert google_error(answer) == (400, 3)
    assert says in answer.json()["message"]


def test_names_with_a_path_in_them_are_refused(http: httpx.Client, spec: dict[str, Any]) -> None:
    tasks = {"../../first": spec["root"]["dag"]["tasks"]["first"]}
    answer = http.post("/runs", json={"display_name": "r", "pipeline_spec": changed(spec, "root/dag/tasks", tasks)})
    assert google_error(answer) == (400, 3)
    assert "'../../first' cannot be a name" in answer.json()["message"]


def test_hostile_requests_left_no_traceback(http: httpx.Client, kfp_home: Path) -> None:
    assert http.get("/healthz").status_code == 200
    assert "Traceback" not in (kfp_home / "server.log").read_text()
