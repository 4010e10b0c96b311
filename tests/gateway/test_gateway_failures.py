"""A revision that fails, fails visibly: nothing another revision answers may stand in for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sandbox.gateway.admin import Peer
from sandbox.gateway.description import Revision, Service
from sandbox.gateway.gateway import Gateway
from tests.gateway.rig import DEADLINE_S, Answer, Client, Envoy, Upstream, binomial_interval, until

HOST = "m.default.localhost"
Start = Callable[[str], Upstream]


def counters(envoy: Envoy) -> dict[str, float]:
    """Every sample of the scrape, by its text."""
    admin = Peer(envoy.admin_port)
    text = admin.get("/stats/prometheus") or ""
    admin.close()
    samples = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in samples}


def counter(envoy: Envoy, metric: str, revision: str, labels: str = "") -> float:
    where = f'envoy_cluster_name="default/m/{revision}",namespace="default",service="m",revision="{revision}"'
    return counters(envoy).get(f"envoy_cluster_{metric}{{{labels}{where}}}", 0.0)


def ask_once(envoy: Envoy) -> Answer:
    client = Client(envoy.port)
    try:
        return client.get(host=HOST)
    finally:
        client.close()


def test_a_dead_canary_fails_its_share_of_requests_and_they_count_as_its_own(
    envoy: Envoy, gateway: Gateway, upstream: Start
) -> None:
    stable, canary = upstream("m-00001"), upstream("m-00002")
    assert gateway.apply([Service("default", "m", (stable.revision(50), canary.revision(50)))]).in_force
    canary.kill()
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: ask_once(envoy), range(80)))
    seen = Counter((answer.revision, answer.status) for answer in answers)
    lowest, highest = binomial_interval(80, 0.5)
    dead = seen["m-00002", 503]
    assert lowest <= dead <= highest
    assert seen["m-00001", 200] == 80 - dead
    assert {answer.json.get("reason") for answer in answers if answer.status == 503} == {"revision-unreachable"}
    assert counter(envoy, "upstream_rq_completed", "m-00002") == dead
    assert counter(envoy, "upstream_rq_xx", "m-00002", 'envoy_response_code_class="5",') == dead
    assert counter(envoy, "upstream_rq_xx", "m-00001", 'envoy_response_code_class="2",') == 80 - dead


def test_a_revision_that_is_not_ready_fails_its_share_too(
    envoy: Envoy, gateway: Gateway, upstream: Start, client: Client
) -> None:
    stable, waking = upstream("m-00001"), Revision("m-00002", 0, ready=False, weight=50)
    assert gateway.apply([Service("default", "m", (stable.revision(50), waking))]).in_force
    seen = Counter((answer.revision, answer.status) for answer in (client.get(host=HOST) for _ in range(200)))
    assert set(seen) == {("m-00001", 200), ("m-00002", 503)}
    assert counter(envoy, "upstream_rq_completed", "m-00002") == seen["m-00002", 503]


def test_a_request_waits_for_its_revision_to_take_connections_again_and_that_is_counted(
    envoy: Envoy, gateway: Gateway, upstream: Start
) -> None:
    stable, canary = upstream("m-00001"), upstream("m-00002")
    assert gateway.apply([Service("default", "m", (stable.revision(), canary.revision(100)))]).in_force
    canary.kill()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask_once, envoy)
        until(lambda: counter(envoy, "upstream_rq_retry", "m-00002") >= 2, "it was tried again")
        canary.start()
        answer = asked.result(DEADLINE_S)
    assert (answer.status, answer.revision) == (200, "m-00002")
    assert (stable.arrived, canary.arrived) == (0, 1)


def test_a_request_that_its_revision_had_begun_is_not_tried_again(
    envoy: Envoy, gateway: Gateway, upstream: Start, client: Client
) -> None:
    stable, canary = upstream("m-00001"), upstream("m-00002")
    assert gateway.apply([Service("default", "m", (stable.revision(), canary.revision(100)))]).in_force
    canary.reset_next = 1
    answer = client.get(host=HOST, body=b"[1]")
    assert (answer.status, answer.json["reason"]) == (503, "revision-unreachable")
    assert (stable.arrived, canary.arrived) == (0, 1)
    assert client.get(host=HOST, body=b"[1]").status == 200


def test_an_error_that_a_model_server_answers_is_passed_on_as_it_is(
    gateway: Gateway, upstream: Start, client: Client
) -> None:
    server = upstream("m-00001")
    server.status = "503 Service Unavailable"
    assert gateway.apply([Service("default", "m", (server.revision(100),))]).in_force
    answer = client.get(host=HOST)
    assert (answer.status, answer.json) == (503, {"served_by": "m-00001"})
    assert server.arrived == 1


def test_counters_of_a_revision_are_there_at_zero_and_go_on_when_it_moves(
    envoy: Envoy, gateway: Gateway, upstream: Start, client: Client
) -> None:
    first = upstream("m-00001")
    assert gateway.apply([Service("default", "m", (first.revision(100),))]).in_force
    assert "envoy_cluster_upstream_rq_completed" in "".join(counters(envoy))
    assert counter(envoy, "upstream_rq_completed", "m-00001") == 0
    assert client.get(host=HOST).status == 200
    first.kill()
    moved = upstream("m-00001")
    assert gateway.apply([Service("default", "m", (moved.revision(100),))]).in_force
    assert client.get(host=HOST).status == 200
    assert moved.arrived == 1
    assert counter(envoy, "upstream_rq_completed", "m-00001") == 2
