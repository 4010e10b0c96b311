"""kill -9 of each part of the sandbox's KServe: what goes on without it, and what it does when it is back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sandbox.modelserver.client import HostUnreachable
from tests.kserve.rig import Namespace, Sandbox, condition, wait

pytestmark = pytest.mark.destructive


@pytest.fixture
def canary(ns: Namespace) -> Namespace:
    """A service `m` with a canary at 50 %."""
    ns.create("one")
    ns.settled({"01": 100})
    ns.deploy("two", 50)
    ns.settled({"01": 50, "02": 50})
    return ns


@pytest.fixture
def stage(home: Path) -> Iterator[Sandbox]:
    running = Sandbox(home)
    yield running
    running.stop()


def test_a_killed_canary_is_restarted_and_stable_requests_never_fail(canary: Namespace) -> None:
    killed = canary.servers()["m-predictor-00002"]
    with canary.load() as load:
        wait(lambda: len(load.answers) > 50, "requests before")
        os.kill(killed["pid"], signal.SIGKILL)
        wait(lambda: canary.servers()["m-predictor-00002"]["restarts"] == 1, "it was restarted")
        wait(lambda: canary.servers()["m-predictor-00002"]["ready"], "it is ready again")
        back = len(load.answers)
        wait(lambda: any(a.revision.endswith("2") and a.status == 200 for a in load.answers[back:]), "it answers again")
    assert load.broken == []
    assert {answer.revision for answer in load.failed} <= {"m-predictor-00002"}
    canary.settled({"01": 50, "02": 50})
    wait(lambda: "BackOff" in canary.events() and "Recovered" in canary.events(), "events tell it")


def test_without_the_controller_traffic_goes_on_and_its_successor_picks_up(canary: Namespace) -> None:
    sandbox = canary.sandbox
    with canary.load() as load:
        sandbox.kill("kserve")
        canary.percent(0)
        seen = len(load.answers)
        wait(lambda: len(load.answers) > seen + 50, "requests without a controller")
        sandbox.start_controller()
        canary.settled({"01": 100})
        canary.deploy("three", 20)
        canary.settled({"01": 80, "03": 20})
    assert (load.failed, load.broken) == ([], [])


def test_a_restarted_controller_takes_nothing_from_other_services(canary: Namespace) -> None:
    other = canary.sandbox.namespace(f"{canary.name}-other")
    other.create("one")
    other.settled({"01": 100})
    with canary.load() as load, other.load() as other_load:
        canary.sandbox.kill("kserve")
        canary.sandbox.start_controller()
        canary.percent(10)
        canary.settled({"01": 90, "02": 10})
        other.deploy("two", 10)
        other.settled({"01": 90, "02": 10})
    other.delete()
    assert (load.failed, load.broken, other_load.failed, other_load.broken) == ([], [], [], [])


def test_a_killed_envoy_comes_back_with_the_traffic_it_had(canary: Namespace) -> None:
    envoy = canary.sandbox.envoy
    envoy.kill()
    canary.percent(0)
    unready = canary.wait("not in force", lambda s: condition(s, "PredictorRouteReady").get("status") == "Unknown")
    assert condition(unready["status"], "Ready")["status"] == "Unknown"
    wait(lambda: "TrafficNotInForce" in canary.events(), "an event tells it")
    envoy.start()
    canary.settled({"01": 100})
    assert {canary.ask() for _ in range(20)} == {(200, "m-predictor-00001")}


def test_a_killed_host_leaves_its_servers_serving_and_its_successor_takes_them_over(stage: Sandbox) -> None:
    ns = stage.namespace("a")
    ns.create("one")
    ns.settled({"01": 100})
    ns.deploy("two", 50)
    ns.settled({"01": 50, "02": 50})
    before = {name: server["pid"] for name, server in ns.servers().items()}
    with ns.load() as load:
        stage.kill("modelserver")
        seen = len(load.answers)
        wait(lambda: len(load.answers) > seen + 50, "requests without a host")
        stage.start_part("modelserver")
        wait(lambda: _pids(ns) == before, "the same processes")
        ns.deploy("three", 10)
        ns.settled({"01": 90, "03": 10})
    assert (load.failed, load.broken) == ([], [])
    assert condition(ns.get()["status"], "Ready")["status"] == "True"
    assert ns.servers()["m-predictor-00001"]["pid"] == before["m-predictor-00001"]


def test_with_its_history_unreadable_traffic_goes_on_until_a_new_revision_has_taken_over(stage: Sandbox) -> None:
    ns = stage.namespace("a")
    ns.create("one")
    ns.settled({"01": 100})
    ns.deploy("two", 50)
    ns.settled({"01": 50, "02": 50})
    with ns.load() as load:
        stage.kill("kserve")
        for file in (stage.home / "kserve").glob("controller.sqlite*"):
            file.write_bytes(b"no database" * 1000)
        stage.start_controller()
        ns.settled({"01": 50, "03": 50})
        ns.percent(None)
        ns.settled({"03": 100})
    assert (load.failed, load.broken) == ([], [])
    assert (stage.home / "kserve" / "unreadable.controller.sqlite").read_bytes().startswith(b"no database")
    wait(lambda: {"m-predictor-00003"} == set(ns.servers()), "the lost revisions' servers are gone")


def test_a_killed_api_is_followed_again(stage: Sandbox) -> None:
    ns = stage.namespace("a")
    ns.create("one")
    ns.settled({"01": 100})
    with ns.load() as load:
        port = stage.api.base_url.port
        stage.kill("kubernetes")
        seen = len(load.answers)
        wait(lambda: len(load.answers) > seen + 50, "requests without an API")
        stage.start_part("kubernetes", "--port", str(port))
        wait(lambda: _answers(stage), "the API answers")
        ns.deploy("two", 10)
        ns.settled({"01": 90, "02": 10})
    assert (load.failed, load.broken) == ([], [])


def _pids(ns: Namespace) -> dict[str, int]:
    try:
        return {name: server["pid"] for name, server in ns.servers().items()}
    except HostUnreachable:
        return {}


def _answers(sandbox: Sandbox) -> bool:
    try:
        return sandbox.api.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
