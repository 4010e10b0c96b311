"""Rollouts in the sandbox with real traffic: good canaries end at 100 %, bad ones are taken back by themselves."""

from __future__ import annotations

import hashlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from kanary.rollout import record as records
from tests.automation.conftest import NewService
from tests.automation.rig import FAULTS, MODES, NEVER_READY, POLICY, RATE, Live, blame, exposed, logged
from tests.waiting import wait_for

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(900)]


def test_good_canaries_end_at_100_percent_and_cost_no_request(new_service: NewService) -> None:
    services = [new_service(mode) for mode in MODES]

    def one(live: Live) -> None:
        with live.service.traffic(RATE / len(MODES)) as traffic:
            live.deploy(live.releases.v2)
            record = live.roll_out(POLICY | {"margins": {"errors": 0.05, "latency": 0.3, "classes": 0.4}})
            summary = traffic.stop()
        assert record.outcome == records.PROMOTED, record.why
        assert summary.failed == 0, summary.reasons
        assert live.service.status().split == {record.canary: 100}
        assert live.service.predict().headers["kanary-model-version"] == "v2"
        assert record.steps[0].canary.classes.keys() == {"iris", "rose"}

    with ThreadPoolExecutor(len(MODES)) as threads:
        list(threads.map(one, services))


def test_bad_canaries_are_taken_back_within_the_requests_that_plan_announced(new_service: NewService) -> None:
    services = {kind: new_service(mode) for kind, mode in zip(FAULTS, itertools.cycle(MODES), strict=False)}
    # A tenth fails, and N is announced for two in a hundred: the soak tries these, and chance decides nothing here.
    # What plan announces depends on what stable does, and that is the same everywhere.
    planned = services["fails"]
    with planned.service.traffic(RATE) as traffic:
        wait_for(lambda: traffic.summary().requests > RATE, "stable has traffic to plan from", 120)
        announced = planned.plan().within

    def one(kind: str) -> None:
        live = services[kind]
        # The fault that takes thousands of requests to find gets most of them.
        with live.service.traffic(RATE / 2 if kind == "fails" else RATE / 8) as traffic:
            live.deploy_bad(kind, seed=1, fails=0.1)
            record = live.roll_out(NEVER_READY if kind == "never starts" else POLICY)
            sent = traffic.stop().requests
        assert record.outcome == records.ROLLED_BACK, (kind, record.why)
        logged(live.service.sandbox, live.name, sent)
        blamed = blame(live.service.sandbox, live.name, record.canary)
        needed = exposed(live.service.sandbox, live.name, record)
        print(kind, needed, "of", announced, blamed, record.why)
        assert (blamed.stable, blamed.switch) == (0, 0), (kind, blamed)
        assert needed <= announced, kind
        assert live.service.predict().headers["kanary-model-version"] == "v1"

    with ThreadPoolExecutor(len(FAULTS)) as threads:
        list(threads.map(one, FAULTS))


# Wide enough for a few hundred requests, where the verdict is not what is tried.
WIDE = POLICY | {"margins": {"errors": 0.1, "latency": 0.3, "classes": 0.4}, "approve": ["promotion"]}


@pytest.fixture
def project(tmp_path: Path) -> str:
    file = tmp_path / "kanary.yaml"
    file.write_text(json.dumps({"rollout": WIDE}), encoding="utf-8")
    return str(file)


def test_people_steer_a_rollout_that_runs_from_the_command_line(live: Live, project: str, tmp_path: Path) -> None:
    sandbox, name, evidence = live.service.sandbox, live.name, tmp_path / "evidence.json"
    live.deploy(live.releases.v2)
    dry = sandbox.answer("rollout", name, "--project", project, "--dry-run")
    assert (dry["begins_at"], live.record()) == (50, None)
    with live.service.traffic(60):
        running = sandbox.start("rollout", name, "--project", project, "--evidence", str(evidence))
        try:
            wait_for(lambda: (live.record() or Empty).phase == records.BAKING, "the first step is in force", 120)
            assert sandbox.answer("pause", name, "--reason", "a talk", "--dry-run")["paused"]
            assert sandbox.answer("status", name)["rollout"]["paused"] is None
            sandbox.answer("pause", name, "--reason", "a talk")
            wait_for(lambda: "has paused it: a talk" in (live.record() or Empty).waits, "the pause is heard", 120)
            assert "paused it: a talk" in sandbox.run("status", name).stdout
            assert live.service.status().effective == 50
            planned = sandbox.answer("plan", name, "--project", project)
            assert planned["rate"] > 1
            assert [step["share"] for step in planned["steps"]] == [0.5]
            sandbox.answer("resume", name)
            approval = "approval of the promotion"
            wait_for(lambda: (live.record() or Empty).waits == approval, "it waits for its approval", 300)
            refused = sandbox.run("approve", name, "--step", "50")
            assert (refused.returncode, "asks nobody before 50 %" in refused.stderr) == (2, True)
            sandbox.answer("approve", name, "--reason", "looks well")
            said, problems = running.communicate(timeout=300)
        finally:
            if running.poll() is None:
                running.kill()
                running.communicate()
    assert running.returncode == 0, said + problems
    assert live.service.status().split == {live.service.status().stable: 100}
    document = json.loads(evidence.read_bytes())
    assert [act["what"] for act in document["acts"]] == ["pause", "resume", "approve"]
    brief = sandbox.answer("status", name)["rollout"]
    assert brief["evidence"]["sha256"] == hashlib.sha256(evidence.read_bytes()).hexdigest()
    again = sandbox.run("pause", name)
    assert (again.returncode, "ended as promoted" in again.stderr) == (2, True)


def test_an_operator_s_rollback_in_the_middle_wins_and_a_killed_rollout_goes_on(live: Live, project: str) -> None:
    sandbox, name = live.service.sandbox, live.name
    live.deploy(live.releases.v2)
    with live.service.traffic(60) as traffic:
        killed = sandbox.start("rollout", name, "--project", project)
        wait_for(lambda: (live.record() or Empty).phase == records.BAKING, "the first step is in force", 120)
        killed.kill()
        killed.communicate()
        begun = live.record()
        assert begun is not None
        running = sandbox.start("rollout", name, "--project", project, "--json")
        approval = "approval of the promotion"
        wait_for(lambda: (live.record() or Empty).waits == approval, "it goes on where it was", 300)
        done = sandbox.answer("rollback", name, "--reason", "not today")
        said, problems = running.communicate(timeout=300)
        summary = traffic.stop()
    assert running.returncode == 4, said + problems
    document = json.loads(said)
    assert (document["rollout"], len(document["steps"])) == (begun.id, 1)
    assert "started rollback" in document["why"]
    assert done["outcome"] == "done"
    assert summary.failed == 0, summary.reasons
    assert live.service.predict().headers["kanary-model-version"] == "v1"


@dataclass(frozen=True)
class _Empty:
    phase: str = ""
    waits: str = ""


Empty = _Empty()
