"""What a container's command becomes on this machine, and how a server's readiness is asked for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sandbox.modelserver.command import command
from sandbox.modelserver.ports import free_port, is_free
from sandbox.modelserver.probe import is_ready
from sandbox.modelserver.spec import Spec


def spec(*words: str, **changes: Any) -> Spec:
    return Spec(id="ns/m-predictor-00001", owner="uid", command=words, **changes)


@pytest.mark.parametrize(
    ("word", "becomes"),
    [
        ("8080", "20001"),
        ("--http_port=8080", "--http_port=20001"),
        ("0.0.0.0:8080", "127.0.0.1:20001"),
        ("localhost:8080", "localhost:20001"),
        ("--host=0.0.0.0", "--host=127.0.0.1"),
        ("10.0.0.0.0", "10.0.0.0.0"),
        ("--model_dir=/mnt/models/sub", "--model_dir=/models/a/sub"),
        ("--batch=18080", "--batch=18080"),
        ("$(PORT)", "20001"),
        ("$(NAME)-$(MISSING)", "value-$(MISSING)"),
    ],
)
def test_port_model_and_environment_are_put_in_place(word: str, becomes: str) -> None:
    found = command(spec("server", word, env={"NAME": "value"}), 20001, Path("/models/a"))
    assert found.argv == ("server", becomes)


def test_the_environment_tells_the_port_and_the_loopback_address() -> None:
    env = command(spec("server", env={"LISTEN": "0.0.0.0:8080", "MODEL": "/mnt/models"}), 20001, Path("/m")).env
    assert env == {"LISTEN": "127.0.0.1:20001", "MODEL": "/m", "PORT": "20001", "HOST": "127.0.0.1"}


@pytest.mark.parametrize("python", ["python", "python3", "/usr/bin/python3.11"])
def test_a_python_module_can_be_forked_and_runs_on_this_interpreter(python: str) -> None:
    found = command(spec(python, "-u", "-m", "kserve.server", args=("--http_port=8080",)), 20001, None)
    assert found.argv[0] == sys.executable
    assert (found.module, found.module_argv) == ("kserve.server", ("--http_port=20001",))


@pytest.mark.parametrize("words", [("python", "server.py"), ("python", "-W", "error", "-m", "x"), ("sh", "-c", "x")])
def test_any_other_command_is_started_cold(words: tuple[str, ...]) -> None:
    assert command(spec(*words), 20001, None).module == ""


def test_a_free_port_is_none_of_those_taken() -> None:
    first = free_port(())
    assert is_free(first)
    assert free_port({first}) != first


@pytest.fixture
async def answering() -> AsyncIterator[Callable[[bytes], Coroutine[Any, Any, int]]]:
    servers: list[asyncio.Server] = []

    async def start(answer: bytes) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0))
        return int(servers[-1].sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("answer", "probe", "ready"),
    [
        (b'HTTP/1.1 200 OK\r\n\r\n{"ready": true}', None, True),
        (b'HTTP/1.1 200 OK\r\n\r\n{"ready": false}', None, False),
        (b"HTTP/1.1 200 OK\r\n\r\nplain", None, True),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", None, True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", None, False),
        (b"not http\r\n\r\n", None, False),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", {"httpGet": {"path": "/ready", "port": 8080}}, False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", {"httpGet": {"path": "/ready", "port": "http"}}, True),
        (b"", {"tcpSocket": {"port": 8080}}, True),
        (b"", {"httpGet": {"path": "/", "port": 9090}}, True),
    ],
)
async def test_readiness_is_what_a_kubelet_would_find(
    answering: Callable[[bytes], Coroutine[Any, Any, int]], answer: bytes, probe: dict[str, Any] | None, ready: bool
) -> None:
    assert await is_ready(await answering(answer), 8080, probe) is ready


async def test_nobody_there_is_not_ready() -> None:
    assert not await is_ready(free_port(()), 8080, None)
