"""Scale to zero: servers that nobody asks for end, and the next request gets its answer all the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

import pytest

from sandbox.gateway.description import RevisionKey
from sandbox.kserve import scaler
from sandbox.kserve.activator import MOST, Activator
from sandbox.kserve.knative import Knative, Revision, Server, Target, Template
from sandbox.kserve.router import Router
from sandbox.kserve.scaler import Rest, Scaler, Scaling, may_rest
from sandbox.prometheus.config import targets_file
from tests.kserve.rig import DEADLINE_S, Namespace, component, ready, wait

KEY = RevisionKey("ns", "m", "m-predictor-00001")


def revision(min_scale: str, answered: bool = True) -> Revision:
    template = Template({"annotations": {"autoscaling.knative.dev/min-scale": min_scale}}, "")
    return Revision("m-predictor-00001", template, 0.0, ready=answered)


def test_it_is_off_until_the_config_map_says_otherwise_and_for_components_at_zero_alone() -> None:
    on = Scaling(to_zero=True)
    assert scaler.read(None) == scaler.read({"data": {}}) == Scaling(to_zero=False, window_s=60.0)
    assert scaler.read({"data": {"enable-scale-to-zero": "true", "stable-window": "6s"}}) == Scaling(True, 6.0)
    assert may_rest(revision("0"), on)
    assert not may_rest(revision("0"), Scaling())
    assert not may_rest(revision("1"), on)
    assert not may_rest(revision("0", answered=False), on)


async def test_who_comes_before_the_server_waits_and_too_many_are_turned_away() -> None:
    woken: list[RevisionKey] = []
    activator = Activator(woken.append)
    port = await activator.listen(KEY)
    listener, server = await upper()
    try:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST)]
        for _, writer in held:
            writer.write(b"held\n")
        async with asyncio.timeout(DEADLINE_S):
            while len(woken) < MOST:
                await asyncio.sleep(0)
            reader, _ = await asyncio.open_connection("127.0.0.1", port)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            activator.open(KEY, server.port)
            assert [await reader.readline() for reader, _ in held] == [b"HELD\n"] * MOST
        assert set(woken) == {KEY}
    finally:
        for _, writer in held:
            writer.close()
        activator.close()
        listener.close()


class Silent:
    """A gateway at which nobody asks for anything."""

    async def activity(self, keys: Sequence[RevisionKey]) -> dict[RevisionKey, tuple[int, int]]:
        return dict.fromkeys(keys, (0, 0))


async def upper() -> tuple[asyncio.Server, Server]:
    """A model server, and what is told of it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    return listener, Server(listener.sockets[0].getsockname()[1], "ready", True)


def components() -> dict[str, Knative]:
    target = Target(100, True, KEY.revision)
    return {"predictor": Knative("m-predictor", revisions=(revision("0"),), routed=(target,), traffic=(target,))}


@pytest.mark.parametrize("answers", [True, False])
async def test_who_waits_is_served_though_servers_may_rest_no_longer_and_turned_away_where_its_service_goes(
    answers: bool,
) -> None:
    looked: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    scaling = Scaler(cast(Router, Silent()), looked.put_nowait)
    scaling.scaling = Scaling(to_zero=True)
    listener, server = await upper()
    starting = {KEY.revision: replace(server, state="starting", ready=False)}
    try:
        async with asyncio.timeout(DEADLINE_S):
            held = (await scaling.attend(("ns", "m"), components(), {})).ports[KEY.revision]
            reader, writer = await asyncio.open_connection("127.0.0.1", held)
            writer.write(b"held\n")
            await looked.get()  # it is heard
            scaling.scaling = Scaling()
            assert (await scaling.attend(("ns", "m"), components(), starting)).ports == {}
            if answers:
                await scaling.attend(("ns", "m"), components(), {KEY.revision: server})
                assert await reader.read() == b"HELD\n"
            else:
                await scaling.attend(("ns", "m"), {}, {})
                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await reader.readexactly(1)
        writer.close()
    finally:
        scaling.close()
        listener.close()


