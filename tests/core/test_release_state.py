from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kanary import errors, release
from kanary.errors import KanaryError
from kanary.release import Denial, Intent, Release, State


def entry(number: int, run: str = "r", **more: Any) -> Release:
    return Release(f"v{number}", f"s3://{number}", f"sha256:{number}", {"model": {"n": number}}, run, **more)


def test_a_state_survives_its_config_map() -> None:
    intent = Intent(release.ROLLBACK, "ann", "2026-01-01T00:00:00.000Z", bad=("m-2",), target={"model": {}})
    state = State(7, intent, (entry(1), entry(2)), (Denial("sha256:2", "v2", "ann", "now"),), "42", {"policy": "x"})
    assert release.parse(release.document(state, "m", "ns")) == state


def test_no_config_map_is_an_empty_state() -> None:
    assert release.parse(None) == State()
    assert "resourceVersion" not in release.document(State(), "m", "ns")["metadata"]


def test_what_a_newer_kanary_wrote_is_read_over_and_kept() -> None:
    document = release.document(State(epoch=1), "m", "ns")
    document["data"] |= {"policy": "{}", "intent": '{"action":"x","who":"w","when":"t","colour":"red"}'}
    state = release.parse(document)
    assert state.intent == Intent("x", "w", "t")
    assert release.document(state, "m", "ns")["data"]["policy"] == "{}"


@pytest.mark.parametrize("data", [{"epoch": "many"}, {"history": "{"}, {"denied": '[{"digest": "x"}]'}])
def test_a_damaged_config_map_is_named(data: dict[str, str]) -> None:
    with pytest.raises(KanaryError, match="kanary-m in ns is damaged"):
        release.parse({"metadata": {"name": "kanary-m", "namespace": "ns"}, "data": data})


def test_the_history_is_bounded_and_keeps_the_newest() -> None:
    state = State()
    for number in range(release.HISTORY + 5):
        state = release.record(state, entry(number, f"run{number}"))
    assert len(state.history) == release.HISTORY
    assert state.history[-1].version == f"v{release.HISTORY + 4}"


def test_a_repeated_deployment_of_a_run_is_one_release() -> None:
    state = release.record(release.record(State(), entry(1)), entry(1))
    assert len(state.history) == 1
    assert len(release.record(state, entry(1, "another")).history) == 2


def test_the_first_denial_of_a_digest_stays() -> None:
    first, second = Denial("sha256:1", "v1", "ann", "t1"), Denial("sha256:1", "v1", "bob", "t2")
    state = release.deny(release.deny(State(), first), second)
    assert release.denial(state, "sha256:1") == first
    assert release.denial(state, "sha256:2") is None


def test_amending_changes_the_newest_release_of_a_model() -> None:
    state = replace(State(), history=(entry(1, "a"), entry(2), entry(1, "b")))
    amended = release.amend(state, "sha256:1", verdict=release.PROMOTED)
    assert [kept.verdict for kept in amended.history] == [release.CANARY, release.CANARY, release.PROMOTED]
    assert release.amend(state, "sha256:9", verdict="x") == state


def test_an_operator_stops_an_automation_and_is_named() -> None:
    before = State(epoch=3)
    intent = Intent(release.ROLLBACK, "ann", "2026-01-01T00:00:00Z")
    assert release.begin(before, intent, operator=False).epoch == 3
    after = release.begin(before, intent, operator=True)
    release.check_epoch(before, 3)
    with pytest.raises(errors.Held, match="ann started rollback at 2026-01-01") as held:
        release.check_epoch(after, 3)
    assert held.value.who == "ann"
