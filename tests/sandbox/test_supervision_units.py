"""What the supervisor is made of: homes, locks, processes by start time, placeholders, log rotation."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from sandbox import lifecycle, supervisor
from sandbox.errors import SandboxError
from sandbox.home import Home, find_home, make_home, read_json, remove_files, take_lock, write_json
from sandbox.partprocess import PartProcess, choose_port, stop
from sandbox.parts import Part, filled, urls
from sandbox.processes import HOME_MARK, PART_MARK, is_alive, kill_marked, marked, process_of, recorded, send, wait_gone
from sandbox.rotation import lines, rotate, tail
from sandbox.supervisor import Supervisor
from tests.waiting import wait_for


def test_the_home_folder_is_the_flag_then_the_variable_then_the_nearest_then_here(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_home(None, {}, below).path == below / ".kanary"
    (tmp_path / ".kanary").mkdir()
    assert find_home(None, {}, below).path == tmp_path / ".kanary"
    assert find_home(None, {"KANARY_HOME": "/x"}, below).path == Path("/x")
    assert find_home("rel", {"KANARY_HOME": "/x"}, below).path == below / "rel"
    assert find_home("~/k", {}, below).path == Path.home() / "k"


def test_a_lock_is_held_once_and_survives_the_deletion_of_its_file(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = take_lock(home)
    assert first is not None
    assert take_lock(home) is None
    remove_files(home)
    second = take_lock(home)
    assert second is not None
    os.close(first)
    assert take_lock(home) is None
    os.close(second)
    third = take_lock(home)
    assert third is not None
    os.close(third)


def test_json_files_are_replaced_whole_and_damaged_ones_read_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert read_json(path) == {"a": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["f.json"]
    for content in ("{", "[]", "\0"):
        path.write_text(content, encoding="utf-8")
        assert read_json(path) == {}


@pytest.mark.parametrize("module", ["sandbox.__main__", "sandbox.supervisor", "sandbox.kfp.server"])
def test_no_process_of_the_sandbox_itself_loads_a_heavy_package(module: str) -> None:
    heavy = "{'kfp', 'torch', 'pandas', 'numpy', 'kubernetes', 'httpx', 'google'}"
    code = f"import sys, {module}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_a_home_keeps_itself_out_of_git(tmp_path: Path) -> None:
    make_home(Home(tmp_path / "k"))
    assert (tmp_path / "k" / ".gitignore").read_text() == "*\n"


def test_a_process_is_known_by_its_start_time_too() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        process = process_of(child.pid)
        assert process is not None
        assert recorded(process.as_json()) == process
        for change in ({"start_time": process.start_time + 1}, {"boot": "another"}, {"pid": 2**22 + 1}, {"pid": "x"}):
            assert recorded({**process.as_json(), **change}) is None
        assert not send(type(process)(process.pid, process.start_time + 1, process.boot), signal.SIGKILL)
        assert child.poll() is None
        assert send(process, signal.SIGKILL)
        child.wait()
        assert not is_alive(process)
        assert not send(process, signal.SIGKILL)
        assert wait_gone([process], 0) == []


def test_marked_processes_are_found_wherever_they_hide_and_no_others(tmp_path: Path) -> None:
    def child(home: Path, part: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, HOME_MARK: str(home), PART_MARK: part}
        return subprocess.Popen(["sleep", "600"], env=environment, start_new_session=True)

    ours, other_part, other_home = child(tmp_path, "a"), child(tmp_path, "b"), child(tmp_path / "x", "a")
    try:
        # Between fork and exec a child has our own environment still.
        wait_for(lambda: len(marked(tmp_path)) == 2, "the children's environment")
        assert {process.pid for process in marked(tmp_path, "a")} == {ours.pid}
        assert {process.pid for process in marked(tmp_path)} == {ours.pid, other_part.pid}
        assert kill_marked(tmp_path, "a")
        assert ours.wait(60) == -signal.SIGKILL
        assert (other_part.poll(), other_home.poll()) == (None, None)
    finally:
        for process in (ours, other_part, other_home):
            process.kill()
            process.wait()


def test_placeholders_name_the_home_and_the_ports_of_every_part() -> None:
    ports = {"kfp": {"http": 1}, "gateway": {"http": 2, "admin": 3}}
    assert filled("{home}/x:{gateway.admin}:{kfp.http}", Path("/h"), ports) == "/h/x:3:1"
    assert filled('{"json": {}}', Path("/h"), ports) == '{"json": {}}'
    with pytest.raises(SandboxError, match=r"gateway\.none"):
        filled("{gateway.none}", Path("/h"), ports)
    plain, encrypted = (Part("gateway", (), ports["gateway"], scheme=scheme) for scheme in ("http", "https"))
    assert urls(plain, ports["gateway"]) == {"url": "http://127.0.0.1:2", "admin": "http://127.0.0.1:3"}
    assert urls(encrypted, ports["gateway"])["url"] == "https://127.0.0.1:2"


def test_a_port_is_the_preferred_one_or_a_free_one() -> None:
    free = choose_port(0, set())
    assert choose_port(free, set()) == free
    assert choose_port(free, {free}) != free


def test_what_nobody_waits_for_is_named_where_all_else_is_up(tmp_path: Path) -> None:
    make_home(Home(tmp_path))
    sleeps = (sys.executable, "-c", "import time; time.sleep(60)")
    parts = (Part("quick", sleeps), Part("late", sleeps, {"http": 0}, health="/ready", required=False))
    told = []

    def report(message: Mapping[str, object]) -> None:
        told.append(message)
        if "part" not in message:
            os.kill(os.getpid(), signal.SIGTERM)

    assert asyncio.run(Supervisor(Home(tmp_path), parts, report).run()) == ""
    assert [message.get("part", message) for message in told] == ["quick", {"up": True, "later": ["late"]}]
    assert marked(tmp_path) == []


def test_what_is_going_down_does_not_count_as_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, seen = Home(tmp_path), []
    make_home(home)
    part = Part("quick", (sys.executable, "-c", "import time; time.sleep(60)"))

    async def noted(running: PartProcess, seconds: float) -> None:
        seen.append(read_json(home.state)["up"])
        await stop(running, seconds)

    def report(message: Mapping[str, object]) -> None:
        if "up" in message:
            seen.append(read_json(home.state)["up"])
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(supervisor, "stop", noted)
    assert asyncio.run(Supervisor(home, (part,), report).run()) == ""
    assert seen == [True, False]


def test_down_ends_the_sandbox_that_it_found_and_none_that_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (subprocess.Popen(["sleep", "600"]) for _ in range(2))
    holders = [process_of(process.pid) for process in (first, second)]
    monkeypatch.setattr(lifecycle, "take_lock", lambda home: None)
    monkeypatch.setattr(lifecycle, "recorded", lambda value: holders.pop(0))
    try:
        assert lifecycle._lock_after_stop(Home(tmp_path)) is None
        assert first.wait(60) == -signal.SIGTERM
        assert second.poll() is None
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


async def test_logs_that_are_deleted_while_they_are_turned_over_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, turned = Home(tmp_path), []
    make_home(home)
    (home.logs / "servers").mkdir()
    (home.logs / "servers" / "ns.m.log").touch()

    def turn(path: Path) -> None:
        turned.append(path.name)
        shutil.rmtree(home.logs / "servers", ignore_errors=True)
        home.log("kfp").touch()

    monkeypatch.setattr(supervisor, "_ROTATE_EVERY_S", 0.01)
    monkeypatch.setattr(supervisor, "rotate", turn)
    turning = asyncio.create_task(Supervisor(home, (), lambda message: None)._rotate())
    async with asyncio.timeout(60):
        while "kfp.log" not in turned and not turning.done():
            await asyncio.sleep(0.01)
    assert not turning.done()
    turning.cancel()


def test_logs_are_bounded_and_readers_follow_them_through_rotation(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"one\n\ntwo")
    turns = iter([True, True, True, False])

    def goes_on() -> bool:
        again = next(turns)
        if again is False:
            with path.open("ab") as log:
                log.write(b" ends\nlast")
        return again

    reader = lines([path], goes_on)
    assert [line for _, line in (next(reader), next(reader))] == ["one", ""]
    assert not rotate(path, 100)
    assert [line for _, line in reader] == ["two ends", "last"]
    assert rotate(path, 10)
    assert (path.read_bytes(), (tmp_path / "x.log.1").read_bytes()) == (b"", b"one\n\ntwo ends\nlast")
    assert tail(tmp_path / "x.log.1", 2) == "two ends\nlast"
    assert tail(tmp_path / "none.log") == ""


def test_a_log_that_its_writer_opens_again_is_handed_over_whole(tmp_path: Path) -> None:
    path, told = tmp_path / "x.log", []
    path.write_bytes(b"one\n")
    with path.open("ab", buffering=0) as writer:
        assert not rotate(path, 100, reopen=lambda: told.append("early"))
        assert rotate(path, 3, reopen=lambda: told.append("now"))
        writer.write(b"two\n")  # before it has opened the new one
    assert (told, path.exists(), (tmp_path / "x.log.1").read_bytes()) == (["now"], False, b"one\ntwo\n")


def test_a_truncated_log_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"a long first line\n")
    answers = iter([True, False])
    reader = lines([path], lambda: next(answers))
    assert next(reader)[1] == "a long first line"
    path.write_bytes(b"new\n")
    assert [line for _, line in reader] == ["new"]