async def test_who_comes_while_the_server_is_told_to_end_waits_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scaler, "_LOOK_S", 0.01)
    monkeypatch.setattr(scaler, "_DRAIN_S", 0.0)
    looked: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    scaling = Scaler(cast(Router, Silent()), looked.put_nowait)
    scaling.scaling = Scaling(to_zero=True, window_s=0.0)
    listener, server = await upper()
    watching = asyncio.create_task(scaling.run())

    async def attend(state: str) -> Rest:
        told = replace(server, state=state, ready=state == "ready")
        return await scaling.attend(("ns", "m"), components(), {KEY.revision: told})

    try:
        async with asyncio.timeout(DEADLINE_S):
            assert await attend("ready") == Rest()
            await looked.get()  # nobody has asked for it
            watching.cancel()
            ends = await attend("ready")
            assert ends.asleep == {KEY.revision: True}
            reader, writer = await asyncio.open_connection("127.0.0.1", ends.ports[KEY.revision])
            writer.write(b"held\n")
            while not scaling._woken:
                await asyncio.sleep(0)
            assert await attend("ready") == ends  # the news that it ends is still to come
            assert await attend("stopping") == Rest(ends.ports)
            assert await attend("starting") == Rest(ends.ports)
            assert await attend("ready") == Rest()
            assert await reader.read() == b"HELD\n"
        writer.close()
    finally:
        watching.cancel()
        scaling.close()
        listener.close()


@pytest.fixture
def resting(ns: Namespace) -> Iterator[Namespace]:
    """A service whose server has gone to zero."""
    settings = {"enable-scale-to-zero": "true", "stable-window": "1s"}
    with ns.sandbox.config_map("knative-serving", "config-autoscaler", settings):
        ns.create("one")
        ns.settled({"01": 100})
        ns.patch({"spec": {"predictor": {"minReplicas": 0}}})
        ns.settled({"02": 100})
        wait(lambda: _state(ns) == "stopped", "the server is scaled to zero")
        yield ns


@pytest.mark.sandbox
def test_an_idle_server_ends_and_many_requests_at_once_bring_it_back(resting: Namespace) -> None:
    status = resting.get()["status"]
    assert ready(status)
    wait(lambda: "m-predictor-00002" not in _scraped(resting), "nobody wakes it for its numbers")
    assert component(status)["latestReadyRevision"] == "m-predictor-00002"
    with ThreadPoolExecutor(20) as callers:
        answers = list(callers.map(lambda _: resting.ask(), range(20)))
    assert set(answers) == {(200, "m-predictor-00002")}
    wait(lambda: "m-predictor-00002" in _scraped(resting) or _state(resting) == "stopped", "it is scraped again")
    wait(lambda: {"ScaledToZero", "ScaledFromZero"} <= set(resting.events()), "events tell it")
    wait(lambda: _state(resting) == "stopped", "and to zero again")


@pytest.mark.sandbox
def test_under_load_it_stays_and_a_canary_may_rest_by_itself(resting: Namespace) -> None:
    with resting.load() as load:
        wait(lambda: len(load.answers) > 50, "requests have brought it back")
        resting.deploy("two", 0)
        resting.wait("the canary is ready", lambda s: component(s)["latestReadyRevision"].endswith("3"))
        wait(lambda: resting.servers()["m-predictor-00003"]["state"] == "stopped", "nobody asks for the canary")
        assert resting.servers()["m-predictor-00002"]["state"] == "ready"
        resting.percent(50)
        wait(lambda: any(one.revision.endswith("3") for one in load.answers[-200:]), "the canary answers")
    assert (load.failed, load.broken) == ([], [])


@pytest.mark.destructive
def test_a_service_at_zero_is_still_there_for_a_restarted_controller(resting: Namespace) -> None:
    resting.sandbox.kill("kserve")
    resting.sandbox.start_controller()
    wait(lambda: resting.ask() == (200, "m-predictor-00002"), "it is brought back")


def _state(ns: Namespace) -> str:
    return str(ns.servers().get("m-predictor-00002", {}).get("state"))


def _scraped(ns: Namespace) -> set[str]:
    """The revisions of this namespace whose servers Prometheus is sent to."""
    found = json.loads(targets_file(ns.sandbox.home).read_text(encoding="utf-8"))
    return {one["labels"]["revision"] for one in found if one["labels"]["namespace"] == ns.name}
