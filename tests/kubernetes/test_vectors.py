"""Conformance: what a real kube-apiserver 1.36 answered, asked of ours."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.kubernetes import differences, replaying, vectorfiles
from tests.kubernetes.server import Server

Body = dict[str, Any]
OWN = {vector["name"]: vector for vector in vectorfiles.load()}
RECORDED = {vector["name"]: vector for vector in vectorfiles.recorded()}
# Waits 75 seconds; test_watch asks the same of a server whose bookmarks come sooner.
LONG = "watch-bookmark-after-a-minute"
# What stands beside the recordings: asked of a server of the same version, and first answered otherwise by ours.
NEIGHBOURS = "neighbours"


def _orphans(vector: Body) -> bool:
    """Whether it asks about an object whose owner is not there: on a busy machine the collector may come first."""
    return vector.get("namespace") == "fresh" and "ownerReferences" in json.dumps(vector["setup"])


def replay_all(vectors: Iterable[tuple[Body, bool]], server: Server) -> dict[tuple[str, bool], list[str]]:
    """Watches mostly wait, so many are replayed at a time; but not beside the rest, which would make them late.

    What happens during a watch may come after its end where the machine is busy: then it gets ten times as long.
    """

    def replay(given: tuple[Body, bool]) -> tuple[tuple[str, bool], list[str]]:
        vector, recording = given
        with server.client() as client:
            found = replaying.run(vector, client)
            for _ in range(4 if _orphans(vector) else 0):
                found = found and replaying.run(vector, client)
            if found and "events" in vector["response"] and vector["name"] not in differences.API:
                found = replaying.run(vector, client, patience=10)
        return (vector["name"], recording), found

    asked = list(vectors)
    watches = [given for given in asked if "events" in given[0]["response"]]
    with ThreadPoolExecutor(4) as few, ThreadPoolExecutor(16) as many:
        found = dict(few.map(replay, [given for given in asked if "events" not in given[0]["response"]]))
        return found | dict(many.map(replay, watches))


@pytest.fixture(scope="module")
def found(kube_bare: Server) -> dict[tuple[str, bool], list[str]]:
    """The differences by vector, of our own form and (True) of the recordings."""
    vectors = [(vector, False) for vector in OWN.values()]
    vectors += [(vector, True) for vector in RECORDED.values() if vector["name"] != LONG]
    return replay_all(vectors, kube_bare)


def judge(name: str, found: list[str]) -> None:
    if name in differences.API:
        assert found, f"{name} no longer differs: take it out of differences.py"
    else:
        assert not found, "\n".join(found)


@pytest.mark.parametrize("name", OWN)
def test_answer_is_the_recorded_one(name: str, found: dict[tuple[str, bool], list[str]]) -> None:
    judge(name, found[name, False])


@pytest.mark.skipif(not RECORDED, reason="the recordings are not at hand")
@pytest.mark.parametrize("name", [name for name in RECORDED if name != LONG])
def test_recording_is_matched(name: str, found: dict[tuple[str, bool], list[str]]) -> None:
    judge(name, found[name, True])


@pytest.mark.soak
@pytest.mark.skipif(not RECORDED, reason="the recordings are not at hand")
def test_bookmarks_of_a_long_watch_are_the_recorded_ones(kube_bare: Server) -> None:
    judge(LONG, replay_all([(RECORDED[LONG], True)], kube_bare)[LONG, True])


@pytest.mark.skipif(not RECORDED, reason="the recordings are not at hand")
def test_short_forms_lose_nothing() -> None:
    recorded = {name: vector for name, vector in OWN.items() if vector["topic"] != NEIGHBOURS}
    assert set(recorded) | {LONG} == set(RECORDED)
    for name, vector in recorded.items():
        if vector["topic"] != "watch" and name != "table-watch" and name != "continue-after-compaction":
            original = RECORDED[name]
            assert vector["request"] | {"status": 0} == original["request"] | {"status": 0}, name
            assert vector["setup"] == original["setup"], name
            assert vector["response"]["status"] == original["response"]["status"], name
            assert vector["response"].get("body") == original["response"].get("body"), name
