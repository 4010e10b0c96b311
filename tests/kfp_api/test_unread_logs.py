"""A client that follows a log and reads nothing of it, against the real server in this process."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psutil
import pytest

from sandbox.kfp import logs
from sandbox.kfp.server import listen, make_server
from sandbox.runstore.store import Run, Task
from tests.kfp_api.rig import NOON, SPEC, Stage

LOG_BYTES = 20_000_000


@asynccontextmanager
async def served(stage: Stage) -> AsyncIterator[int]:
    """The port on which the stage's service answers."""
    listener = listen(0)
    server = make_server(stage.service)
    working = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.wait_for(working, 30)


def running_step(stage: Stage) -> None:
    stage.service.store.save_run(Run("r", "e", "n", SPEC, NOON, NOON, state="RUNNING"))
    stage.service.store.save_task(Task("t", "r", "step", NOON, state="RUNNING", pod_name="pod"))
    path = stage.service.engine.log_path("r", "t")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 99 + b"\n")
    with path.open("ab") as log:
        log.truncate(LOG_BYTES)


async def test_a_client_that_never_reads_is_cut_off_and_costs_no_memory(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "STALLED_S", 0.5)
    running_step(stage)
    async with served(stage) as port:
        before = psutil.Process().memory_info().rss
        deaf = socket.create_connection(("127.0.0.1", port), 5)
        with deaf:
            deaf.sendall(b"GET /apis/v1alpha1/runs/r/nodes/pod/log?follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                while not await is_over(deaf):
                    assert (await client.get("/apis/v2beta1/healthz")).status_code == 200
                    await asyncio.sleep(0.05)
        assert psutil.Process().memory_info().rss - before < LOG_BYTES / 2


async def is_over(connection: socket.socket) -> bool:
    """Whether the connection has been reset; what came on it is left where it is."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b"" or bool(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        )
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


async def test_a_client_that_reads_slowly_gets_everything(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    running_step(stage)
    run = stage.service.store.get_run("r")
    async with served(stage) as port:
        url = f"http://127.0.0.1:{port}/apis/v1alpha1/runs/r/nodes/t/log"
        received: Any = 0
        async with httpx.AsyncClient(timeout=30) as client, client.stream("GET", url, params={"follow": "true"}) as log:
            async for chunk in log.aiter_raw():
                received += len(chunk)
                if received == LOG_BYTES:
                    with stage.service.engine.log_path("r", "t").open("ab") as more:
                        more.write(b"the last line\n")
                    stage.service.store.save_run(dataclasses.replace(run, state="FAILED"))
        assert received == LOG_BYTES + len(b"the last line\n")
