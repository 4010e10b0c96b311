"""The model server host: warm and cold starts, crashes, scale to zero, what survives its own death."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sandbox.errors import InvalidSpec
from sandbox.modelserver import api, storage
from sandbox.modelserver.client import Client, HostUnreachable, servers
from sandbox.modelserver.host import Host
from sandbox.modelserver.spec import BACKING_OFF, READY, STOPPED, STOPPING, Spec, Status, spec_from
from sandbox.modelserver.wire import address
from sandbox.processes import marked, process_of
from tests.waiting import wait_for

_MODULE = ("python3", "-m", "tests.kserve.fake_server")
_PRELOAD = ("http.server", "argparse")


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    running = Host(tmp_path)
    await running.start()
    yield running
    await running.stop()
    assert [status.pid for status in running.statuses() if status.pid] == []


class HostProcess:
    """A host in a process of its own, which can be killed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.start()

    def start(self) -> None:
        argv = [sys.executable, "-P", "-m", "sandbox.modelserver", "--home", str(self.home)]
        with (self.home / "host.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def put(self, wanted: Spec) -> None:
        self._listed()
        asyncio.run(_put(self.home, wanted))

    def server(self, name: str) -> dict[str, Any]:
        return next((one for one in self._listed() if one["id"] == f"ns/{name}"), {"ready": False, "pid": 0})

    def ready(self, name: str = "m-predictor-00001") -> dict[str, Any]:
        return self.until(lambda server: bool(server["ready"]), f"{name} is ready", name)

    def until(
        self, condition: Callable[[dict[str, Any]], bool], what: str, name: str = "m-predictor-00001"
    ) -> dict[str, Any]:
        def look() -> dict[str, Any]:
            found = self.server(name)
            return found if condition(found) else {}

        return wait_for(look, what)

    def log(self) -> str:
        return (self.home / "host.log").read_text(encoding="utf-8")

    def _listed(self) -> list[dict[str, Any]]:
        def listed() -> list[list[dict[str, Any]]]:
            with contextlib.suppress(HostUnreachable):
                return [servers(self.home, 60.0)]
            return []

        return wait_for(listed, "the host answers")[0]


async def _put(home: Path, wanted: Spec) -> None:
    client = Client(home)
    await client.put(wanted)
    await client.close()


@pytest.fixture
def killable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostProcess]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    running = HostProcess(tmp_path)
    yield running
    running.process.terminate()
    assert running.process.wait(60) == 0, running.log()
    assert marked(tmp_path) == []


async def until(host: Host, name: str, condition: Callable[[Status], bool], timeout_s: float = 60) -> Status:
    """Wait until the server's status is as wished."""
    reached: asyncio.Future[Status] = asyncio.get_running_loop().create_future()

    def look(changed: str, status: Status | None) -> None:
        if changed == name and status is not None and condition(status) and not reached.done():
            reached.set_result(status)

    host.listen(look)
    for status in host.statuses():
        look(status.id, status)
    async with asyncio.timeout(timeout_s):
        found = await reached
    host.forget(look)
    return found


def is_ready(status: Status) -> bool:
    return status.state == READY


def spec(name: str = "m-predictor-00001", version: str = "one", **changes: Any) -> Spec:
    values: dict[str, Any] = {"command": _MODULE, "args": ("--http_port=8080",), "env": {"MODEL_VERSION": version}}
    return Spec(id=f"ns/{name}", owner="uid", **(values | changes))


