"""Runs read a page at a time, against a server in memory that changes between any two requests."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kanary.operations import Operation, Request
from kanary.snapshot_runs import NEWEST, OLDER, Runs, refresh

BEGIN = datetime(2026, 11, 21, tzinfo=UTC)
Json = dict[str, Any]


class Server:
    """Pages by position in time, as KFP's tokens do: what comes or goes between two pages shifts none."""

    def __init__(self, count: int) -> None:
        self.runs: dict[str, Json] = {}
        self.made = 0
        self.asked: list[Request] = []
        for _ in range(count):
            self.add()

    def add(self, state: str = "SUCCEEDED") -> str:
        self.made += 1
        key = f"run-{self.made:05d}"
        when = (BEGIN + timedelta(seconds=self.made)).isoformat()
        self.runs[key] = {"run_id": key, "display_name": key, "state": state, "created_at": when}
        return key

    def answer(self, request: Request) -> Json:
        self.asked.append(request)
        token, size = request.params.get("page_token", ""), int(request.params["page_size"])
        newest = sorted(self.runs.values(), key=lambda run: run["created_at"], reverse=True)
        rest = [run for run in newest if not token or run["created_at"] < token]
        page, more = rest[:size], len(rest) > size
        return {"runs": page, "total_size": len(self.runs)} | (
            {"next_page_token": page[-1]["created_at"]} if more else {}
        )


def call(operation: Operation[Runs], server: Server, between: Callable[[], None] = lambda: None) -> Runs:
    answer = None
    while True:
        try:
            request = operation.send(answer)
        except StopIteration as end:
            found: Runs = end.value
            return found
        answer = server.answer(request)
        between()


def everything(server: Server) -> Runs:
    known = call(refresh(Runs()), server)
    while known.older:
        known = call(refresh(known, more=True), server)
    return known


def states(known: Runs) -> dict[str, str]:
    return {key: run.state for key, run in known.by_id.items()}


def test_at_first_the_newest_page_is_read_and_nothing_else() -> None:
    server = Server(450)
    known = call(refresh(Runs()), server)
    assert (len(known.by_id), known.total, len(server.asked)) == (NEWEST, 450, 1)
    server.add("RUNNING")
    known = call(refresh(known), server)
    assert len(known.by_id) == NEWEST
    assert len(server.asked) == 2
    assert "run-00451" in known.by_id


def test_older_pages_come_when_they_are_asked_for_down_to_the_oldest() -> None:
    server = Server(NEWEST + OLDER + 3)
    known = call(refresh(call(refresh(Runs()), server), more=True), server)
    assert len(known.by_id) == NEWEST + OLDER
    known = call(refresh(known, more=True), server)
    assert (len(known.by_id), known.older) == (NEWEST + OLDER + 3, None)


def test_a_refresh_asks_two_pages_at_most_however_many_runs_are_known() -> None:
    server = Server(3000)
    known = everything(server)
    assert len(known.by_id) == 3000
    asked = []
    for _ in range(4):
        before = len(server.asked)
        known = call(refresh(known), server)
        asked.append(len(server.asked) - before)
    assert asked == [1, 2, 1, 2]


def test_what_changes_or_goes_among_the_oldest_is_found_out_in_turn() -> None:
    server = Server(1000)
    known = everything(server)
    server.runs["run-00001"]["state"] = "FAILED"
    del server.runs["run-00500"]
    for _ in range(2 * (1000 // OLDER + 1)):
        known = call(refresh(known), server)
    assert states(known) == {key: run["state"] for key, run in server.runs.items()}


def test_a_server_that_was_emptied_leaves_nothing() -> None:
    server = Server(300)
    known = everything(server)
    server.runs.clear()
    assert call(refresh(known), server).by_id == {}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_meanwhile_all_is_as_the_server_has_it_in_the_end(seed: int) -> None:
    chance, server = random.Random(seed), Server(700)
    known = everything(server)

    def meddle() -> None:
        for _ in range(chance.randrange(4)):
            what = chance.randrange(3)
            key = chance.choice(list(server.runs)) if server.runs else ""
            if what == 0:
                server.add(chance.choice(("RUNNING", "SUCCEEDED")))
            elif what == 1 and key:
                server.runs[key]["state"] = chance.choice(("FAILED", "SUCCEEDED", "RUNNING"))
            elif key:
                del server.runs[key]

    for _ in range(30):
        known = call(refresh(known, more=chance.random() < 0.2), server, meddle)
    for _ in range(2 * (len(server.runs) // OLDER + 2)):
        known = call(refresh(known, more=True), server)
    assert states(known) == {key: run["state"] for key, run in server.runs.items()}
