"""Standard mode with parts killed, records lost, and the release of KServe that gives canaries no traffic."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.modelserver.client import HostUnreachable
from tests.kserve.rig import Namespace, Sandbox, condition, wait
from tests.kserve.standard_rig import (
    ROUTES,
    all_ready,
    canaries,
    canary,
    deploy,
    predict,
    promote,
    routed,
    statuses,
    weights,
)

pytestmark = pytest.mark.destructive


@pytest.fixture
def stage(home: Path) -> Iterator[Sandbox]:
    running = Sandbox(home)
    yield running
    running.stop()


@pytest.fixture
def split(stage: Sandbox) -> Namespace:
    """A service `m` with the canary v2 at 50 %."""
    ns = stage.namespace("a")
    deploy(ns, "one")
    canaries(ns, canary(ns, "v2", "two", 50))
    all_ready(ns, v2=50)
    routed(ns, {"m-predictor": 50, "m-v2-predictor": 50})
    return ns


def _processes(ns: Namespace) -> dict[str, int]:
    try:
        return {name: server["pid"] for name, server in ns.servers().items()}
    except HostUnreachable:
        return {}


def test_without_the_controller_traffic_goes_on_and_its_successor_restarts_nothing(split: Namespace) -> None:
    before = _processes(split)
    with split.load() as load:
        split.sandbox.kill("kserve")
        seen = len(load.answers)
        wait(lambda: len(load.answers) > seen + 50, "requests without a controller")
        split.sandbox.start_controller()
        canaries(split, canary(split, "v2", "two", 20))
        all_ready(split, v2=20)
        routed(split, {"m-predictor": 80, "m-v2-predictor": 20})
    assert (load.failed, load.broken) == ([], [])
    assert {answer.revision for answer in load.answers} == {"m-predictor", "m-v2-predictor"}
    assert _processes(split) == before


def test_what_was_changed_without_the_controller_is_done_by_its_successor(split: Namespace) -> None:
    before = predict(split, f"m-v2-predictor.{split.name}.localhost")
    split.sandbox.kill("kserve")
    promote(split, "v2", "two")
    with split.load() as load:
        split.sandbox.start_controller()
        routed_alone = {"m-v2-predictor": 1}
        routed(split, routed_alone)
        wait(lambda: len(split.servers()) == 1, "the old predictor's server is gone")
    assert (load.failed, load.broken) == ([], [])
    assert predict(split) == before


def test_with_its_records_unreadable_the_servers_go_on(split: Namespace) -> None:
    before = _processes(split)
    with split.load() as load:
        split.sandbox.kill("kserve")
        for file in (split.sandbox.home / "kserve").glob("standard.sqlite*"):
            file.write_bytes(b"no database" * 1000)
        split.sandbox.start_controller()
        canaries(split, canary(split, "v2", "two", 30))
        all_ready(split, v2=30)
        routed(split, {"m-predictor": 70, "m-v2-predictor": 30})
    assert (load.failed, load.broken) == ([], [])
    assert _processes(split) == before


def test_a_killed_canary_loses_its_weight_until_it_is_back(split: Namespace) -> None:
    killed = next(server for name, server in split.servers().items() if name.startswith("m-v2-"))
    with split.load() as load:
        wait(lambda: len(load.answers) > 50, "requests before")
        os.kill(killed["pid"], signal.SIGKILL)
        wait(lambda: split.servers()[_name(killed)]["restarts"] == 1, "it was restarted")
        all_ready(split, v2=50)
        back = len(load.answers)
        wait(lambda: any(a.revision == "m-v2-predictor" for a in load.answers[back:]), "it answers again")
    assert load.broken == []
    assert {answer.revision for answer in load.failed} <= {"m-v2-predictor"}
    wait(lambda: "BackOff" in split.events() and "Recovered" in split.events(), "events tell it")


def test_a_canary_that_dies_for_good_leaves_the_route(split: Namespace) -> None:
    killed = next(server for name, server in split.servers().items() if name.startswith("m-v2-"))
    (Path(killed["model"]) / "version").write_text("broken", encoding="utf-8")
    os.kill(killed["pid"], signal.SIGKILL)
    split.wait("the canary is not ready", lambda status: statuses(status) == {"v2": (50, False)})
    routed(split, {"m-predictor": 100})
    assert {predict(split)[0] for _ in range(50)} == {"one"}


def test_a_killed_host_leaves_the_split_serving_and_its_successor_takes_the_servers_over(split: Namespace) -> None:
    before = _processes(split)
    with split.load() as load:
        split.sandbox.kill("modelserver")
        seen = len(load.answers)
        wait(lambda: len(load.answers) > seen + 50, "requests without a host")
        split.sandbox.start_part("modelserver")
        wait(lambda: _processes(split) == before, "the same processes")
        canaries(split, canary(split, "v2", "two", 30))
        all_ready(split, v2=30)
        routed(split, {"m-predictor": 70, "m-v2-predictor": 30})
    assert (load.failed, load.broken) == ([], [])
    assert condition(split.get()["status"], "Ready")["status"] == "True"


def test_while_envoy_is_away_the_ingress_is_not_ready(split: Namespace) -> None:
    envoy = split.sandbox.envoy
    envoy.kill()
    canaries(split)
    status = split.wait("not in force", lambda s: condition(s, "IngressReady")["status"] == "False")["status"]
    assert condition(status, "Ready")["status"] == "False"
    parents = split.sandbox.api.get(f"{ROUTES.format(split.name)}/m-predictor").json()["status"]["parents"]
    assert parents[0]["conditions"][0]["type"] == "Accepted"
    envoy.start()
    split.wait("in force", lambda s: condition(s, "Ready")["status"] == "True")
    assert {predict(split)[0] for _ in range(20)} == {"one"}


def test_like_0_20_0_a_ready_canary_gets_no_traffic_but_by_its_own_service(home: Path) -> None:
    stage = Sandbox(home, release="0.20.0")
    try:
        ns = stage.namespace("a")
        deploy(ns, "one")
        canaries(ns, canary(ns, "v2", "two", 50))
        all_ready(ns, v2=50)
        wait(lambda: weights(ns) == {"m-predictor": 1}, "the HTTPRoute leads to the predictor alone")
        assert {predict(ns)[0] for _ in range(100)} == {"one"}
        assert predict(ns, f"m-v2-predictor.{ns.name}.svc.cluster.local")[0] == "two"
        promote(ns, "v2", "two")
        wait(lambda: weights(ns, "m-v2-predictor") == {"m-v2-predictor": 1}, "its HTTPRoute has the new name")
        assert {predict(ns)[0] for _ in range(20)} == {"two"}
    finally:
        stage.stop()


def _name(server: dict[str, str]) -> str:
    return server["id"].partition("/")[2]
