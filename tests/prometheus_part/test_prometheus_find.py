"""Finding Prometheus: PATH, cache, package; atomically, and never beyond the deadline."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sandbox.prometheus import find as finder
from sandbox.prometheus.find import Found, find
from tests.waiting import wait_for


def script(path: Path, version: str) -> Path:
    """A program that says it is that version of Prometheus."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'prometheus, version {version} (branch: x)'\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def nothing_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PATH is one folder with a shell and nothing else, to be filled by the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_path_comes_before_the_cache(tmp_path: Path, nothing_on_path: Path) -> None:
    script(tmp_path / "cache" / "3.1.0" / "prometheus", "3.1.0")
    mine = script(nothing_on_path / "prometheus", "2.53.0")
    assert find(cache=tmp_path / "cache") == Found(mine, "2.53.0", "path")


@pytest.mark.usefixtures("nothing_on_path")
def test_the_newest_in_the_cache_that_runs_is_taken(tmp_path: Path) -> None:
    for version in ("2.9.1", "2.10.0"):
        script(tmp_path / version / "prometheus", version)
    broken = tmp_path / "3.0.0" / "prometheus"
    script(broken, "3.0.0").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    impostor = tmp_path / "4.0.0" / "prometheus"
    script(impostor, "").write_text("#!/bin/sh\necho something else\n", encoding="utf-8")
    assert find(cache=tmp_path) == Found(tmp_path / "2.10.0" / "prometheus", "2.10.0", "cache")


@pytest.mark.usefixtures("nothing_on_path")
def test_without_apt_there_is_none_and_a_line_says_how_to_install_one(tmp_path: Path) -> None:
    assert find(cache=tmp_path) is None
    assert "apt-get install prometheus" in finder.HOW_TO_INSTALL
    assert "\n" not in finder.HOW_TO_INSTALL


@pytest.mark.parametrize(("base", "expected"), [("/x", Path("/x/kanary/prometheus")), ("relative", None), ("", None)])
def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, base: str, expected: Path | None) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", base)
    assert finder.cache_folder() == (expected or Path.home() / ".cache" / "kanary" / "prometheus")


def working_in(folder: Path) -> list[str]:
    """The processes whose working folder is below `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str((process / "cwd").readlink()).startswith(str(folder)):
                found.append((process / "comm").read_text(encoding="utf-8"))
    return found


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get here")
def test_a_network_that_swallows_everything_is_given_up_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy)
        assert finder.from_package(tmp_path, time.monotonic() + 3) is None
    assert list(tmp_path.iterdir()) == []
    wait_for(lambda: not working_in(tmp_path), "what it started ends")


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="no dpkg here")
def test_a_part_that_is_stopped_while_it_fetches_leaves_nothing_behind(tmp_path: Path) -> None:
    tools, cache = tmp_path / "bin", tmp_path / "cache"
    tools.mkdir()
    for name in ("sh", "sleep", "dpkg", "dpkg-deb"):
        (tools / name).symlink_to(str(shutil.which(name)))
    endless = tools / "apt-get"
    endless.write_text("#!/bin/sh\nsleep 600\n", encoding="utf-8")
    endless.chmod(0o755)
    command = [sys.executable, "-P", "-m", "sandbox.prometheus", "--home", str(tmp_path / "home")]
    environment = os.environ | {
        "PATH": str(tools),
        "XDG_CACHE_HOME": str(cache),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    with subprocess.Popen([*command, "--port", "1", "--gateway-admin-port", "1"], env=environment) as part:
        wait_for(lambda: working_in(cache), "it fetches")
        part.terminate()
        assert part.wait(30) == 128 + signal.SIGTERM
    assert list((cache / "kanary" / "prometheus").iterdir()) == []
    wait_for(lambda: not working_in(cache), "what it started ends")


def package(folder: Path, version: str) -> Path:
    """Build what `_keep` gets: an unpacked package."""
    return script(folder / "usr" / "bin" / "prometheus", version)


def test_two_fetches_at_once_leave_one_whole_copy(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    unpacked = [package(cache / f".fetch-{number}", "2.42.0") for number in range(8)]
    found: list[Found | None] = []
    threads = [threading.Thread(target=lambda at=at: found.append(finder._keep(at, cache))) for at in unpacked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.binary for one in found if one} == {cache / "2.42.0" / "prometheus"}
    assert len([one for one in found if one]) == 8
    assert os.access(cache / "2.42.0" / "prometheus", os.X_OK)


def test_a_spoilt_copy_in_the_cache_is_replaced(tmp_path: Path) -> None:
    script(tmp_path / "2.42.0" / "prometheus", "2.42.0").write_text("", encoding="utf-8")
    kept = finder._keep(package(tmp_path / ".fetch-1", "2.42.0"), tmp_path)
    assert kept == Found(tmp_path / "2.42.0" / "prometheus", "2.42.0", "package")


def test_work_folders_of_killed_fetches_are_removed_after_an_hour(tmp_path: Path) -> None:
    old, young = tmp_path / ".fetch-old", tmp_path / ".fetch-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (time.time() - 7200,) * 2)
    finder._remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [young]
