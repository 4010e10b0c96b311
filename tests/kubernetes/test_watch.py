"""Watches: bookmarks, expiry, restarts, and a client that never reads."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.kubernetes import admission, cluster, storage, watch
from tests.kubernetes.server import Server, stop
from tests.waiting import wait_for

Body = dict[str, Any]
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


def put(client: httpx.Client, name: str, **data: str) -> Body:
    body = {"metadata": {"name": name}, "data": data}
    response = client.put(f"{CONFIGMAPS}/{name}", json=body)
    if response.status_code == 404:
        response = client.post(CONFIGMAPS, json=body)
    return response.raise_for_status().json()  # type: ignore[no-any-return]


@contextmanager
def watching(client: httpx.Client, **query: str) -> Iterator[Iterator[Body]]:
    parameters = {"watch": "1", "timeoutSeconds": "120", **query}
    with client.stream("GET", CONFIGMAPS, params=parameters) as response:
        yield (json.loads(line) for line in response.iter_lines())


def test_every_change_arrives_once_and_in_order_at_every_watcher(kube: Server) -> None:
    with kube.client() as client:
        start = client.get(CONFIGMAPS).json()["metadata"]["resourceVersion"]

        def follow() -> list[str]:
            with kube.client() as reader, watching(reader, resourceVersion=start, labelSelector="!x") as events:
                return [next(events)["object"]["data"]["n"] for _ in range(200)]

        with ThreadPoolExecutor(8) as pool:
            readers = [pool.submit(follow) for _ in range(8)]
            for number in range(200):
                put(client, "ordered", n=str(number))
            for reader in readers:
                assert reader.result(120) == [str(number) for number in range(200)]
        client.delete(f"{CONFIGMAPS}/ordered")


def test_a_watch_goes_on_where_it_stopped_after_a_kill(tmp_path: Path, kube_start: Callable[..., Server]) -> None:
    server = kube_start(tmp_path)
    with server.client() as client:
        put(client, "a", n="1")
        with watching(client, fieldSelector="metadata.name=a") as events:
            version = next(events)["object"]["metadata"]["resourceVersion"]
            put(client, "a", n="2")
            client.delete(f"{CONFIGMAPS}/a")
            put(client, "b", n="3")
            server.process.kill()
            server.process.wait()
    again = kube_start(tmp_path)
    assert again.token == server.token
    with again.client() as client:
        assert client.get(f"{CONFIGMAPS}/b").json()["data"] == {"n": "3"}
        with watching(client, resourceVersion=version) as events:
            seen = [next(events) for _ in range(3)]
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in seen] == [
        ("MODIFIED", "a"),
        ("DELETED", "a"),
        ("ADDED", "b"),
    ]


def test_a_version_from_before_the_log_is_gone(kube: Server) -> None:
    with kube.client() as client, watching(client, resourceVersion="1") as events:
        event = next(events)
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert next(events, None) is None


def test_a_continue_token_from_before_the_log_is_answered_with_a_new_one(kube: Server) -> None:
    old = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhL2EifQ"
    with kube.client() as client:
        refused = client.get(CONFIGMAPS, params={"limit": "1", "continue": old})
        assert (refused.status_code, refused.json()["reason"]) == (410, "Expired")
        token = refused.json()["metadata"]["continue"]
        assert client.get(CONFIGMAPS, params={"limit": "1", "continue": token}).status_code == 200


def test_stopping_the_server_ends_its_watches(tmp_path: Path, kube_start: Callable[..., Server]) -> None:
    server = kube_start(tmp_path)
    with server.client() as client, watching(client) as events:
        began = time.monotonic()
        stop(server.process)
        assert list(events) == []
    assert server.process.returncode == 0
    assert time.monotonic() - began < 60  # before the watch would have ended by itself


def test_a_client_that_never_reads_is_cut_off_and_others_are_not(
    tmp_path: Path, kube_start: Callable[..., Server]
) -> None:
    server = kube_start(tmp_path, "--plain")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as silent, server.client() as client:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = f"GET {CONFIGMAPS}?watch=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n\r\n"
        silent.sendall(request.encode())
        silent.recv(1)
        with server.client() as reader, watching(reader) as events:
            for number in range(watch.QUEUE_LENGTH * 2):
                put(client, "big", n=str(number), filler="x" * 20_000)
                assert next(events)["object"]["data"]["n"] == str(number)
                if b"cut off" in (tmp_path / "api.log").read_bytes():
                    break
        wait_for(lambda: b"cut off" in (tmp_path / "api.log").read_bytes(), "the silent client is cut off")
        silent.settimeout(60)
        with pytest.raises(ConnectionResetError):
            drain(silent)
        assert client.get(CONFIGMAPS).status_code == 200


def drain(connection: socket.socket) -> None:
    while connection.recv(1 << 20):
        pass


async def test_bookmarks_come_regularly_and_before_the_end(tmp_path: Path) -> None:
    from sandbox.kubernetes.negotiation import Wanted
    from sandbox.kubernetes.options import list_options
    from sandbox.kubernetes.registry import by_id
    from sandbox.kubernetes.writes import Target

    store = storage.Store(tmp_path / "state.sqlite")
    state = cluster.Cluster(store, tmp_path, admission.Admission(), bookmark_seconds=0.5)
    query = {"watch": "1", "timeoutSeconds": "4", "allowWatchBookmarks": "true", "resourceVersion": str(store.version)}
    lines = watch.stream(
        state, watch.Hub(state), Target(by_id("configmaps"), "", ""), list_options(query), Wanted(), "", lambda: None
    )
    events = [json.loads(line) async for chunk in lines for line in chunk.splitlines()]
    store.close()
    # At 0.5, 1.0 and 1.5 seconds, and two seconds before the end; fewer on a machine that stalls.
    assert 2 <= len(events) <= 4
    assert {event["type"] for event in events} == {"BOOKMARK"}
    assert events[-1]["object"]["metadata"]["resourceVersion"] == str(store.version)
