from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
from starlette.responses import PlainTextResponse

from kanary.errors import KanaryError
from kanary.kubeconfig import Access
from kanary.kubernetes_async import AsyncKubernetes
from kanary.operations import Request
from kanary.snapshot import Snapshot, poll
from kanary.snapshot_rights import ACT, rights
from kanary.snapshot_watch import Follower, Objects
from tests.core.fake_kubernetes import FakeKubernetes, event, serving, thing

PATH = "/api/v1/things"


@pytest.fixture
def fake() -> Iterator[FakeKubernetes]:
    with serving(FakeKubernetes(items=[thing("a", 1), thing("b", 1)])) as server:
        yield server


def client(fake: FakeKubernetes, *, readonly: bool = False) -> AsyncKubernetes:
    return AsyncKubernetes(Access(fake.url, "ns", "c", "test", False), readonly=readonly)


async def following(
    fake: FakeKubernetes, then: Callable[[Follower, list[Snapshot[Objects]]], Awaitable[None]], keep: int = 0
) -> list[Snapshot[Objects]]:
    """What was shown while `then` ran."""
    seen: list[Snapshot[Objects]] = []
    api = client(fake)
    follower = Follower(PATH, seen.append, keep=keep)
    task = asyncio.create_task(follower.run(api))
    try:
        await then(follower, seen)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await api.close()
    return seen


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def names(snapshot: Snapshot[Objects]) -> list[str]:
    return sorted(snapshot.value or {})


async def test_a_list_is_shown_and_then_every_change(fake: FakeKubernetes) -> None:
    fake.script = [
        [event("ADDED", thing("c", 2)), event("DELETED", thing("a", 3)), event("MODIFIED", thing("b", 4, x=1))]
    ]

    async def then(follower: Follower, seen: list[Snapshot[Objects]]) -> None:
        await until(lambda: bool(seen) and names(seen[-1]) == ["ns/b", "ns/c"])

    seen = await following(fake, then)
    assert names(seen[0]) == ["ns/a", "ns/b"]
    assert all(snapshot.live for snapshot in seen)
    assert seen[-1].value is not None
    assert seen[-1].value["ns/b"]["x"] == 1


async def test_a_watch_that_is_cut_goes_on_where_it_was_without_a_new_list(fake: FakeKubernetes) -> None:
    fake.script = [
        [event("ADDED", thing("c", 7))],
        [event("BOOKMARK", thing("-", 9))],
        [event("ADDED", thing("d", 12))],
    ]

    async def then(follower: Follower, seen: list[Snapshot[Objects]]) -> None:
        await until(lambda: bool(seen) and "ns/d" in names(seen[-1]))
        await until(lambda: len([asked for asked in fake.asked if asked.get("watch")]) == 4)

    await following(fake, then)
    assert [asked.get("resourceVersion") for asked in fake.asked] == [None, "1", "7", "9", "12"]


async def test_a_version_that_is_too_old_is_listed_anew(fake: FakeKubernetes) -> None:
    fake.script = [[event("ERROR", {"code": 410, "message": "too old"})]]

    async def then(follower: Follower, seen: list[Snapshot[Objects]]) -> None:
        await until(lambda: sum("watch" not in asked for asked in fake.asked) == 2)
        await until(lambda: names(seen[-1]) == ["ns/z"])

    fake.items = [thing("z", 5)]
    assert not any(snapshot.error for snapshot in await following(fake, then))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ([event("ERROR", {"code": 500, "message": "etcd is gone"})], "etcd is gone"),
        (["nonsense"], "sent no event"),
        ([event("ADDED", {"metadata": {}})], "without a name"),
    ],
)
async def test_a_broken_watch_is_said_keeps_what_is_known_and_recovers(
    fake: FakeKubernetes, script: list[dict[str, object]], said: str
) -> None:
    fake.script = [script]

    async def then(follower: Follower, seen: list[Snapshot[Objects]]) -> None:
        await until(lambda: any(said in snapshot.error for snapshot in seen))
        failure = next(snapshot for snapshot in seen if snapshot.error)
        assert names(failure) == ["ns/a", "ns/b"]
        assert not failure.live
        follower.wake.set()
        await until(lambda: seen[-1].live)

    await following(fake, then)


async def test_an_answer_that_is_no_list_is_said(fake: FakeKubernetes) -> None:
    fake.override = PlainTextResponse("<html>")

    async def then(follower: Follower, seen: list[Snapshot[Objects]]) -> None:
        await until(lambda: bool(seen) and "not JSON" in seen[-1].error)
        fake.override = None
        follower.wake.set()
        await until(lambda: seen[-1].live)

    await following(fake, then)


async def test_asking_now_lists_anew_while_a_watch_is_open(fake: FakeKubernetes) -> None:
    async def then(follower: Follower, seen: list[Snapshot[Objects]]) -> None:
        await until(lambda: any(asked.get("watch") for asked in fake.asked))
        fake.items = [thing("z", 5)]
        follower.wake.set()
        await until(lambda: names(seen[-1]) == ["ns/z"])

    await following(fake, then)


async def test_of_many_the_newest_are_kept(fake: FakeKubernetes) -> None:
    fake.items = [thing(f"t{number:03d}", number) for number in range(1, 101)]
    fake.script = [[event("ADDED", thing(f"u{number}", 200 + number)) for number in range(30)]]

    async def then(follower: Follower, seen: list[Snapshot[Objects]]) -> None:
        await until(lambda: bool(seen) and "ns/u29" in names(seen[-1]))

    seen = await following(fake, then, keep=40)
    assert len(names(seen[0])) == 40
    assert names(seen[0])[0] == "ns/t061"
    assert len(names(seen[-1])) <= 50


async def test_asking_ends_though_it_is_woken_in_the_same_moment() -> None:
    wake, asked = asyncio.Event(), asyncio.Event()

    async def fetch() -> int:
        asked.set()
        return 1

    asking = asyncio.create_task(poll(fetch, lambda snapshot: None, wake, lambda value: 3600.0))
    await asked.wait()
    await asyncio.sleep(0)  # it waits for its next turn
    wake.set()
    asking.cancel()
    ended, _ = await asyncio.wait([asking], timeout=60)
    asking.cancel()
    assert ended


async def test_what_may_not_be_done_is_asked_and_told(fake: FakeKubernetes) -> None:
    fake.denied = frozenset({"patch inferenceservices"})
    api = client(fake, readonly=True)  # asking changes nothing
    try:
        found = await api.call(rights("ns"))
        assert found.lacks == {ACT: ("patch inferenceservices",)}
        assert found.sentence == "bob may not change services (no patch inferenceservices)"
        with pytest.raises(KanaryError, match="Read-only"):
            await api.send(Request("PATCH", PATH, body={}))
    finally:
        await api.close()