def ask(port: int) -> dict[str, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/models/m:predict", data=b'{"instances": [1]}')
    with urllib.request.urlopen(request, timeout=60) as response:
        found: dict[str, Any] = json.loads(response.read())
    return found


async def test_a_warm_server_is_a_fork_and_a_cold_one_is_not(host: Host) -> None:
    host.put(spec("warm", preload=_PRELOAD))
    host.put(spec("cold", version="two"))
    warm, cold = await until(host, "ns/warm", is_ready), await until(host, "ns/cold", is_ready)
    assert (warm.warm, cold.warm) == (True, False)
    assert (ask(warm.port)["predictions"], ask(cold.port)["predictions"]) == (["one"], ["two"])
    assert ask(warm.port)["pid"] == warm.pid
    assert "serving one" in Path(warm.log).read_text(encoding="utf-8")


async def test_a_killed_server_comes_back_on_its_port_and_its_end_is_told(host: Host) -> None:
    host.put(spec(preload=_PRELOAD))
    before = await until(host, "ns/m-predictor-00001", is_ready)
    os.kill(before.pid, signal.SIGKILL)
    down = await until(host, before.id, lambda status: not status.ready)
    assert down.failure is not None
    assert down.failure.exit_code == 137
    after = await until(host, before.id, is_ready)
    assert (after.port, after.restarts) == (before.port, 1)
    assert after.pid != before.pid


async def test_a_server_that_cannot_load_backs_off_with_its_last_words(host: Host) -> None:
    host.put(spec(version="broken", preload=_PRELOAD))
    status = await until(host, "ns/m-predictor-00001", lambda status: status.restarts >= 2)
    assert status.state == BACKING_OFF
    assert status.failure is not None
    assert (status.failure.exit_code, status.failure.message) == (3, "serving broken\ncannot load\n")


async def test_a_server_that_is_never_ready_is_ended_at_its_deadline(host: Host) -> None:
    host.put(spec(version="silent", preload=_PRELOAD, start_deadline_s=0.3))
    status = await until(host, "ns/m-predictor-00001", lambda status: status.failure is not None)
    assert status.failure is not None
    assert status.failure.message == "was not ready within 0.3 s"


async def test_a_program_that_is_not_there_is_a_failure_that_names_it(host: Host) -> None:
    host.put(spec(command=("/no/such/program",)))
    status = await until(host, "ns/m-predictor-00001", lambda status: status.failure is not None)
    assert status.failure is not None
    assert status.failure.exit_code == 127
    assert "/no/such/program" in status.failure.message


async def test_a_server_that_no_process_can_be_made_of_says_so_and_can_be_removed(host: Host) -> None:
    gone = asyncio.Event()
    host.listen(lambda name, status: gone.set() if status is None else None)
    host.put(spec(env={"A=B": "c"}))
    status = await until(host, "ns/m-predictor-00001", lambda status: status.failure is not None)
    assert status.failure is not None
    assert (status.failure.exit_code, "environment variable" in status.failure.message) == (127, True)
    host.remove(status.id)
    async with asyncio.timeout(60):
        await gone.wait()


async def test_scaled_to_zero_and_up_again_it_keeps_port_and_model(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "version").write_text("one", encoding="utf-8")
    wanted = spec(preload=_PRELOAD, storage_uri=str(source), args=("--http_port=8080", "--model_dir=/mnt/models"))
    host.put(wanted)
    before = await until(host, wanted.id, is_ready)
    host.put(spec_from({**vars(wanted), "running": False}))
    stopped = await until(host, wanted.id, lambda status: status.state == STOPPED)
    assert process_of(before.pid) is None
    (source / "version").write_text("changed", encoding="utf-8")
    host.put(wanted)
    after = await until(host, wanted.id, is_ready)
    assert (stopped.port, after.port, after.model) == (before.port, before.port, before.model)
    assert ask(after.port)["predictions"] == ["one"]


async def test_removing_the_last_server_of_a_model_deletes_its_copy(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "version").write_text("one", encoding="utf-8")
    wanted = spec(
        preload=_PRELOAD, storage_uri=f"file://{source}", args=("--http_port=8080", "--model_dir=/mnt/models")
    )
    host.put(wanted)
    model = Path((await until(host, wanted.id, is_ready)).model)
    assert not os.access(model / "version", os.W_OK) or os.geteuid() == 0
    host.remove(wanted.id)
    async with asyncio.timeout(60):
        while model.exists():
            await asyncio.sleep(0.01)
    assert source.exists()
    assert host.statuses() == []


async def test_the_end_of_a_server_that_was_stopping_already_is_told_once_it_has_ended(host: Host) -> None:
    gone = asyncio.Event()
    host.listen(lambda name, status: gone.set() if status is None else None)
    stubborn = "trap '' TERM; while true; do sleep 0.05; done"
    wanted = spec(command=("/bin/sh", "-c", stubborn), args=(), grace_s=0.5)
    host.put(wanted)
    running = await until(host, wanted.id, lambda status: status.pid > 0)
    host.put(spec_from({**vars(wanted), "running": False}))
    await until(host, wanted.id, lambda status: status.state == STOPPING)
    host.remove(wanted.id)
    async with asyncio.timeout(60):
        await gone.wait()
    assert process_of(running.pid) is None


async def test_the_end_of_a_server_is_told_though_something_cannot_be_cleared_away_behind_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(home: Path, used: set[Path]) -> list[Path]:
        raise OSError("no space left on the device")

    host.put(spec(preload=_PRELOAD))
    server = await until(host, "ns/m-predictor-00001", is_ready)
    monkeypatch.setattr(storage, "discard_unused", full)
    told: asyncio.Queue[tuple[str, Status | None]] = asyncio.Queue()
    host.listen(lambda name, status: told.put_nowait((name, status)))
    host.remove(server.id)
    async with asyncio.timeout(60):
        while (news := await told.get()) != (server.id, None):
            assert news[0] == server.id


async def test_a_model_that_is_still_fetched_for_a_removed_server_is_never_a_part_of_one(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("first", "second"):
        (source / name).write_text(name, encoding="utf-8")
    under_way, go_on, over = threading.Event(), threading.Event(), threading.Event()
    copy, fetch = shutil.copy2, storage.fetch

    def slow(one: Path, place: Path) -> None:
        copy(one, place)
        under_way.set()
        go_on.wait(60)

    def noticed(uri: str, home: Path) -> Path:
        try:
            return fetch(uri, home)
        finally:
            over.set()

    monkeypatch.setattr(shutil, "copy2", slow)
    monkeypatch.setattr(storage, "fetch", noticed)
    gone = asyncio.Event()
    host.listen(lambda name, status: gone.set() if status is None else None)
    host.put(spec(storage_uri=str(source)))
    await asyncio.to_thread(under_way.wait, 60)
    host.remove("ns/m-predictor-00001")
    async with asyncio.timeout(60):
        await gone.wait()
    go_on.set()
    await asyncio.to_thread(over.wait, 60)
    assert {path.name for path in fetch(str(source), tmp_path).iterdir()} == {"first", "second"}


async def test_a_model_that_is_not_there_is_told_and_fetched_once_it_is(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "later"
    wanted = spec(preload=_PRELOAD, storage_uri=str(source), args=("--http_port=8080", "--model_dir=/mnt/models"))
    host.put(wanted)
    failed = await until(host, wanted.id, lambda status: status.failure is not None)
    assert failed.failure is not None
    assert failed.failure.loading
    assert str(source) in failed.failure.message
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "version").write_text("late", encoding="utf-8")
    beside.rename(source)
    assert ask((await until(host, wanted.id, is_ready)).port)["predictions"] == ["late"]


async def test_the_same_name_with_another_owner_replaces_the_server(host: Host) -> None:
    host.put(spec(preload=_PRELOAD))
    before = await until(host, "ns/m-predictor-00001", is_ready)
    host.put(spec_from({**vars(spec(version="two", preload=_PRELOAD)), "owner": "another"}))
    after = await until(host, before.id, lambda status: status.state == READY and status.owner == "another")
    assert process_of(before.pid) is None
    assert ask(after.port)["predictions"] == ["two"]


async def test_what_is_wanted_survives_the_host(host: Host, tmp_path: Path) -> None:
    host.put(spec(preload=_PRELOAD))
    before = await until(host, "ns/m-predictor-00001", is_ready)
    await host.stop()
    second = Host(tmp_path)
    await second.start()
    try:
        after = await until(second, before.id, is_ready)
        assert after.port == before.port
    finally:
        await second.stop()


@pytest.mark.destructive
@pytest.mark.parametrize("kind", ["forked", "spawned"])
def test_servers_outlive_a_killed_host_and_the_next_one_takes_them_over(killable: HostProcess, kind: str) -> None:
    killable.put(spec(preload=_PRELOAD if kind == "forked" else ()))
    before = killable.ready()
    killable.kill()
    assert ask(before["port"])["pid"] == before["pid"]
    killable.start()
    after = killable.ready()
    same = ("pid", "port", "restarts", "started", "warm", "log")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert ask(after["port"])["pid"] == before["pid"]
    killable.put(spec("another", preload=_PRELOAD))
    assert killable.ready("another")["warm"], "the parent was taken over, too"
    os.kill(before["pid"], signal.SIGKILL)
    again = killable.until(lambda server: server["ready"] and server["restarts"] == 1, "its return")
    assert (again["port"], again["pid"] != before["pid"]) == (before["port"], True)


@pytest.mark.destructive
def test_the_end_of_a_server_without_a_host_is_told_by_its_parent(killable: HostProcess) -> None:
    killable.put(spec(preload=_PRELOAD))
    before = killable.ready()
    killable.kill()
    os.kill(before["pid"], signal.SIGTERM)
    wait_for(lambda: process_of(before["pid"]) is None, "its end")
    killable.start()
    assert killable.ready()["pid"] != before["pid"]
    assert f"{before['id']} ended with 143" in killable.log()


@pytest.mark.destructive
def test_the_end_of_an_orphan_whose_parent_is_lost_is_noticed_and_told_as_unknown(killable: HostProcess) -> None:
    killable.put(spec(preload=_PRELOAD))
    before = killable.ready()
    parent = psutil.Process(before["pid"]).ppid()
    killable.kill()
    os.kill(parent, signal.SIGKILL)
    wait_for(lambda: process_of(parent) is None, "its parent's end")
    killable.start()
    assert killable.ready()["pid"] == before["pid"]
    os.kill(before["pid"], signal.SIGTERM)
    wait_for(lambda: killable.ready()["pid"] != before["pid"], "its return")
    assert f"{before['id']} ended with 137" in killable.log()


@pytest.mark.destructive
def test_what_a_killed_host_left_and_nobody_wants_is_ended(killable: HostProcess, tmp_path: Path) -> None:
    killable.put(spec("kept", preload=_PRELOAD))
    killable.put(spec("lost", command=("sleep", "3600"), args=()))
    kept = killable.ready("kept")
    lost = killable.until(lambda server: bool(server["pid"]), "it runs", "lost")["pid"]
    killable.kill()
    wanted = json.loads((tmp_path / "modelserver" / "servers.json").read_text(encoding="utf-8"))
    del wanted["ns/lost"]
    (tmp_path / "modelserver" / "servers.json").write_text(json.dumps(wanted), encoding="utf-8")
    killable.start()
    assert killable.ready("kept")["pid"] == kept["pid"]
    assert process_of(lost) is None


@pytest.mark.destructive
@pytest.mark.parametrize("content", ["{", "[]", '{"ns/m-predictor-00001": {"pid": "x"}}', "\0"])
def test_with_the_file_of_processes_unreadable_servers_are_started_again(
    killable: HostProcess, tmp_path: Path, content: str
) -> None:
    killable.put(spec(preload=_PRELOAD))
    before = killable.ready()
    killable.kill()
    (tmp_path / "modelserver" / "processes.json").write_text(content, encoding="utf-8")
    killable.start()
    assert killable.ready()["pid"] != before["pid"]
    assert process_of(before["pid"]) is None
    assert killable.ready()["port"] == before["port"]


async def test_a_watcher_that_never_reads_is_cut_off_and_others_are_not(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_QUEUE", 100)
    server = await api.listen(host)
    with address(tmp_path) as path:
        _, deaf = await asyncio.open_unix_connection(path, limit=1)
        reader, writer = await asyncio.open_unix_connection(path)
    for watching in (deaf, writer):
        watching.write(b'{"op":"watch"}\n')
    assert await reader.readline() == b'{"synced":true}\n'
    assert len(host._listeners) == 2
    told = 0
    while len(host._listeners) == 2:
        for listener in list(host._listeners):
            listener("ns/m", Status("ns/m", "uid", READY, log="x" * 4096))
        assert json.loads(await reader.readline())["server"]["id"] == "ns/m"
        told += 1
        assert told < 1000, "it is never cut off"
    host.put(spec(command=("sleep", "3600"), args=()))
    assert json.loads(await reader.readline())["server"]["id"] == "ns/m-predictor-00001"
    writer.close()
    deaf.close()
    server.close()


async def test_where_a_line_is_cut_the_connection_has_ended(tmp_path: Path) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(await reader.readline())
        writer.write((b'{"synced":true}\n' if asked["op"] == "watch" else b"") + b'{"server":{"id')
        writer.close()

    with address(tmp_path) as path:
        server = await asyncio.start_unix_server(cut, path)
    client = Client(tmp_path)
    assert [told async for told in client.watch()] == [("", None)]
    with pytest.raises(HostUnreachable):
        await client.remove("ns/m")
    server.close()


async def test_a_server_that_fails_its_liveness_probe_is_started_again(host: Host) -> None:
    liveness = {"httpGet": {"path": "/live", "port": 8080}, "periodSeconds": 0.05, "failureThreshold": 2}
    host.put(spec(version="zombie", preload=_PRELOAD, liveness=liveness))
    status = await until(host, "ns/m-predictor-00001", lambda status: status.failure is not None)
    assert status.failure is not None
    assert "failed its liveness probe, 2 times in a row" in status.failure.message
    await until(host, status.id, lambda status: status.restarts >= 2)


async def test_a_server_is_unready_after_as_many_misses_as_its_probe_says(host: Host) -> None:
    probe = {"httpGet": {"path": "/v2/health/ready", "port": 8080}, "periodSeconds": 0.05, "failureThreshold": 2}
    host.put(spec(preload=_PRELOAD, probe=probe | {"timeoutSeconds": 0.2}))
    status = await until(host, "ns/m-predictor-00001", is_ready)
    os.kill(status.pid, signal.SIGSTOP)
    unready = await until(host, status.id, lambda status: not status.ready)
    assert (unready.pid, unready.restarts) == (status.pid, 0)
    os.kill(status.pid, signal.SIGCONT)
    assert (await until(host, status.id, is_ready)).pid == status.pid


async def test_an_unreadable_state_file_is_put_aside(tmp_path: Path) -> None:
    folder = tmp_path / "modelserver"
    folder.mkdir()
    (folder / "servers.json").write_text("{", encoding="utf-8")
    host = Host(tmp_path)
    await host.start()
    assert host.statuses() == []
    assert (folder / "servers.unreadable").read_text(encoding="utf-8") == "{"
    await host.stop()


@pytest.mark.parametrize("change", [{"id": "../x/y"}, {"id": "x"}, {"command": []}, {"env": None, "id": None}])
def test_a_malformed_spec_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec):
        spec_from({**vars(spec()), **change})


async def test_stopping_while_a_server_starts_leaves_no_process(host: Host) -> None:
    host.put(spec(preload=_PRELOAD))
    pids: list[int] = []
    host.listen(lambda name, status: pids.append(status.pid) if status and status.pid else None)
    host.put(spec_from({**vars(spec(preload=_PRELOAD)), "running": False}))
    await until(host, "ns/m-predictor-00001", lambda status: status.state == STOPPED)
    with contextlib.suppress(TimeoutError):
        await until(host, "ns/m-predictor-00001", is_ready, timeout_s=0.5)
    assert [pid for pid in pids if process_of(pid)] == []
