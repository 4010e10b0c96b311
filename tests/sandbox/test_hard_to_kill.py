"""kill -9 of every part in turn, under load with a canary at 50 %: what fails, how long it is away, what is kept.

Each test prints its numbers: `pytest -s -m destructive tests/sandbox/test_hard_to_kill.py`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.deploy.deployment import Target, deploy
from sandbox.home import Home, read_json
from sandbox.modelserver.client import HostUnreachable, servers
from sandbox.processes import marked
from tests.rollout.measured import need_prometheus
from tests.rollout.rig import BODIES, NAMESPACE, Sandbox, Service, make_release, sandbox
from tests.sandbox.load import Load
from tests.waiting import wait_for

pytestmark = pytest.mark.destructive

BACK_WITHIN_S = 10.0
BESIDES = 5  # failed requests besides those that were in flight
TRIED_FOR_S = 3.0  # and after that at the earliest the gateway gives up a request to a server that is away
NAME = "flowers"
STABLE, CANARY = f"{NAME}-predictor-00001", f"{NAME}-predictor-00002"
PARTS = ("kserve", "gateway", "prometheus", "modelserver", "kubernetes", "kfp")


@dataclass(frozen=True)
class Stage:
    """A sandbox whose service NAME has a canary at 50 %."""

    sandbox: Sandbox
    service: Service

    @property
    def parts(self) -> dict[str, Any]:
        found: dict[str, Any] = read_json(Home(self.sandbox.home).state).get("parts", {})
        return found

    def server(self, revision: str) -> dict[str, Any]:
        try:
            found = servers(self.sandbox.home)
        except HostUnreachable:
            return {"pid": 0, "ready": False}
        return next(one for one in found if one["id"] == f"{NAMESPACE}/{revision}")

    def load(self) -> Load:
        return Load(self.service.url, BODIES[0])

    def pids(self) -> dict[str, int]:
        """Of all parts and model servers."""
        return {name: part["pid"] for name, part in self.parts.items()} | {
            name: self.server(name)["pid"] for name in (STABLE, CANARY)
        }

    def kept(self) -> dict[str, Any]:
        """What nothing that is killed may lose."""
        endpoints = self.sandbox.endpoints
        experiments = httpx.get(f"{endpoints['kfp']['url']}/apis/v2beta1/experiments", timeout=10).json()
        service = self.service.document()
        return {
            "service": (service["metadata"]["uid"], service["metadata"]["generation"], service["spec"]),
            "traffic": service["status"]["components"]["predictor"]["traffic"],
            "release": self.service.state(),
            "experiments": sorted(one["experiment_id"] for one in experiments["experiments"]),
        }

    def measured(self, moment: float) -> float:
        """How many samples Prometheus has of the ten seconds before `moment`."""
        found = self.sandbox.prometheus(f"sum(count_over_time(up[10s] @ {moment:.0f}))")
        return found[0][1] if found else 0.0


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("hard")
    home = folder / "home"
    with sandbox(home) as running, pytest.MonkeyPatch.context() as environment:
        environment.setenv("KANARY_HOME", str(home))
        environment.delenv("KUBECONFIG", raising=False)
        for version, percent in (("v1", 0), ("v2", 50)):
            model = make_release(folder / "releases", version, int(version[1]))
            deploy(model.path, model.uri, model.digest, Target(NAME, NAMESPACE, percent, 180.0, ""))
        found = Stage(running, Service(running, NAME))
        need_prometheus(running)
        yield found
    assert marked(home) == []
    assert {path.name for path in home.iterdir()} & {"lock", "endpoints.json", "state.json"} == set()


@dataclass(frozen=True)
class Killed:
    """What a kill did."""

    away_s: float
    in_flight: int
    load: Load

    def tell(self, what: str) -> None:
        load = self.load
        print(
            f"\n{what}: away {self.away_s:.2f} s, in flight {self.in_flight}, failed {load.failures} "
            f"{dict(load.failed) or ''}, waited to connect {load.waited}, answered {sum(load.answered.values())}, "
            f"slowest {load.slowest_s:.2f} s"
        )


def kill(stage: Stage, pid: int, is_back: Callable[[], bool], what: str) -> Killed:
    """Kill -9 under load; requests flow before, and of both arms again after it is back."""
    with stage.load() as load:
        wait_for(lambda: min(load.answered[STABLE], load.answered[CANARY]) > 20, "requests before")
        began = time.monotonic()
        in_flight = load.kill(pid)
        wait_for(is_back, f"{what} is back", 30)
        away = time.monotonic() - began
        arms = dict(load.answered)
        wait_for(lambda: all(load.answered[arm] > arms[arm] + 20 for arm in (STABLE, CANARY)), "requests after")
    killed = Killed(away, in_flight, load)
    killed.tell(what)
    assert killed.away_s <= BACK_WITHIN_S
    given_up = load.rate * max(0.0, away - TRIED_FOR_S)
    assert load.failures <= killed.in_flight + BESIDES + given_up, load.failed
    return killed


@pytest.mark.parametrize("revision", [STABLE, CANARY], ids=["stable", "canary"])
def test_a_killed_model_server_loses_what_it_was_at_and_no_more(stage: Stage, revision: str) -> None:
    before, kept = stage.server(revision), stage.kept()

    def is_back() -> bool:
        found = stage.server(revision)
        return found["ready"] and found["pid"] not in (0, before["pid"])

    killed = kill(stage, before["pid"], is_back, revision)
    assert {name.partition(" ")[2] for name in killed.load.failed} <= {revision}, "another revision's requests failed"
    assert stage.server(revision)["port"] == before["port"]
    assert stage.kept() == kept


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_part_is_back_by_itself_with_all_that_it_had(stage: Stage, part: str) -> None:
    # It may itself have been away for the last ten seconds, or for most of them.
    moment = wait_for(lambda: (now := time.time()) * (stage.measured(now) > 0), "Prometheus measures")
    before, kept, pids = stage.parts[part], stage.kept(), stage.pids()
    measured = stage.measured(moment)

    def is_back() -> bool:
        found = stage.parts[part]
        started = found["state"] == "healthy" and found.get("pid") not in (None, before["pid"])
        return started and (part != "modelserver" or stage.server(CANARY)["ready"])

    killed = kill(stage, before["pid"], is_back, part)
    if part != "gateway":
        assert (killed.load.failures, killed.load.waited) == (0, 0), "no request goes through it"
    assert stage.parts[part]["ports"] == before["ports"]
    wait_for(lambda: all(stage.server(name)["ready"] for name in (STABLE, CANARY)), "the host tells of both")
    assert {**stage.pids(), part: 0} == {**pids, part: 0}, "nothing else was restarted"
    assert stage.kept() == kept
    assert wait_for(lambda: stage.measured(moment), "Prometheus answers") >= measured > 0


def test_without_its_supervisor_traffic_goes_on_and_the_next_up_adopts_everything(stage: Stage) -> None:
    pids, kept = stage.pids(), stage.kept()
    with stage.load() as load:
        wait_for(lambda: sum(load.answered.values()) > 50, "requests before")
        began = time.monotonic()
        os.kill(stage.sandbox.endpoints["pid"], signal.SIGKILL)
        seen = sum(load.answered.values())
        wait_for(lambda: sum(load.answered.values()) > seen + 100, "requests without a supervisor")
        up = stage.sandbox.run("up")
        Killed(time.monotonic() - began, 0, load).tell("supervisor")
    assert up.returncode == 0, up.stdout + up.stderr
    assert (load.failures, load.waited) == (0, 0)
    assert stage.pids() == pids
    assert stage.kept() == kept
    told = json.loads(stage.sandbox.run("info", "--json").stdout)["sandbox"]
    assert {one["name"]: one["pid"] for one in told["parts"]} == {name: pids[name] for name in stage.parts}
    assert [(one["name"], one["pid"], one["ready"]) for one in told["servers"]] == [
        (f"{NAMESPACE}/{name}", pids[name], True) for name in (STABLE, CANARY)
    ]
    for one in (*told["parts"], *told["servers"]):
        assert one["memory_bytes"] > 2**20, one
        assert one["cpu_seconds"] > 0, one


def test_logs_of_a_model_server_are_found_by_service_and_by_revision(stage: Stage) -> None:
    both = stage.sandbox.run("logs", NAME).stdout
    assert {line.split()[0] for line in both.splitlines()} == {f"{NAMESPACE}/{STABLE}", f"{NAMESPACE}/{CANARY}"}
    for name in (CANARY, f"{NAMESPACE}/{CANARY}"):
        alone = stage.sandbox.run("logs", name).stdout
        assert "version v2" in alone
        assert "version v1" not in alone
    assert Path(stage.server(CANARY)["log"]).read_text(encoding="utf-8") == stage.sandbox.run("logs", CANARY).stdout
