"""Set-up finds the right Python, says what is wrong where there is none, and survives being interrupted."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import environment as environments
from deploy import installing, setup
from deploy.environment import Environment, Failure, Interpreter
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = [sys.executable, "-E", "-s", "-m", "deploy.setup"]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "venv")


@pytest.fixture
def index() -> Iterator[str]:
    """A package index that answers every request."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def fake_python(folder: Path, name: str, answer: str) -> Path:
    """An executable that says of itself what `examine` asks for."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{answer}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def ready(environment: Environment, extras: set[str]) -> None:
    """Make it look like a finished set-up with these extras."""
    (environment.folder / "bin").mkdir(parents=True, exist_ok=True)
    for name in ("python", "kanary"):
        (environment.folder / "bin" / name).touch()
    environments.write_stamp(environment, "ready", extras, made=True)


def run(environment: Environment, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    given = {"PATH": os.environ["PATH"], "KANARY_VENV": str(environment.folder), **variables}
    return subprocess.run([*SCRIPT, *arguments], cwd=ROOT, env=given, capture_output=True, text=True)


def test_a_ready_environment_is_left_alone(environment: Environment) -> None:
    ready(environment, {"train", "sandbox"})
    answer = run(environment, "--extras", "sandbox")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


@pytest.mark.parametrize("change", ["extras", "inputs", "folder", "project", "state", "kanary"])
def test_it_is_ready_no_more_once_something_changed(environment: Environment, change: str) -> None:
    ready(environment, {"train"})
    assert environments.is_ready(environment, {"train"})
    if change == "kanary":
        (environment.folder / "bin" / "kanary").unlink()
    else:
        stamp = environments.read_stamp(environment)
        stamp[change] = [] if change == "extras" else "other"
        environment.stamp.write_text(json.dumps(stamp), encoding="utf-8")
    assert not environments.is_ready(environment, {"train"})


@pytest.mark.parametrize("stamp", ["", "{", "[]", "null", '{"state": "ready"}'])
def test_a_stamp_that_cannot_be_read_counts_as_none(environment: Environment, stamp: str) -> None:
    environment.folder.mkdir()
    environment.stamp.write_text(stamp, encoding="utf-8")
    assert not environments.is_ready(environment, set())


def test_a_folder_that_is_no_environment_is_refused_and_left_as_it_was(environment: Environment) -> None:
    environment.folder.mkdir()
    (environment.folder / "thesis.txt").write_text("dear", encoding="utf-8")
    answer = run(environment)
    assert answer.returncode == 1
    assert "is no virtual environment" in answer.stderr
    assert [path.name for path in environment.folder.iterdir()] == ["thesis.txt"]


def test_an_environment_of_the_users_own_is_not_emptied(environment: Environment) -> None:
    (environment.folder / "bin").mkdir(parents=True)
    (environment.folder / "pyvenv.cfg").touch()
    fake_python(environment.folder / "bin", "python", "echo CPython 3.9 True /usr/bin/python3.9")
    answer = run(environment)
    assert answer.returncode == 1
    assert "but not one with pip and Python 3.11 or 3.12" in answer.stderr
    assert (environment.folder / "pyvenv.cfg").exists()


def test_another_python_is_refused_by_name_with_a_way_to_get_one(environment: Environment, tmp_path: Path) -> None:
    old = fake_python(tmp_path / "bin", "python3.9", "echo CPython 3.9 True /usr/bin/python3.9")
    answer = run(environment, PYTHON=str(old))
    assert answer.returncode == 1
    assert "needs Python 3.11 or 3.12" in answer.stderr
    assert "/usr/bin/python3.9 is 3.9" in answer.stderr
    assert "apt install python3.12" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_python_without_venv_is_refused_with_the_package_that_mends_it(
    environment: Environment, tmp_path: Path
) -> None:
    bare = fake_python(tmp_path / "bin", "python3.12", "echo CPython 3.12 False /usr/bin/python3.12")
    answer = run(environment, PYTHON=str(bare))
    assert answer.returncode == 1
    assert "apt install python3.12-venv" in answer.stderr


def test_shims_that_do_not_run_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_python(tmp_path / "shims", "python3", "echo 'python3: command not found' >&2; exit 127")
    fake_python(tmp_path / "shims", "python3.12", "exit 127")
    fake_python(tmp_path / "old", "python3", "echo CPython 3.8 True /usr/bin/python3.8")
    fake_python(tmp_path / "new", "python3.11", "echo CPython 3.11 True /a folder/python3.11")
    monkeypatch.delenv("PYTHON", raising=False)
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / name) for name in ("shims", "old", "new", "none")))
    assert environments.find_python() == Interpreter("/a folder/python3.11", "3.11", True)


def test_the_sandbox_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    setup.refuse_platform({"train"})
    with pytest.raises(Failure, match="needs Linux or WSL2"):
        setup.refuse_platform({"train", "sandbox"})


def test_without_a_gpu_pytorchs_cpu_index_is_used_if_it_answers(
    environment: Environment, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "TORCH_CPU_INDEX", index)
    monkeypatch.setattr(installing, "has_nvidia_driver", lambda: False)
    assert installing.choose_torch(environment) == (["--extra-index-url", index], True)


def test_with_a_gpu_it_is_not_even_asked(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "TORCH_CPU_INDEX", "http://127.0.0.1:1")
    monkeypatch.setattr(installing, "has_nvidia_driver", lambda: True)
    assert installing.choose_torch(environment) == ([], False)


def test_a_package_that_was_interrupted_is_installed_again(environment: Environment) -> None:
    packages = environment.folder / "lib" / "python3.11" / "site-packages"
    for name in ("whole-1.dist-info", "half-1.dist-info"):
        (packages / name).mkdir(parents=True)
    (packages / "whole-1.dist-info" / "RECORD").touch()
    environments._forget_half_installed(environment)
    assert [path.name for path in packages.iterdir()] == ["whole-1.dist-info"]


def test_a_second_set_up_waits_for_the_first(environment: Environment) -> None:
    environment.folder.mkdir()
    with open(environment.lock, "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        variables = {"PATH": os.environ["PATH"], "KANARY_VENV": str(environment.folder)}
        second = subprocess.Popen(
            [*SCRIPT, "--extras", "train"], cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True
        )
        assert second.stdout is not None
        assert "another set-up" in second.stdout.readline()
        ready(environment, {"train"})
    assert second.communicate(timeout=120)[0] == ""
    assert second.returncode == 0


def copy_of_the_repository(to: Path) -> Path:
    """What a fresh clone of the tree as it stands would hold."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes((ROOT / name).read_bytes())
    return to


