"""A controller that runs for months keeps nothing of services that are gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from sandbox.gateway import clusters, gateway, routes
from sandbox.kserve import servers
from sandbox.kserve.controller import Controller
from tests.kserve.rig import DEADLINE_S, Namespace, Sandbox, ready, wait
from tests.waiting import wait_for

pytestmark = pytest.mark.destructive
STANDARD = {"serving.kserve.io/deploymentMode": "Standard"}


@contextmanager
def controlling(home: Path) -> Iterator[Controller]:
    """A controller in a thread of this process."""
    found: list[tuple[Controller, asyncio.AbstractEventLoop, asyncio.Task[None]]] = []
    begun = threading.Event()

    async def run() -> None:
        controller = Controller(home, scale_down_s=0.5)
        task = asyncio.create_task(controller.run())
        found.append((controller, asyncio.get_running_loop(), task))
        begun.set()
        await asyncio.wait([task])
        await controller.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert begun.wait(DEADLINE_S)
    controller, loop, task = found[0]
    try:
        yield controller
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(DEADLINE_S)
    assert task.cancelled()


def held(found: object, path: str = "controller") -> dict[str, int]:
    """How much is in every collection that the controller or a part of it has, by the attributes that lead there."""
    sizes: dict[str, int] = {}
    for name, value in list(vars(found).items()):
        at = f"{path}.{name}"
        if isinstance(value, dict | set | list | tuple | frozenset):
            sizes[at] = amount(value)
        elif type(value).__module__.startswith("sandbox.") and hasattr(value, "__dict__") and at.count(".") < 5:
            sizes |= held(value, at)
    return sizes


def amount(found: object) -> int:
    """The items of a collection and of the collections in it."""
    if isinstance(found, dict):
        return len(found) + sum(map(amount, found.values()))
    return len(found) + sum(map(amount, found)) if isinstance(found, set | list | tuple | frozenset) else 0


def restless(controller: Controller) -> dict[str, Collection[object]]:
    """What is still to be done for services that are being deleted."""
    found: dict[str, Collection[object]] = {
        "services": controller._services.objects,
        "servers": controller._servers.statuses,
        "draining": controller._router.draining,
        "turns": controller._turns._turns,
        "mirrored": controller._mirror._written,
        "tasks": controller._tasks,
    }
    return {name: list(parts) for name, parts in found.items() if parts}


def everything(controller: Controller) -> dict[str, int]:
    made = {"clusters": len(clusters._KEPT), "routes": len(routes._KEPT)}
    queue: dict[str, int] = {"events": controller._recorder._queue.qsize(), "tasks": len(controller._tasks)}
    return held(controller) | made | queue


def soon(remaining: Callable[[], dict[str, Any]]) -> None:
    """Waits until nothing remains; fails with what does. Whatever happens, a revision is drained after 65 s."""
    with suppress(AssertionError):
        wait_for(lambda: not remaining(), "nothing remains", 120)
    assert remaining() == {}


def come(ns: Namespace, name: str) -> tuple[str, str]:
    """One service of each mode, the first with a canary that gets more and more."""
    knative, standard = f"{name}-k", f"{name}-s"
    ns.create("one", knative)
    ns.create("one", standard, STANDARD)
    ns.settled({"01": 100}, knative)
    ns.deploy("two", 50, knative)
    ns.settled({"01": 50, "02": 50}, knative)
    ns.percent(90, knative)
    ns.settled({"01": 10, "02": 90}, knative)
    ns.wait("it is ready", ready, standard)
    return knative, standard


def come_and_go(ns: Namespace, controller: Controller, name: str) -> None:
    for service in come(ns, name):
        ns.delete(service)
    soon(lambda: restless(controller))


@contextmanager
def left_alone(controller: Controller) -> Iterator[None]:
    """While the controller puts its finalizer on nothing."""

    async def nothing(service: object) -> None:
        return None

    kept, controller._writes.add_finalizer = controller._writes.add_finalizer, nothing  # type: ignore[method-assign]
    yield
    controller._writes.add_finalizer = kept  # type: ignore[method-assign]


def snatch(ns: Namespace, name: str) -> None:
    """Delete a service without its finalizer's leave."""
    ns.patch({"metadata": {"finalizers": None}}, name)
    ns.delete(name)


def test_nothing_is_left_of_services_that_are_deleted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_NOTE_S", 0.1)
    monkeypatch.setattr(gateway, "DRAIN_AT_LEAST_S", 0.1)
    sandbox = Sandbox(home)
    try:
        ns = sandbox.namespace("n")
        early = come(ns, "early")
        sandbox.kill("kserve")
        for name in early:
            snatch(ns, name)
        with controlling(home) as controller:
            wait(lambda: controller._started, "it has looked at everything")
            come_and_go(ns, controller, "first")
            before = everything(controller)
            assert (before["controller._known"], before["controller._standard._known"]) == (0, 0)
            come_and_go(ns, controller, "second")
            ns.create("one", "snatched")
            ns.settled({"01": 100}, "snatched")
            with left_alone(controller):
                snatch(ns, "snatched")
            soon(lambda: restless(controller))
            soon(lambda: left(before, everything(controller)))
    finally:
        sandbox.stop()


def left(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What there is more of."""
    return {path: size for path, size in after.items() if size > before.get(path, 0)}
