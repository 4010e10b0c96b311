"""A change is in force when `apply` returns, loses no request, and survives the death of Envoy and of its writer."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.errors import InvalidSpec, NotFound
from sandbox.gateway.admin import Peer, cluster_states, unsent
from sandbox.gateway.clusters import clusters, discovery
from sandbox.gateway.description import Revision, RevisionKey, Service
from sandbox.gateway.files import Files, write
from sandbox.gateway.gateway import DOWN, DRAIN_AT_LEAST_S, DRAIN_AT_MOST_S, Gateway
from sandbox.gateway.process import prepare
from tests.gateway.rig import DEADLINE_S, Answer, Client, Envoy, Load, Patient, Upstream, free_ports, until

HOST = "m.default.localhost"
Start = Callable[[str], Upstream]
CANARY = RevisionKey("default", "m", "m-00002")


def split(stable: Upstream, canary: Upstream, percent: int) -> list[Service]:
    return [Service("default", "m", (stable.revision(100 - percent), canary.revision(percent)))]


def test_the_very_next_request_obeys(gateway: Gateway, upstream: Start, client: Client) -> None:
    pair = upstream("m-00001"), upstream("m-00002")
    for round_ in range(50):
        applied = gateway.apply(split(*pair, percent=100 * (round_ % 2)))
        assert applied.in_force, applied.reason
        assert client.get(host=HOST).revision == pair[round_ % 2].name


def test_a_hundred_flips_under_load_fail_no_request(
    gateway: Gateway, upstream: Start, load: Callable[[str], Load]
) -> None:
    pair = upstream("m-00001"), upstream("m-00002")
    assert gateway.apply(split(*pair, percent=0)).in_force
    with load(HOST) as running:
        for round_ in range(100):
            before = len(running.answers)
            assert gateway.apply(split(*pair, percent=(10, 50, 0, 100)[round_ % 4])).in_force
            until(lambda: len(running.answers) > before + 4, "requests between two flips")  # noqa: B023
    assert len(running.answers) > 400
    assert (running.failed, running.broken) == ([], [])
    assert {answer.revision for answer in running.answers} == {"m-00001", "m-00002"}


def test_revisions_come_and_go_under_load_without_a_failed_request(
    envoy: Envoy, upstream: Start, load: Callable[[str], Load]
) -> None:
    now = 0.0
    gateway = Patient(envoy.home, clock=lambda: now)
    servers = [upstream(f"m-{number:05d}") for number in range(1, 8)]
    assert gateway.apply([Service("default", "m", (servers[0].revision(100),))]).in_force
    with load(HOST) as running:
        for old, new in itertools.pairwise(servers):
            assert gateway.apply(split(old, new, 50)).in_force
            assert gateway.apply([Service("default", "m", (new.revision(100),))]).draining
            now += DRAIN_AT_LEAST_S
            until(lambda: not gateway.sweep(), "the old revision is drained")
            old.kill()
            before = len(running.answers)
            until(lambda: len(running.answers) > before + 20, "requests after the change")  # noqa: B023
    gateway.close()
    assert (running.failed, running.broken) == ([], [])


def test_a_removed_revision_is_kept_until_its_last_request_is_answered(
    envoy: Envoy, upstream: Start, client: Client
) -> None:
    now = 0.0
    gateway = Patient(envoy.home, clock=lambda: now)
    stable, canary = upstream("m-00001"), upstream("m-00002")
    canary.holds = True
    assert gateway.apply(split(stable, canary, 100)).in_force
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(client.get(host=HOST)))
    asking.start()
    until(lambda: gateway.active(CANARY) == 1, "the request is in flight")
    applied = gateway.apply([Service("default", "m", (stable.revision(100),))])
    assert (applied.in_force, applied.draining) == (True, (CANARY,))
    now += DRAIN_AT_LEAST_S
    assert gateway.sweep() == (CANARY,)
    canary.holds = False
    asking.join()
    assert (answers[0].status, answers[0].revision) == (200, "m-00002")
    until(lambda: gateway.sweep() == (), "the canary is drained")
    assert known(envoy, ["default/m/m-00001", "default/m/m-00002"]) == {"default/m/m-00001"}
    gateway.close()


def test_a_revision_chosen_for_a_request_that_still_arrives_is_kept_for_it(envoy: Envoy, upstream: Start) -> None:
    now = 0.0
    gateway = Patient(envoy.home, clock=lambda: now)
    stable, canary = upstream("m-00001"), upstream("m-00002")
    assert gateway.apply(split(stable, canary, 100)).in_force
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", envoy.port, timeout=DEADLINE_S)) as slow:
        slow.putrequest("POST", "/v2/models/m/infer", skip_host=True)
        slow.putheader("Host", HOST)
        slow.putheader("Content-Length", "4")
        slow.endheaders(b"ab")
        until(lambda: held(envoy) == 1, "Envoy has chosen the canary and waits for the rest")
        assert gateway.apply([Service("default", "m", (stable.revision(100),))]).draining == (CANARY,)
        now += DRAIN_AT_LEAST_S
        assert [gateway.sweep() for _ in range(3)] == [(CANARY,)] * 3
        slow.send(b"cd")
        answer = slow.getresponse()
        assert (answer.status, answer.headers["Kanary-Revision"]) == (200, "m-00002")
    until(lambda: gateway.sweep() == (), "the canary is drained")
    gateway.close()


def held(envoy: Envoy) -> int | None:
    peer = Peer(envoy.admin_port)
    try:
        return unsent(peer)
    finally:
        peer.close()


def test_draining_ends_even_if_a_request_never_does(envoy: Envoy, upstream: Start, client: Client) -> None:
    now = 0.0
    gateway = Patient(envoy.home, clock=lambda: now)
    stable, canary = upstream("m-00001"), upstream("m-00002")
    canary.delay_s = 30
    assert gateway.apply(split(stable, canary, 100)).in_force
    asking = threading.Thread(target=lambda: client.get(host=HOST))
    asking.start()
    until(lambda: gateway.active(CANARY) == 1, "the request is in flight")
    gateway.apply([Service("default", "m", (stable.revision(100),))])
    now += DRAIN_AT_MOST_S
    assert gateway.sweep() == ()
    canary.kill()
    asking.join()
    gateway.close()


def test_a_revision_that_returns_while_it_drains_stays(gateway: Gateway, upstream: Start, client: Client) -> None:
    stable, canary = upstream("m-00001"), upstream("m-00002")
    assert gateway.apply(split(stable, canary, 100)).in_force
    assert gateway.apply([Service("default", "m", (stable.revision(100),))]).draining == (CANARY,)
    assert gateway.apply(split(stable, canary, 100)).draining == ()
    assert gateway.sweep() == ()
    assert client.get(host=HOST).revision == "m-00002"


def test_a_refused_description_changes_nothing(gateway: Gateway, upstream: Start, client: Client) -> None:
    server = upstream("m-00001")
    assert gateway.apply([Service("default", "m", (server.revision(100),))]).in_force
    with pytest.raises(InvalidSpec):
        gateway.apply([Service("default", "m", (server.revision(60),))])
    assert client.get(host=HOST).status == 200


def test_envoy_killed_and_started_again_routes_as_before(
    envoy: Envoy, gateway: Gateway, upstream: Start, client: Client
) -> None:
    pair = upstream("m-00001"), upstream("m-00002")
    assert gateway.apply(split(*pair, percent=100)).in_force
    envoy.kill()
    envoy.start()
    client.close()
    assert client.get(host=HOST).revision == "m-00002"
    assert gateway.apply(split(*pair, percent=0)).in_force
    assert client.get(host=HOST).revision == "m-00001"


def test_what_is_applied_while_envoy_is_down_is_in_force_once_it_is_up(
    envoy: Envoy, gateway: Gateway, upstream: Start, client: Client
) -> None:
    pair = upstream("m-00001"), upstream("m-00002")
    assert gateway.apply([Service("default", "m", (pair[0].revision(100),))]).in_force
    envoy.kill()
    applied = gateway.apply(split(*pair, percent=100))
    assert (applied.in_force, applied.reason) == (False, DOWN)
    envoy.start()
    client.close()
    assert client.get(host=HOST).revision == "m-00002"
    assert gateway.apply(split(*pair, percent=100)).in_force


def test_an_envoy_that_hangs_is_reported_and_obeys_once_it_wakes(
    envoy: Envoy, gateway: Gateway, upstream: Start, client: Client
) -> None:
    pair = upstream("m-00001"), upstream("m-00002")
    assert gateway.apply(split(*pair, percent=0)).in_force
    envoy.process.send_signal(signal.SIGSTOP)
    try:
        applied = gateway.apply(split(*pair, percent=100), timeout_s=0.1)
    finally:
        envoy.process.send_signal(signal.SIGCONT)
    assert not applied.in_force
    assert "does not answer" in applied.reason
    assert gateway.apply(split(*pair, percent=100)).in_force
    assert client.get(host=HOST).revision == "m-00002"


def test_a_writer_killed_between_clusters_and_routes_is_made_good_by_the_next(
    envoy: Envoy, gateway: Gateway, upstream: Start, client: Client
) -> None:
    pair = upstream("m-00001"), upstream("m-00002")
    assert gateway.apply([Service("default", "m", (pair[0].revision(100),))]).in_force
    files = Files(envoy.home)
    write(files.clusters, discovery(clusters(split(*pair, percent=100)).values()))
    files.routes.with_name(f".{files.routes.name}.new").write_text('{"half', encoding="utf-8")
    assert client.get(host=HOST).revision == "m-00001"
    successor = Patient(envoy.home)
    assert successor.apply(split(*pair, percent=100)).in_force
    successor.close()
    assert client.get(host=HOST).revision == "m-00002"
    assert [entry.name for entry in files.routes.parent.iterdir()] == [files.routes.name]


def test_a_successor_drains_what_its_predecessor_left(envoy: Envoy, gateway: Gateway, upstream: Start) -> None:
    stable, canary = upstream("m-00001"), upstream("m-00002")
    assert gateway.apply(split(stable, canary, 100)).in_force
    now = 0.0
    successor = Patient(envoy.home, clock=lambda: now)
    assert successor.apply([Service("default", "m", (stable.revision(100),))]).draining == (CANARY,)
    now += DRAIN_AT_LEAST_S
    until(lambda: successor.sweep() == (), "the canary is drained")
    successor.close()


@pytest.mark.parametrize(
    "garbage", ["", "{", "[]", '{"resources": [{"name": "x"}]}', '{"resources": [{"@type": "x", "name": "x"}]}']
)
def test_files_that_somebody_spoilt_are_written_anew(
    envoy: Envoy, gateway: Gateway, upstream: Start, client: Client, garbage: str
) -> None:
    server = upstream("m-00001")
    services = [Service("default", "m", (server.revision(100),))]
    assert gateway.apply(services).in_force
    envoy.kill()
    for path in (Files(envoy.home).clusters, Files(envoy.home).routes):
        path.write_text(garbage, encoding="utf-8")
    envoy.start()
    assert gateway.apply(services).in_force
    client.close()
    assert client.get(host=HOST).revision == "m-00001"


def test_envoy_ends_with_a_message_when_its_port_is_taken(envoy: Envoy, tmp_path: Path) -> None:
    (admin_port,) = free_ports(1)
    second = subprocess.run(
        prepare(tmp_path / "second", envoy.port, admin_port),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert second.returncode != 0
    assert f"127.0.0.1:{envoy.port}" in second.stderr
    assert "Address already in use" in second.stderr


def test_envoy_listens_on_the_loopback_only(envoy: Envoy) -> None:
    bootstrap = json.loads(Files(envoy.home).bootstrap.read_text(encoding="utf-8"))
    listeners = [bootstrap["admin"], *bootstrap["static_resources"]["listeners"]]
    assert [found["address"]["socket_address"]["address"] for found in listeners] == ["127.0.0.1", "127.0.0.1"]


def test_a_gateway_needs_a_prepared_home(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Gateway(tmp_path)


def test_five_hundred_services_without_servers_are_taken(gateway: Gateway, client: Client) -> None:
    def asleep(number: int) -> Service:
        revision = Revision(f"s{number}-00001", 0, ready=False, weight=100, tags=("prev",))
        return Service("default", f"s{number}", (revision,))

    applied = gateway.apply([asleep(number) for number in range(500)])
    assert applied.in_force, applied.reason
    assert client.get(host="s499.default.localhost").json["reason"] == "revision-not-ready"


def known(envoy: Envoy, names: list[str]) -> set[str]:
    admin = Peer(envoy.admin_port)
    states = cluster_states(admin, names)
    admin.close()
    return set(states or {})