def index_is_reachable() -> bool:
    command = [sys.executable, "-m", "pip", "--no-input", "--retries", "1", "--timeout", "10"]
    return subprocess.run([*command, "index", "versions", "hatchling"], capture_output=True).returncode == 0


@pytest.mark.soak  # a minute, and CI sets itself up from nothing anyway
@pytest.mark.destructive
def test_set_up_from_an_empty_environment_survives_a_kill(tmp_path: Path) -> None:
    if not index_is_reachable():
        pytest.skip("no package index can be reached")
    # The space is what people's folders have.
    project = copy_of_the_repository(tmp_path / "my projects" / "kanary")
    (tmp_path / "home").mkdir()
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "LANG": "C.UTF-8"}
    command = ["make", "setup", "EXTRAS=sandbox"]

    with open(tmp_path / "first.log", "w+", encoding="utf-8") as log:
        first = subprocess.Popen(command, cwd=project, env=variables, stdout=log, stderr=log, start_new_session=True)
        packages = project / ".venv" / "lib"
        wait_for(
            lambda: first.poll() is not None or any(packages.glob("python*/site-packages/textual*")),
            "packages are being installed",
            deadline=300,
        )
        assert first.poll() is None, (tmp_path / "first.log").read_text(encoding="utf-8")
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        assert "to download" in (tmp_path / "first.log").read_text(encoding="utf-8")

    second = subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "ready in" in second.stdout
    third = subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True)
    assert (third.returncode, third.stdout, third.stderr) == (0, "", "")

    kanary = project / ".venv" / "bin" / "kanary"
    answer = subprocess.run([kanary, "--version"], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert answer.stdout.startswith("kanary "), answer.stderr
    check = [str(project / ".venv" / "bin" / "python"), "-m", "pip", "check"]
    checked = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_what_is_installed_is_compiled_and_what_cannot_be_harms_nothing(environment: Environment) -> None:
    packages = environment.folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    (environment.folder / "bin").mkdir()
    environment.python.symlink_to(sys.executable)
    (packages / "good.py").write_text("x = 1\n", encoding="utf-8")
    (packages / "template.py").write_text("{{ no python }}: (\n", encoding="utf-8")
    with (environment.folder / "lock").open("w", encoding="utf-8") as lock:
        installing.compile_modules(environment, lock.fileno())
    assert [path.name.partition(".")[0] for path in (packages / "__pycache__").iterdir()] == ["good"]


def test_an_interrupted_compilation_leaves_no_worker_that_keeps_the_lock(environment: Environment) -> None:
    working = environment.folder / "working"
    environment.folder.mkdir()
    fake_python(environment.folder / "bin", "python", f"sleep 300 & echo $! > {working}; wait")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def interrupt_once_it_works() -> None:
        wait_for(lambda: working.exists() and working.read_text(), "it works")
        os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, interrupt)
    with environment.lock.open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=interrupt_once_it_works)
        waiting.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                installing.compile_modules(environment, lock.fileno())
        finally:
            waiting.join()
            signal.signal(signal.SIGALRM, before)
    with environment.lock.open("w", encoding="utf-8") as lock:

        def taken() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        wait_for(taken, "nobody has the lock any more, as soon as the killed are gone")
