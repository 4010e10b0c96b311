"""Whole rollouts in simulated time, with KServe's controller as the sandbox decides it and the judge as it is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kanary import release
from kanary.errors import Held, KanaryError
from kanary.kserve import steer, store
from kanary.kserve.rollback import rollback
from kanary.rollout import acts
from kanary.rollout import record as records
from kanary.rollout.record import Record
from tests.automation.world import QUICK, Model, StandardWorld, World, serving
from tests.core.cluster import NAMESPACE, Killed, digest, path
from tests.core.standard_cluster import named


@pytest.fixture
def world() -> World:
    return serving()


def lease_holder(world: World) -> str:
    lease = world.objects[f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/kanary-m"]
    return store.holder(lease, world.now)


def after(world: World, seconds: float, act: Any) -> None:
    """Has `act` happen at the first look that is so much later."""
    due = world.now + seconds

    def look() -> None:
        if world.now < due:
            world.at_look = look
        else:
            act()

    world.at_look = look


def policy(**more: Any) -> dict[str, Any]:
    return QUICK | more


# ---- by itself


def test_a_good_canary_ends_as_the_stable_release(world: World) -> None:
    record = world.roll_out(policy(steps=[5, 50, 100]))
    assert (record.outcome, record.phase) == (records.PROMOTED, records.OVER)
    assert [step.percent for step in record.steps] == [5, 50, 100]
    # Each step was in force once, in its order, and nothing else ever was.
    assert list(dict.fromkeys(json.dumps(s) for s in world.splits))[-3:] == [
        '{"02": 5, "01": 95}',
        '{"02": 50, "01": 50}',
        '{"02": 100}',
    ]
    assert world.state.epoch == 0
    assert [(r.version, r.verdict) for r in world.state.history] == [("v1", release.PROMOTED), ("v2", release.PROMOTED)]
    assert lease_holder(world) == ""


@pytest.mark.parametrize(
    ("model", "reason"),
    [(Model(fails=0.2), "error"), (Model(ms=60), "slower"), (Model(yes=1.0), "class")],
    ids=["fails", "slow", "one class"],
)
def test_a_bad_canary_is_taken_back_and_denied(world: World, model: Model, reason: str) -> None:
    world.models["02"] = model
    margins = QUICK["margins"] | {"on_classes": "rollback"}
    record = world.roll_out(policy(margins=margins))
    assert record.outcome == records.ROLLED_BACK
    rejected = {test["family"] for test in record.findings["tests"] if test["rejected"]}
    assert rejected == {{"error": "errors", "slower": "latency", "class": "classes"}[reason]}
    assert world.splits[-1] == {"03": 100}
    assert [denied.digest for denied in world.state.denied] == [digest(2)]
    assert [(r.version, r.verdict) for r in world.state.history] == [
        ("v1", release.PROMOTED),
        ("v2", release.ROLLED_BACK),
    ]
    assert lease_holder(world) == ""


def test_a_canary_that_fails_only_once_it_has_all_traffic_is_taken_back_too(world: World) -> None:
    def turn_bad() -> None:
        world.models["02"] = Model(fails=0.5)

    def wait_for_the_watch() -> None:
        if world.splits[-1] == {"02": 100}:
            turn_bad()
        else:
            world.at_look = wait_for_the_watch

    world.at_look = wait_for_the_watch
    margins = QUICK["margins"] | {"limits": {"errors": 0.1}}
    record = world.roll_out(policy(margins=margins, watch={"seconds": 120}))
    assert record.outcome == records.ROLLED_BACK
    assert world.splits[-1] == {"03": 100}


def test_without_numbers_nothing_passes_and_the_deadline_holds(world: World) -> None:
    world.up = False
    record = world.roll_out()
    assert record.outcome == records.HELD
    assert "cannot be reached" in record.why
    assert world.splits[-1] == {"02": 50, "01": 50}


def test_without_traffic_nothing_passes(world: World) -> None:
    world.rate = 0.0
    record = world.roll_out()
    assert record.outcome == records.HELD
    assert "0 of 100 requests" in record.why


def test_numbers_that_come_back_are_enough(world: World) -> None:
    world.up = False

    def up() -> None:
        world.up = True

    after(world, 200, up)
    record = world.roll_out()
    assert record.outcome == records.PROMOTED
    assert [event.text for event in record.log if "numbers" in event.text][-1] == "there are numbers again"


def test_a_canary_that_never_gets_ready_is_taken_back() -> None:
    world = serving()
    world.roll_out()
    world.bad.add("s3://models/3")
    with pytest.raises(KanaryError):
        world.deploy(3)
    record = world.roll_out(policy(ready_timeout=60, failing_patience=20))
    assert record.outcome == records.ROLLED_BACK
    assert "never been ready" in record.why
    # It never got a request, and what serves is what served.
    assert world.counters.get("m-predictor-00003", {}).get("requests", 0) == 0
    assert world.state.history[-1].verdict == release.ROLLED_BACK
    # The cluster may have been at fault.
    assert world.state.denied == ()


@pytest.mark.parametrize("every", [15.0, 7.0])
def test_counters_that_are_scraped_seldom_are_judged_by_the_split_they_were_counted_at(
    world: World, every: float
) -> None:
    world.scraped_every, world.rate = every, 200.0
    bake = {"seconds": 60, "requests": 100}
    record = world.roll_out(
        policy(steps=[5, 50, 95, 100], bake=bake, interval=3, margins={"errors": 0.02, "latency": 0.2})
    )
    assert record.outcome == records.PROMOTED, record.why
    for step in record.steps[:-1]:
        requests = step.canary.requests + step.stable.requests
        share, exact = step.canary.requests / requests, step.percent / 100
        # Five standard deviations; a window across a move would be off by many more.
        assert abs(share - exact) < 5 * (exact * (1 - exact) / requests) ** 0.5, (step.percent, share)
    assert not any(event.text.startswith("pause") for event in record.log)


# ---- in Standard mode


def test_in_standard_mode_a_good_canary_is_promoted_under_its_own_name() -> None:
    world = serving(kind=StandardWorld)
    record = world.roll_out(policy(steps=[5, 50, 100]))
    assert record.outcome == records.PROMOTED, record.why
    assert record.canary == named(2)
    assert world.splits[-1] == {named(2): 100}
    assert {named(2): 50, "m-predictor": 50} in world.splits
    assert world.state.epoch == 0


def test_in_standard_mode_a_bad_canary_is_taken_back_and_denied() -> None:
    world = serving(kind=StandardWorld)
    world.models[named(2)] = Model(fails=0.3)
    record = world.roll_out()
    assert record.outcome == records.ROLLED_BACK, record.why
    assert world.splits[-1] == {"m-predictor": 100}
    assert [denied.digest for denied in world.state.denied] == [digest(2)]


def test_in_standard_mode_the_operator_wins() -> None:
    world = serving(kind=StandardWorld)
    after(world, 10, lambda: operator_rolls_back(world))
    record = world.roll_out()
    assert (record.outcome, "anna" in record.why) == (records.HELD, True)
    world.settle()
    assert world.splits[-1] == {"m-predictor": 100}


# ---- killed


def changes_of(world: World, section: dict[str, Any]) -> int:
    """How many requests of a whole rollout change something."""
    begun = world.calls
    world.roll_out(section, "run-7")
    return world.calls - begun


def killed_and_retried(world: World, moment: int, section: dict[str, Any]) -> Record:
    world.die_after = world.calls + moment
    with pytest.raises(Killed):
        world.roll_out(section, "run-7")
    world.die_after = None
    return world.roll_out(section, "run-7")


SHORT = QUICK | {"bake": {"seconds": 10, "requests": 50}, "watch": {"seconds": 5}, "warm_up": {"seconds": 0}}


def test_killed_at_any_moment_it_goes_on_where_it_was() -> None:
    changes = changes_of(serving("run-7"), SHORT)
    assert changes > 15
    for moment in range(changes):
        world = serving("run-7")
        record = killed_and_retried(world, moment, SHORT)
        assert record.outcome == records.PROMOTED, (moment, record.why)
        assert [step.percent for step in record.steps] == [50, 100], moment
        judged = sum(step.canary.requests for step in record.steps)
        assert judged <= world.sent_to["m-predictor-00002"], "a request was counted twice"
        assert world.splits[-1] == {"02": 100}


def test_killed_while_it_rolls_back_it_finishes_that() -> None:
    def bad() -> World:
        made = serving("run-7")
        made.models["02"] = Model(fails=0.5)
        return made

    for moment in range(changes_of(bad(), SHORT)):
        world = bad()
        record = killed_and_retried(world, moment, SHORT)
        assert record.outcome == records.ROLLED_BACK, (moment, record.why)
        assert world.splits[-1] == {"03": 100}
        assert [denied.digest for denied in world.state.denied] == [digest(2)]


def test_a_retry_of_what_is_over_changes_nothing(world: World) -> None:
    world.deploy(3, run_id="run-7")
    ended = world.roll_out(run_id="run-7")
    assert ended.outcome == records.PROMOTED
    version = world.version
    again = world.roll_out(run_id="run-7")
    assert again.outcome == records.PROMOTED
    assert world.version == version


# ---- others


def operator_rolls_back(world: World) -> None:
    world.user = "anna"
    world.run(rollback("m", NAMESPACE, "not today", clock=world.clock))


def operator_moves_traffic(world: World) -> None:
    world.user = "anna"
    world.run(steer.set_traffic("m", NAMESPACE, 20, clock=world.clock))


def operator_promotes(world: World) -> None:
    world.user = "anna"
    world.run(steer.promote("m", NAMESPACE, clock=world.clock))


@pytest.mark.parametrize("moment", [0, 10, 25, 40])
@pytest.mark.parametrize("act", [operator_rolls_back, operator_moves_traffic, operator_promotes])
def test_the_operator_wins_and_is_named(world: World, act: Any, moment: int) -> None:
    after(world, moment, lambda: act(world))
    record = world.roll_out(policy(bake={"seconds": 60, "requests": 100}, watch={"seconds": 60}))
    assert record.outcome == records.HELD
    assert "anna" in record.why
    assert world.state.epoch == 1
    # The release history says what the operator has made of it.
    verdicts = {operator_rolls_back: release.ROLLED_BACK, operator_promotes: release.PROMOTED}
    assert world.state.history[-1].verdict == verdicts.get(act, release.HELD)
    expected = {operator_rolls_back: {"03": 100}, operator_moves_traffic: {"02": 20, "01": 80}}
    assert world.splits[-1] == expected.get(act, {"02": 100})
    assert lease_holder(world) in ("", "operator anna")


def test_a_percentage_that_kubectl_has_set_holds_the_rollout(world: World) -> None:
    after(world, 10, lambda: world.touch(canaryTrafficPercent=33))
    record = world.roll_out()
    assert record.outcome == records.HELD
    assert "33 %" in record.why
    world.settle()
    assert world.splits[-1] == {"02": 33, "01": 67}


def test_an_act_between_deployment_and_rollout_of_a_run_holds_it(world: World) -> None:
    world.deploy(3, run_id="run-7")
    operator_moves_traffic(world)
    with pytest.raises(Held, match="anna started set-traffic"):
        world.roll_out(run_id="run-7")
    assert world.splits[-1]["03"] == 20


def test_a_service_that_another_automation_works_on_is_left_alone(world: World) -> None:
    held = store.take_lease(None, "m", NAMESPACE, "deploy run-9", world.now)
    world.objects.pop(held.path + "/kanary-m", None)
    world.send(held)
    with pytest.raises(KanaryError, match="is being worked on by deploy run-9"):
        world.roll_out()
    assert records.find(world.state) is None


def test_a_rollout_that_was_held_is_taken_up_again_with_what_it_had_found(world: World) -> None:
    world.rate = 2.0
    first = world.roll_out(policy(deadline=120, bake={"seconds": 20, "requests": 1}))
    assert first.outcome == records.HELD
    seen = first.steps[-1].canary.requests
    assert seen > 50
    world.rate = 50.0
    again = world.roll_out(policy(bake={"seconds": 20, "requests": 1}))
    assert again.outcome == records.PROMOTED
    assert [step.percent for step in again.steps] == [50, 50, 100]
    assert again.evidence["windows"] > first.evidence["windows"]
    assert again.log[: len(first.log)] == first.log


# ---- what people say


def test_a_pause_keeps_the_split_and_a_resume_lets_it_go_on(world: World) -> None:
    def pause() -> None:
        world.user = "ben"
        world.run(acts.pause("m", NAMESPACE, "a talk", world.now))
        after(world, 200, resume)

    def resume() -> None:
        assert world.record.waits == "ben has paused it: a talk"
        assert world.splits[-1] == {"02": 50, "01": 50}
        world.run(acts.resume("m", NAMESPACE, "", world.now))

    after(world, 5, pause)
    record = world.roll_out()
    assert record.outcome == records.PROMOTED
    assert [(act.what, act.who) for act in record.acts] == [("pause", "ben"), ("resume", "ben")]
    assert world.state.epoch == 0


def test_a_pause_leaves_the_brake_on(world: World) -> None:
    def pause_and_break() -> None:
        world.run(acts.pause("m", NAMESPACE, "", world.now))
        world.models["02"] = Model(fails=0.5)

    after(world, 5, pause_and_break)
    assert world.roll_out().outcome == records.ROLLED_BACK


def test_a_pause_that_nobody_ends_is_held(world: World) -> None:
    after(world, 5, lambda: world.run(acts.pause("m", NAMESPACE, "", world.now)))
    record = world.roll_out()
    assert record.outcome == records.HELD
    assert "has paused it" in record.why
    assert world.splits[-1] == {"02": 50, "01": 50}


def test_a_step_waits_for_its_approval_and_nobody_coming_is_a_hold(world: World) -> None:
    record = world.roll_out(policy(approve=["promotion"]))
    assert record.outcome == records.HELD
    assert "approval of the promotion" in record.why


def test_an_approved_step_passes(world: World) -> None:
    def approve() -> None:
        if world.record.waits != "approval of the promotion":
            world.at_look = approve
        else:
            world.user = "cleo"
            world.run(acts.approve("m", NAMESPACE, "looks well", world.now))
            world.user = "operator"

    world.at_look = approve
    record = world.roll_out(policy(approve=["promotion"]))
    assert record.outcome == records.PROMOTED
    assert [(act.what, act.who, act.step, act.why) for act in record.acts] == [("approve", "cleo", 100, "looks well")]


def test_other_classes_wait_for_a_person_who_may_let_them_pass(world: World) -> None:
    world.models["02"] = Model(yes=0.95)

    def approve() -> None:
        if not world.record.waits.startswith("a person must look"):
            world.at_look = approve
        else:
            world.run(acts.approve("m", NAMESPACE, "a better model", world.now))

    world.at_look = approve
    record = world.roll_out()
    assert record.outcome == records.PROMOTED
    assert [act.step for act in record.acts] == [records.FINDING]
    assert "pause" in "".join(event.text for event in record.log)


def test_a_split_that_is_not_what_was_asked_waits_for_a_person_who_may_take_it_as_it_is(world: World) -> None:
    world.skew = 2.0

    def approve() -> None:
        if not world.record.waits.startswith("a person must look"):
            world.at_look = approve
        else:
            assert "not split as it should be" in world.record.sentence
            world.run(acts.approve("m", NAMESPACE, "clients stick to a revision", world.now))

    world.at_look = approve
    record = world.roll_out()
    assert record.outcome == records.PROMOTED, record.why
    assert record.evidence["sticky"]


def test_nothing_can_be_said_where_nothing_is_under_way(world: World) -> None:
    for act in (acts.pause, acts.resume, acts.approve):
        with pytest.raises(KanaryError, match="No rollout of ns/m is under way: none has been"):
            world.run(act("m", NAMESPACE, "", world.now))


def test_what_nobody_asked_to_approve_is_refused(world: World) -> None:
    refused: list[str] = []

    def approve() -> None:
        with pytest.raises(KanaryError) as error:
            world.run(acts.approve("m", NAMESPACE, "", world.now))
        refused.append(str(error.value))

    after(world, 5, approve)
    world.roll_out()
    assert "waits for nobody's approval now" in refused[0]


# ---- the record


def test_the_record_survives_its_json_and_stays_small(world: World) -> None:
    record = world.roll_out(policy(interval=2, bake={"seconds": 400, "requests": 100}, deadline=2000))
    assert records.find(records.put(release.State(), record)) == replace(record, **_as_written(record))
    assert len(record.points) <= records.POINTS
    assert sum(point.canary for point in record.points) == sum(step.canary.requests for step in record.steps)
    assert len(records.written(record)) < 40_000
    assert world.objects[path("m")]["metadata"].get("annotations", {}).get("rollout") is None


def _as_written(record: Record) -> dict[str, Any]:
    plain = json.loads(records.written(record))
    return {key: plain[key] for key in ("policy", "tally", "counting", "evidence", "findings")}
