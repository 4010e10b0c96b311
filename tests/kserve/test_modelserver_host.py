"""The model server host: warm and cold starts, crashes, scale to zero, what survives its own death."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import InvalidSpec
from sandbox.modelserver.host import Host
from sandbox.modelserver.spec import BACKING_OFF, READY, STOPPED, Spec, Status, spec_from
from sandbox.processes import process_of

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


async def until(host: Host, name: str, condition: Callable[[Status], bool], timeout_s: float = 20) -> Status:
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
    with urllib.request.urlopen(request, timeout=5) as response:
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
    async with asyncio.timeout(10):
        while model.exists():
            await asyncio.sleep(0.01)
    assert source.exists()
    assert host.statuses() == []


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


async def test_processes_that_a_killed_host_left_are_ended_before_others_start(tmp_path: Path) -> None:
    cold = spec(command=("sleep", "3600"), args=())
    first = Host(tmp_path)
    await first.start()
    first.put(cold)
    left = await until(first, cold.id, lambda status: bool(status.pid))
    second = Host(tmp_path)
    await second.start()
    try:
        new = await until(second, cold.id, lambda status: bool(status.pid))
        assert process_of(left.pid) is None
        assert new.pid != left.pid
    finally:
        await second.stop()
        await first.stop()


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
