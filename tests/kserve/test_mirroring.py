"""The mirror of many services: what is wrong with one of them is its own."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

import pytest

from sandbox.kserve import mirroring
from sandbox.kserve.client import Kind, Kubernetes, Refused
from sandbox.kserve.mirror import PODS, Name
from sandbox.kserve.mirroring import Mirror


class Strict:
    """An API server that does not take everything."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[str] = asyncio.Queue()

    async def list(self, kind: Kind) -> tuple[list[dict[str, Any]], str]:
        return [], "1"

    async def create(self, kind: Kind, namespace: str, body: dict[str, Any]) -> None:
        if body["metadata"]["name"] == "refused":
            raise Refused(422, "a label is too long")
        self.taken.put_nowait(body["metadata"]["name"])


def pod(name: str) -> dict[Name, dict[str, Any]]:
    return {(PODS, "n", name): {"metadata": {"name": name}}}


async def test_what_is_refused_of_one_service_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "_RETRY_S", 0.01)
    server = Strict()
    mirror = Mirror(cast(Kubernetes, server))
    writing = asyncio.create_task(mirror.run())
    for uid, name in (("1", "refused"), ("2", "taken")):
        mirror.show(uid, partial(pod, name))
    async with asyncio.timeout(60):
        assert await server.taken.get() == "taken"
    writing.cancel()
