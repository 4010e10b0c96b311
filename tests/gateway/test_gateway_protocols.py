"""What passes the gateway besides small requests and answers: streams, upgrades, HTTP/2, large heads, slow callers."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import pytest

from sandbox.gateway.description import Revision, Service
from sandbox.gateway.gateway import Gateway
from tests.gateway.rig import DEADLINE_S, Client, Envoy, Upstream, binomial_interval

HOST = "m.default.localhost"
Start = Callable[[str], Upstream]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """A server in a thread that does with every connection what its handler says."""

    handler: Handler
    port: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Server:
        self._loop = asyncio.new_event_loop()
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = int(server.sockets[0].getsockname()[1])
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result(DEADLINE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the end of the test
            await self.handler(reader, writer)
        writer.close()

    async def _cancel(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def head_of(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode()


def serve(gateway: Gateway, port: int, **how: Any) -> None:
    assert gateway.apply([Service("default", "m", (Revision("m-00001", port, weight=100, **how),))]).in_force


@pytest.fixture
def connection(envoy: Envoy) -> Iterator[http.client.HTTPConnection]:
    opened = http.client.HTTPConnection("127.0.0.1", envoy.port, timeout=DEADLINE_S)
    yield opened
    opened.close()


def test_head_and_options_reach_the_model_server(
    gateway: Gateway, upstream: Start, connection: http.client.HTTPConnection
) -> None:
    server = upstream("m-00001")
    server.body = b" "
    serve(gateway, server.port)
    for method in ("OPTIONS", "DELETE", "PUT"):
        connection.request(method, "/v2/models/m", headers={"Host": HOST})
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.headers["kanary-revision"]) == (200, b" ", "m-00001")
        assert server.heads[-1][":first"] == f"{method} /v2/models/m HTTP/1.1"

    async def bodiless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await head_of(reader)).startswith("HEAD /v2/models/m ")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n")

    with Server(bodiless) as other:
        serve(gateway, other.port)
        connection.request("HEAD", "/v2/models/m", headers={"Host": HOST})
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.headers["content-length"]) == (200, b"", "7")


def test_an_answer_in_pieces_is_passed_on_piece_by_piece(
    gateway: Gateway, connection: http.client.HTTPConnection
) -> None:
    async def pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"6\r\nfirst\n\r\n")
        await asyncio.to_thread(server.release.wait, DEADLINE_S)
        writer.write(b"5\r\nlast\n\r\n0\r\n\r\n")
        await writer.drain()

    with Server(pieces) as server:
        serve(gateway, server.port)
        connection.request("GET", "/", headers={"Host": HOST})
        answer = connection.getresponse()
        assert answer.readline() == b"first\n"  # before the server has written the rest
        server.release.set()
        assert answer.read() == b"last\n"


def test_a_body_of_unknown_length_arrives_whole(
    gateway: Gateway, upstream: Start, connection: http.client.HTTPConnection
) -> None:
    server = upstream("m-00001")
    serve(gateway, server.port)
    chunks = (b'{"instances": [', b"1" * 100_000, b"]}")
    connection.request("POST", "/", body=iter(chunks), headers={"Host": HOST}, encode_chunked=True)
    assert connection.getresponse().read()
    assert server.heads[-1]["content-length"] == str(sum(map(len, chunks)))


def test_large_headers_pass_and_larger_ones_are_refused(gateway: Gateway, upstream: Start, client: Client) -> None:
    server = upstream("m-00001")
    serve(gateway, server.port)
    assert client.get(host=HOST, headers={"X-Large": "x" * 50_000}).status == 200
    assert len(server.heads[-1]["x-large"]) == 50_000
    refused = client.get(host=HOST, headers={"X-Large": "x" * 70_000})
    assert (refused.status, server.arrived) == (431, 1)


def test_a_caller_that_sends_its_request_too_slowly_is_let_go(envoy: Envoy) -> None:
    with socket.create_connection(("127.0.0.1", envoy.port), timeout=DEADLINE_S) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: m.default.localhost\r\nX-Unfinished: ")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_websocket_is_passed_through_in_both_directions(gateway: Gateway, envoy: Envoy) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert "upgrade: websocket" in (await head_of(reader)).lower()
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n")
        while piece := await reader.read(100):
            writer.write(piece.upper())

    with Server(echo) as server:
        serve(gateway, server.port)
        with socket.create_connection(("127.0.0.1", envoy.port), timeout=DEADLINE_S) as caller:
            caller.sendall(f"GET /ws HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\n".encode())
            caller.sendall(b"Connection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n")
            answers = caller.makefile("rb")
            head = list(iter(answers.readline, b"\r\n"))
            assert head[0].startswith(b"HTTP/1.1 101 ")
            assert b"kanary-revision: m-00001\r\n" in head
            for sent in (b"one\n", b"two\n"):
                caller.sendall(sent)
                assert answers.readline() == sent.upper()


@pytest.fixture
def grpc_server() -> Iterator[int]:
    """A gRPC server with a method that answers once and one that answers everything it is sent, as it comes."""
    import grpc

    def once(request: bytes, _: Any) -> bytes:
        return request.upper()

    def each(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
        for request in requests:
            yield request.upper()

    server = grpc.server(futures.ThreadPoolExecutor(4))
    methods = {
        "Once": grpc.unary_unary_rpc_method_handler(once),
        "Each": grpc.stream_stream_rpc_method_handler(each),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.Test", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


def test_grpc_passes_both_single_calls_and_streams(gateway: Gateway, envoy: Envoy, grpc_server: int) -> None:
    import grpc

    serve(gateway, grpc_server, http2=True)
    options = (("grpc.default_authority", HOST),)
    with grpc.insecure_channel(f"127.0.0.1:{envoy.port}", options) as channel:
        answer, call = channel.unary_unary("/inference.Test/Once").with_call(b"one", timeout=DEADLINE_S)
        assert answer == b"ONE"
        assert dict(call.initial_metadata())["kanary-revision"] == "m-00001"
        answered = threading.Event()

        def requests() -> Iterator[bytes]:
            yield b"first"
            answered.wait(DEADLINE_S)
            yield b"second"

        stream = channel.stream_stream("/inference.Test/Each")(requests(), timeout=DEADLINE_S)
        assert next(stream) == b"FIRST"  # while the request goes on
        answered.set()
        assert next(stream) == b"SECOND"


def test_each_revision_has_its_own_timeout_and_the_split_stays(
    gateway: Gateway, upstream: Start, client: Client
) -> None:
    stable, canary = upstream("m-00001"), upstream("m-00002")
    revisions = (
        Revision("m-00001", stable.port, weight=70, tags=("prev",), timeout_s=60),
        Revision("m-00002", canary.port, weight=30, timeout_s=0.2),
    )
    assert gateway.apply([Service("default", "m", revisions)]).in_force
    seen = Counter(client.get(host=HOST).revision for _ in range(1000))
    lowest, highest = binomial_interval(1000, 0.3)
    assert lowest <= seen["m-00002"] <= highest
    assert seen.total() == seen["m-00001"] + seen["m-00002"]
    stable.delay_s = canary.delay_s = 0.5
    for name, status in (("m-00001", 200), ("m-00002", 504)):
        assert client.get(host=HOST, headers={"Kanary-Revision": name}).status == status
    assert client.get(host=f"prev-{HOST}").status == 200


def test_a_revision_gets_no_more_requests_at_once_than_it_may_and_none_is_lost(
    gateway: Gateway, envoy: Envoy, upstream: Start
) -> None:
    server = upstream("m-00001")
    server.delay_s = 0.05
    serve(gateway, server.port, concurrency=3)

    def ask(_: int) -> int:
        client = Client(envoy.port)
        try:
            return client.get(host=HOST).status
        finally:
            client.close()

    with futures.ThreadPoolExecutor(20) as callers:
        assert set(callers.map(ask, range(40))) == {200}
    assert server.most_at_once == 3
    server.most_at_once = 0
    serve(gateway, server.port)
    with futures.ThreadPoolExecutor(20) as callers:
        assert set(callers.map(ask, range(40))) == {200}
    assert server.most_at_once > 3


def test_a_component_behind_another_one_answers_to_its_own_hosts_alone(
    gateway: Gateway, upstream: Start, client: Client
) -> None:
    entry, behind = upstream("m-transformer-00001"), upstream("m-predictor-00001")
    hosts = ("m-transformer.default.localhost",), ("m-predictor.default.localhost",)
    described = [
        Service("default", "m", (behind.revision(100),), hosts[1], component="predictor"),
        Service("default", "m", (entry.revision(100),), hosts[0]),
    ]
    assert gateway.apply(described).in_force
    assert client.get(host=HOST).revision == "m-transformer-00001"
    told = {name: entry.heads[-1][name] for name in ("kserve-isvc-name", "kserve-isvc-namespace")}
    assert told == {"kserve-isvc-name": "m", "kserve-isvc-namespace": "default"}
    assert client.get("/serving/default/m/").revision == "m-transformer-00001"
    assert client.get("/serving/default/m-predictor/v1/models/m").revision == "m-predictor-00001"
    assert json.loads(client.get(host="n.default.localhost").body)["reason"] == "no-service"
