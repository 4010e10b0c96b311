"""Where a request goes by host, path, tag, header and weight, and what it is told when it goes nowhere."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from sandbox.gateway.bootstrap import MAX_BODY_BYTES
from sandbox.gateway.description import Revision, Service
from sandbox.gateway.gateway import Gateway
from sandbox.rotation import rotate
from tests.gateway.rig import Client, Envoy, Load, Upstream, binomial_interval, until

HOST = "m.default.localhost"
Start = Callable[[str], Upstream]


@pytest.fixture
def two(gateway: Gateway, upstream: Start) -> tuple[Upstream, Upstream]:
    """Service default/m: m-00001 with tag prev takes everything, m-00002 nothing."""
    stable, canary = upstream("m-00001"), upstream("m-00002")
    extra = "m-predictor.default.svc.cluster.local"
    service = Service("default", "m", (stable.revision(100, ("prev",)), canary.revision(0, ("latest",))), (extra,))
    assert gateway.apply([service]).in_force
    return stable, canary


def test_weights_split_the_requests(gateway: Gateway, upstream: Start, client: Client) -> None:
    revisions = (upstream("m-00001").revision(90), upstream("m-00002").revision(10))
    assert gateway.apply([Service("default", "m", revisions)]).in_force
    seen = Counter(client.get(host=HOST).revision for _ in range(3000))
    lowest, highest = binomial_interval(3000, 0.1)
    assert lowest <= seen["m-00002"] <= highest
    assert seen.total() == seen["m-00001"] + seen["m-00002"]


@pytest.mark.parametrize(
    ("host", "path", "header", "expected"),
    [
        (HOST, "/v1/models/m", "", "m-00001"),
        (HOST + ":8080", "/", "", "m-00001"),
        ("m-predictor.default.svc.cluster.local", "/", "", "m-00001"),
        ("prev-" + HOST, "/", "", "m-00001"),
        ("latest-" + HOST, "/", "", "m-00002"),
        ("latest-m-predictor.default.svc.cluster.local", "/", "", "m-00002"),
        (HOST, "/", "m-00001", "m-00001"),
        (HOST, "/", "m-00002", "m-00002"),
        ("", "/serving/default/m", "", "m-00001"),
        ("", "/serving/default/m/v1/models/m", "m-00002", "m-00002"),
        ("", "/serving/default/latest-m/v1/models/m", "", "m-00002"),
    ],
)
@pytest.mark.usefixtures("two")
def test_a_request_reaches_the_revision_it_names(
    client: Client, host: str, path: str, header: str, expected: str
) -> None:
    answer = client.get(path, host=host, headers={"Kanary-Revision": header} if header else {})
    assert (answer.status, answer.revision, answer.json["served_by"]) == (200, expected, expected)


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ("/serving/default/m", "/"),
        ("/serving/default/m/", "/"),
        ("/serving/default/m?a=1", "/?a=1"),
        ("/serving/default/m/v1/models/m:predict?a=1", "/v1/models/m:predict?a=1"),
        ("/serving/default/../default/m/v2", "/v2"),
    ],
)
def test_the_path_prefix_is_cut_off(two: tuple[Upstream, Upstream], client: Client, sent: str, received: str) -> None:
    assert client.get(sent).status == 200
    assert two[0].heads[-1][":first"] == f"GET {received} HTTP/1.1"
    assert two[0].heads[-1]["host"] == HOST


@pytest.mark.parametrize(
    ("host", "path", "header", "status", "reason"),
    [
        ("", "/", "", 404, "no-service"),
        ("other.default.localhost", "/", "", 404, "no-service"),
        ("", "/serving/default/other/v1", "", 404, "no-service"),
        ("", "/serving/default/mm", "", 404, "no-service"),
        (HOST, "/", "m-00009", 404, "no-revision"),
        ("empty.default.localhost", "/", "", 503, "no-ready-revision"),
        ("waking.default.localhost", "/", "", 503, "revision-not-ready"),
    ],
)
def test_a_request_that_leads_nowhere_is_told_why(
    gateway: Gateway, upstream: Start, client: Client, host: str, path: str, header: str, status: int, reason: str
) -> None:
    waking = Service("default", "waking", (Revision("waking-00001", 0, ready=False, weight=100),))
    served = Service("default", "m", (upstream("m-00001").revision(100),))
    assert gateway.apply([served, Service("default", "empty"), waking]).in_force
    answer = client.get(path, host=host, headers={"Kanary-Revision": header} if header else {})
    assert (answer.status, answer.json["reason"]) == (status, reason)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["error"]


def test_every_request_carries_an_id_for_its_ground_truth(two: tuple[Upstream, Upstream], client: Client) -> None:
    answer = client.get(host=HOST)
    assert re.fullmatch(r"[0-9a-f-]{36}", answer.headers["x-request-id"])
    assert two[0].heads[-1]["ce-id"] == answer.headers["x-request-id"]
    client.get(host=HOST, headers={"X-Request-Id": "mine"})
    assert two[0].heads[-1]["ce-id"] == "mine"
    client.get(host=HOST, headers={"Ce-Id": "event-7", "X-Request-Id": "mine"})
    assert (two[0].heads[-1]["ce-id"], two[0].heads[-1]["x-request-id"]) == ("event-7", "mine")


def test_a_body_beyond_the_limit_is_refused_before_the_model_server(
    two: tuple[Upstream, Upstream], client: Client
) -> None:
    assert client.get(host=HOST, body=bytes(1024 * 1024)).status == 200
    answer = client.get(host=HOST, body=bytes(MAX_BODY_BYTES + 1))
    assert (answer.status, answer.json["reason"]) == (413, "body-too-large")
    assert two[0].arrived == 1


def test_a_model_server_that_takes_too_long_is_given_up_and_not_asked_again(
    gateway: Gateway, upstream: Start, client: Client
) -> None:
    slow = upstream("m-00001")
    slow.delay_s = 30
    assert gateway.apply([Service("default", "m", (slow.revision(100),), timeout_s=1)]).in_force
    answer = client.get(host=HOST)
    assert (answer.status, answer.json["reason"], answer.revision) == (504, "timeout", "m-00001")
    assert slow.arrived == 1


@pytest.mark.usefixtures("two")
def test_the_access_log_says_who_answered(envoy: Envoy, client: Client) -> None:
    ids = [
        client.get(host=HOST).headers["x-request-id"],
        client.get("/serving/default/m/v1", headers={"Kanary-Revision": "m-00002"}).headers["x-request-id"],
        client.get("/serving/default/m/v1", headers={"Kanary-Revision": "m-00009"}).headers["x-request-id"],
    ]
    log = envoy.home / "logs" / "access.log"
    until(lambda: log.read_text(encoding="utf-8").count("\n") == 3, "three lines in the access log")
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [line["request_id"] for line in lines] == ids
    assert [(line["service"], line["revision"], line["status"]) for line in lines] == [
        ("m", "m-00001", 200),
        ("m", "m-00002", 200),
        ("m", None, 404),
    ]
    assert lines[1]["path"] == "/serving/default/m/v1"
    assert all(line["duration_us"] > 0 for line in lines)


@pytest.mark.usefixtures("two")
def test_a_rotated_access_log_loses_no_line(envoy: Envoy, load: Callable[[str], Load]) -> None:
    log = envoy.home / "logs" / "access.log"
    with load(HOST) as running:
        until(lambda: log.exists() and log.stat().st_size > 0, "the first lines")
        assert rotate(log, 0, reopen=partial(envoy.process.send_signal, signal.SIGUSR1))
        until(lambda: log.exists() and log.stat().st_size > 0, "lines in the log that Envoy has opened")
    older = log.with_name("access.log.1")

    def written() -> list[str]:
        # What follows the last end of a line is still being written.
        whole = [line for path in (older, log) for line in path.read_text().split("\n")[:-1]]
        return [json.loads(line)["request_id"] for line in whole]

    until(lambda: len(written()) >= len(running.answers), "a line for every request")
    assert sorted(written()) == sorted(answer.headers["x-request-id"] for answer in running.answers)
