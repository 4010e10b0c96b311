"""The controller's decisions replayed against recordings of KServe 0.20 in Standard mode: the same states, in order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.kserve.config import read as read_config
from sandbox.kserve.standard_wish import FIRST_RELEASE, NEXT_RELEASE
from tests.kserve.standard_replay import World, autoscalers, deployments, flat, inference_service

_RECORDINGS: dict[str, Any] = json.loads(Path(__file__).with_name("standard_recordings.json").read_text("utf-8"))
# What an operator steers by, without the reasons: between two of these states it depends on which of a cluster's
# controllers was faster, and on how many of several pods had come up when KServe looked.
_ROLLOUT = ("Ready", "PredictorReady", "CanaryPredictorReady", "Stopped", "url", "predictor url", "address")

# Seen in one of eleven creations: KServe looked between two writes of the Deployment controller.
_RACE = "Unknown NewReplicaSetCreated"


def _play(step: dict[str, Any], world: World) -> list[dict[str, str]]:
    """Apply a step; give every state that the status went through, the one before it first."""
    seen = len(world.statuses)
    before = flat(world.status)
    service = inference_service(step, world.status)
    world.reconcile(service)
    kinds = {"m-predictor": step["predictor"]} | {f"m-{c['name']}-predictor": c for c in step.get("canaries", [])}
    if name := step["predictor"].get("name"):
        kinds[f"m-{name}-predictor"] = step["predictor"]
    for deployment, server in list(world.starting()):
        if "storage" in kinds[deployment]:
            world.answer(service, server, state="initializing", ready=False)
            world.answer(service, server, state="starting", ready=False)
        if kinds[deployment].get("server", "good") == "good":
            world.answer(service, server)
    world.linger(service)
    return [before, *(flat(status) for status in world.statuses[seen:])]


def _world(scenario: dict[str, Any], release: str = FIRST_RELEASE) -> World:
    keys = scenario.get("disallowed", [])
    config = read_config({"data": {"inferenceService": json.dumps({"serviceAnnotationDisallowedList": keys})}})
    return World(config=config, release=release)


def _recorded(step: dict[str, Any], before: dict[str, str]) -> Iterator[dict[str, str]]:
    """The recorded states in full; the file holds what changed from one to the next."""
    state = dict(before)
    for change in step["states"]:
        state = {key: value for key, value in (state | change).items() if value is not None}
        yield state


def _distinct(states: list[dict[str, str]]) -> list[dict[str, str]]:
    """What a rollout shows of the states, each once in a row."""
    found: list[dict[str, str]] = []
    for state in states:
        if state.get("PredictorReady", "").startswith(_RACE):
            continue
        part = {key: text.partition(" ")[0] for key, text in state.items() if key in _ROLLOUT}
        part |= {key: text for key, text in state.items() if key.startswith("canary ")}
        if not found or found[-1] != part:
            found.append(part)
    return found


@pytest.mark.parametrize("name", sorted(_RECORDINGS))
def test_states_and_their_order_are_those_that_were_recorded(name: str) -> None:
    world = _world(_RECORDINGS[name])
    recorded: dict[str, str] = {}
    for step in _RECORDINGS[name]["steps"]:
        ours = _play(step, world)
        theirs = [recorded, *_recorded(step, recorded)]
        recorded = theirs[-1]
        where = f"{name}, {step['step']}"
        assert ours[-1] == recorded, where
        rest = iter(_distinct(ours))
        for state in _distinct(theirs):
            assert state in rest, f"{where}: {state} is missing or out of order: {_distinct(ours)}"


@pytest.mark.parametrize("name", sorted(_RECORDINGS))
@pytest.mark.parametrize("release", [FIRST_RELEASE, NEXT_RELEASE])
def test_deployments_and_autoscalers_end_as_they_were_recorded(name: str, release: str) -> None:
    world = _world(_RECORDINGS[name], release)
    for step in _RECORDINGS[name]["steps"]:
        _play(step, world)
        where = f"{name}, {step['step']}"
        assert deployments(world.record) == step["deployments"], where
        assert autoscalers(world.record) == step["autoscalers"], where


@pytest.mark.parametrize("name", sorted(_RECORDINGS))
@pytest.mark.parametrize("release", [FIRST_RELEASE, NEXT_RELEASE])
def test_only_ready_canaries_get_traffic_and_in_the_first_release_none(name: str, release: str) -> None:
    world = _world(_RECORDINGS[name], release)
    shared = 0
    for step in _RECORDINGS[name]["steps"]:
        _play(step, world)
        assert world.record is not None
        routed = {backend.deployment: backend.weight for backend in world.record.routed}
        asked = {f"m-{canary['name']}-predictor": canary["trafficPercent"] for canary in step.get("canaries", [])}
        ready = {d.name for d in world.record.deployments if d.ready + d.old_ready}
        given = {name: percent for name, percent in asked.items() if name in ready and release == NEXT_RELEASE}
        if routed:
            assert routed == {world.record.stable: 100 - sum(given.values())} | dict.fromkeys(asked, 0) | given
        shared += sum(given.values())
    asks = any("canaries" in step for step in _RECORDINGS[name]["steps"])
    assert bool(shared) == (asks and release == NEXT_RELEASE)


def test_no_condition_says_what_the_recordings_never_say() -> None:
    known: set[tuple[str, str]] = set()
    said: set[tuple[str, str]] = set()
    for scenario in _RECORDINGS.values():
        world = _world(scenario)
        state: dict[str, str] = {}
        for step in scenario["steps"]:
            for ours in _play(step, world):
                said |= set(ours.items())
            for theirs in _recorded(step, state):
                known |= set(theirs.items())
                state = theirs
    assert {(key, text) for key, text in said - known if key not in ("model", "observedGeneration")} == set()
