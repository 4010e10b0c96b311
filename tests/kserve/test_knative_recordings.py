"""The controller's decisions replayed against recordings of KServe 0.20 on Knative 0.48: the same states, in order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.kserve.config import Config
from sandbox.kserve.config import read as read_config
from tests.kserve.replay import CRASH, World, flat, inference_service

_RECORDINGS: dict[str, Any] = json.loads(Path(__file__).with_name("knative_recordings.json").read_text("utf-8"))
# What an operator steers by. Conditions between two of these states depend on which controller was faster.
_ROLLOUT = (
    *("latestCreatedRevision", "latestReadyRevision", "latestRolledoutRevision", "previousRolledoutRevision"),
    "traffic",
)


def _play(step: dict[str, Any], world: World) -> list[dict[str, str]]:
    """Apply a step; give every state that the status went through, the one before it first."""
    seen = len(world.statuses)
    before = flat(world.status)
    service = inference_service(step, world.status)
    world.reconcile(service)
    for name in list(world.starting()):
        if step["server"] == "good":
            world.answer(service, name)
        elif "deadline" in step["step"] or "False" in step["step"]:
            failure = CRASH if step["server"] == "exits 3" else None
            world.now += 31
            world.answer(service, name, state="backing off", ready=False, failure=failure)
    world.now += 1
    return [before, *(flat(status) for status in world.statuses[seen:])]


def _crash(step: dict[str, Any], world: World) -> None:
    """KServe does not watch the container: a crash shows at the reconcile after it, here the next step's."""
    if step["server"] != "exits 3":
        return
    for name in list(world.starting()):
        world.servers[name] = type(world.servers[name])(1, "backing off", False, 1, CRASH)


def _config(scenario: dict[str, Any]) -> Config:
    keys = scenario.get("disallowed", [])
    return read_config({"data": {"inferenceService": json.dumps({"serviceAnnotationDisallowedList": keys})}})


def _recorded(step: dict[str, Any], before: dict[str, str]) -> Iterator[dict[str, str]]:
    """The recorded states in full; the file holds what changed from one to the next."""
    state = dict(before)
    for change in step["states"]:
        state = {key: value for key, value in (state | change).items() if value is not None}
        yield state


def _distinct(states: list[dict[str, str]], keys: tuple[str, ...]) -> list[dict[str, str | None]]:
    found: list[dict[str, str | None]] = []
    for state in states:
        part = {key: state.get(key) for key in keys}
        if not found or found[-1] != part:
            found.append(part)
    return found


@pytest.mark.parametrize("name", sorted(_RECORDINGS))
def test_states_and_their_order_are_those_that_were_recorded(name: str) -> None:
    scenario = _RECORDINGS[name]
    world = World(config=_config(scenario))
    recorded: dict[str, str] = {}
    for step in scenario["steps"]:
        ours = _play(step, world)
        theirs = [recorded, *_recorded(step, recorded)]
        recorded = theirs[-1]
        where = f"{name}, {step['step']}"
        assert ours[-1] == recorded, where
        rest = iter(_distinct(ours, _ROLLOUT))
        for state in _distinct(theirs, _ROLLOUT):
            assert state in rest, f"{where}: {state} is missing or out of order"
        _crash(step, world)


def test_no_condition_says_what_the_recordings_never_say() -> None:
    known: set[tuple[str, str]] = set()
    said: set[tuple[str, str]] = set()
    for scenario in _RECORDINGS.values():
        world = World(config=_config(scenario))
        state: dict[str, str] = {}
        for step in scenario["steps"]:
            for ours in _play(step, world):
                said |= set(ours.items())
            for theirs in _recorded(step, state):
                known |= set(theirs.items())
                state = theirs
            _crash(step, world)
    assert {(key, text) for key, text in said - known if key not in (*_ROLLOUT, "model")} == set()
