"""The predictor as a process: forked warm as the sandbox does it, drained when it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import yaml
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from sandbox.forkserver import ForkServer, Job, Worker
from tests.serving.predictor_rig import ROOT, V1_GOOD, Connection, grpc_listening, lines, listening, write_model
from tests.serving.rpc_messages import INFER, request
from tests.waiting import wait_for

PATIENT = "tests.serving.patient:main"
RUNTIME = ROOT / "serving" / "manifests" / "servingruntime.yaml"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ForkServer]:
    """A process that has imported what the ServingRuntime says, to fork predictors from; it writes nothing."""
    log = tmp_path_factory.mktemp("parent") / "log"
    runtime = next(yaml.safe_load_all(RUNTIME.read_text(encoding="utf-8")))
    preload = runtime["metadata"]["annotations"]["kanary.dev/preload"]
    parent = ForkServer(preload.split(","), log, {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    try:
        await parent.start()
        yield parent
    finally:
        await parent.stop()
    assert log.read_text(encoding="utf-8") == ""


async def forked(
    parent: ForkServer, folder: Path, *options: str, log: str = "log", call: str = "serving.predictor"
) -> Worker:
    """A predictor of the model in `folder`, as the sandbox starts one."""
    argv = [f"--model_dir={folder / 'model'}", "--http_port=0", *options]
    return await parent.run(Job(call, argv, folder, folder / log, env={"HOST": "127.0.0.1"}))


async def test_a_predictor_is_forked_from_what_the_runtime_preloads(parent: ForkServer, tmp_path: Path) -> None:
    version = write_model(tmp_path / "model").version
    for name in ("first", "second"):
        worker = await forked(parent, tmp_path, f"--model_name={name}", log=name)
        port = await asyncio.to_thread(listening, tmp_path / name)
        with Connection(port) as connection:
            status, _, headers = connection.exchange("POST", f"/v1/models/{name}:predict", V1_GOOD)
        assert (status, headers["kanary-model-version"]) == (200, version)
        worker.kill()
        assert (await asyncio.wait_for(worker.wait(), 30)).code == 0
        assert [line.split(": ")[-1] for line in lines(tmp_path / name)[1:]] == ["stopped"]


async def test_a_predictor_that_cannot_serve_ends_with_the_reason(parent: ForkServer, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for option, code, why in (
            ("--digest=sha256:0", 1, "not the model expected"),
            (f"--model_dir={tmp_path}/none", 1, "no model.json"),
            ("--workers=2", 2, "one process"),
            (f"--http_port={taken.getsockname()[1]}", 3, "address already in use"),
            (f"--grpc_port={taken.getsockname()[1]}", 3, "for gRPC: is the address already in use?"),
        ):
            worker = await forked(parent, tmp_path, "--enable_grpc=true", "--grpc_port=0", option)
            assert (await asyncio.wait_for(worker.wait(), 60)).code == code
            text = (tmp_path / "log").read_text(encoding="utf-8")
            assert why in text
            assert "Traceback" not in text


async def test_a_predictor_told_to_stop_while_it_starts_stops(parent: ForkServer, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    for moment in range(10):
        worker = await forked(parent, tmp_path)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.wait(), moment * 0.015)
        worker.kill()
        assert (await asyncio.wait_for(worker.wait(), 30)).code in (0, -signal.SIGTERM)


async def test_a_request_under_way_is_answered_before_the_predictor_stops(parent: ForkServer, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    worker = await forked(parent, tmp_path)
    port = await asyncio.to_thread(listening, tmp_path / "log")
    answer = await asyncio.to_thread(ask_while_it_stops, worker.pid, port)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"]) == 3
    assert (await asyncio.wait_for(worker.wait(), 30)).code == 0


async def test_a_grpc_request_under_way_is_answered_before_a_forked_predictor_stops(
    parent: ForkServer, tmp_path: Path
) -> None:
    write_model(tmp_path / "model", version="3.1")
    for name in ("first", "second"):
        worker = await forked(parent, tmp_path, "--enable_grpc=true", "--grpc_port=0", log=name)
        await asyncio.to_thread(listening, tmp_path / name)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_listening(tmp_path / name)}") as channel:
            assert (await asked(channel)).model_version == "3.1"
            # Its headers go out at once, its message only when it is written.
            under_way = channel.stream_unary(INFER)()
            await under_way.wait_for_connection()
            assert (await asked(channel)).model_version == "3.1"
            worker.kill()
            await asyncio.to_thread(wait_for, partial(refuses, tmp_path / name), "new connections are refused")
            with pytest.raises(grpc.RpcError) as refused:
                await asked(channel)
            # CANCELLED where the call came in while the server was just closing.
            assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            await under_way.write(request().SerializeToString())
            await under_way.done_writing()
            assert pb.ModelInferResponse.FromString(await under_way).id == "7"
        assert (await asyncio.wait_for(worker.wait(), 30)).code == 0
        assert [line.split(": ")[-1] for line in lines(tmp_path / name)[1:]] == ["stopped"]


async def asked(channel: grpc.aio.Channel) -> Any:
    """The answer to a good request."""
    return pb.ModelInferResponse.FromString(await channel.unary_unary(INFER)(request().SerializeToString(), timeout=30))


def refuses(log: Path) -> bool:
    """Whether nothing listens any more where the predictor said it answers gRPC."""
    try:
        socket.create_connection(("127.0.0.1", grpc_listening(log)), timeout=30).close()
    except OSError:
        return True
    return False


def ask_while_it_stops(pid: int, port: int) -> bytes:
    """The answer to a request that was half sent when the predictor was told to stop."""
    body = json.dumps(V1_GOOD).encode()
    head = b"POST /v1/models/plants:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as under_way,
        socket.create_connection(("127.0.0.1", port), timeout=30) as idle,
    ):
        under_way.sendall(head + body[:10])
        idle.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_until(idle, b"}").startswith(b"HTTP/1.1 200")
        os.kill(pid, signal.SIGTERM)
        assert idle.recv(1) == b""
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=30)
        under_way.sendall(body[10:])
        return read_until(under_way)


def read_until(connection: socket.socket, end: bytes = b"") -> bytes:
    """What comes until it ends with `end`, or else until the connection does."""
    read = b""
    while part := connection.recv(65536):
        read += part
        if end and read.endswith(end):
            break
    return read


async def test_a_predictor_that_leaves_answers_until_nobody_asks_any_more(parent: ForkServer, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    worker = await forked(parent, tmp_path, call=PATIENT)
    port = await asyncio.to_thread(listening, tmp_path / "log")
    statuses, ready = await asyncio.to_thread(ask_until_told_to_go, worker.pid, port)
    assert set(statuses) == {200}
    assert ready == 503
    assert (await asyncio.wait_for(worker.wait(), 30)).code == 0


def ask_until_told_to_go(pid: int, port: int) -> tuple[list[int], int]:
    """Statuses of requests on kept and on new connections around a SIGTERM, and of the readiness probe after it."""
    statuses = []
    with Connection(port) as kept:
        statuses.append(kept.exchange("POST", "/v1/models/plants:predict", V1_GOOD)[0])
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: probe(port) == 503, "the predictor is not ready any more")
        status, _, headers = kept.exchange("POST", "/v1/models/plants:predict", V1_GOOD)
        statuses.append(status)
        assert headers["connection"] == "close"
    for _ in range(20):  # a client that has not heard yet connects anew
        with Connection(port) as late:
            statuses.append(late.exchange("POST", "/v1/models/plants:predict", V1_GOOD)[0])
    return statuses, probe(port)


def probe(port: int) -> int:
    with Connection(port) as connection:
        return connection.exchange("GET", "/v2/models/plants/ready")[0]


async def test_a_second_signal_ends_a_predictor_that_drains(parent: ForkServer, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    worker = await forked(parent, tmp_path, "--grace_period=600", call=PATIENT)
    port = await asyncio.to_thread(listening, tmp_path / "log")
    asking = asyncio.create_task(asyncio.to_thread(ask_until_refused, port))
    worker.kill()
    await asyncio.to_thread(wait_for, lambda: probe(port) == 503, "the predictor drains")
    worker.kill()
    assert (await asyncio.wait_for(worker.wait(), 30)).code == 0
    await asking


def ask_until_refused(port: int) -> None:
    """Requests without an end: a predictor that drains would go on for half of its grace period."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        while True:
            with Connection(port) as connection:
                connection.exchange("POST", "/v1/models/plants:predict", V1_GOOD)
