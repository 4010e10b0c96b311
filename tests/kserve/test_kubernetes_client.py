"""The controller's client: many requests at once on one connection that may break."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from sandbox.kserve import client
from sandbox.kserve.client import EVENTS, Kubernetes, Unreachable


async def test_who_loses_a_connection_late_takes_nobody_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kubeconfig").write_text(json.dumps({}), encoding="utf-8")
    breaks, under_way = {"early": asyncio.Event(), "late": asyncio.Event()}, set()

    async def answer(request: httpx.Request) -> httpx.Response:
        name = request.url.path.rpartition("/")[2]
        if name in breaks:
            under_way.add(name)
            await breaks[name].wait()
            raise httpx.ReadError("the connection is cut")
        return httpx.Response(200, json={})

    made: list[httpx.AsyncClient] = []

    def connect(_: object) -> httpx.AsyncClient:
        made.append(httpx.AsyncClient(base_url="http://api", transport=httpx.MockTransport(answer)))
        return made[-1]

    monkeypatch.setattr(client, "_connect", connect)
    api = Kubernetes(tmp_path / "kubeconfig")
    asked = {name: asyncio.create_task(api.delete(EVENTS, "n", name)) for name in breaks}
    while under_way != set(breaks):
        await asyncio.sleep(0)
    for name, event in breaks.items():
        event.set()
        with pytest.raises(Unreachable):
            await asked[name]
        await api.delete(EVENTS, "n", "other")
    assert [one.is_closed for one in made] == [True, False]
    await api.close()
