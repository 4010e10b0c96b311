"""Every file in which a sandbox keeps state, damaged while nothing runs: what `up` then does about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from sandbox.home import Home, read_json
from sandbox.processes import kill_marked, marked, recorded, send, wait_gone
from tests.kserve.rig import RUNTIME
from tests.rollout.rig import ROOT, Sandbox, sandbox
from tests.sandbox.test_full_disk import _RUNTIMES, _SERVICES, api, models, service
from tests.waiting import wait_for

pytestmark = pytest.mark.destructive

# What the sandbox can do without: it is made again from the rest, or put aside.
MENDED = (
    "state.json",
    "endpoints.json",
    "lock",
    "kubeconfig",
    "gateway/bootstrap.json",
    "gateway/clusters/*",
    "gateway/routes/*",
    "modelserver/servers.json",
    "modelserver/processes.json",
    "kserve/controller.sqlite*",
    "prometheus/prometheus.yml",
    "prometheus/targets/*",
)
GARBAGE = b"\0{garbage" * 1000


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "sandbox", *words, "--home", str(home)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def kill_everything(home: Path) -> None:
    supervisor = recorded(read_json(Home(home).state).get("supervisor"))
    if supervisor is not None:
        send(supervisor, signal.SIGKILL)
        assert wait_gone([supervisor], 60) == []
    # Again and again: who is killed last may have started another one of those that were killed before.
    assert kill_marked(home, seconds=60)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Sandbox]:
    with sandbox(tmp_path / "home") as found:
        yield found
    assert marked(found.home) == []


def answer(running: Sandbox) -> str:
    try:
        url = f"{running.gateway}/serving/default/m/v1/models/m:predict"
        return httpx.post(url, content=b'{"instances": [1]}', timeout=30).text
    except (OSError, httpx.TransportError):
        return ""


def test_damaged_files_are_made_again_and_the_service_answers(running: Sandbox, tmp_path: Path) -> None:
    one, _ = models(tmp_path)
    with api(running) as client:
        assert client.post(_RUNTIMES, json=RUNTIME).is_success
        assert client.post(_SERVICES, json=service(one)).is_success
        uid = client.get(f"{_SERVICES}/m").json()["metadata"]["uid"]
    wait_for(lambda: '"one"' in answer(running), "the first answer", 60)
    kill_everything(running.home)
    for pattern in MENDED:
        found = [path for path in running.home.glob(pattern) if path.is_file()]
        assert found or pattern.startswith("prometheus/"), f"there is no {pattern} any more"
        for path in found:
            path.write_bytes(GARBAGE)
    up = run(running.home, "up")
    assert up.returncode == 0, up.stdout + up.stderr
    wait_for(lambda: '"one"' in answer(running), "it answers again", 60)
    with api(running) as client:
        assert client.get(f"{_SERVICES}/m").json()["metadata"]["uid"] == uid


def test_the_damaged_database_of_the_cluster_is_named_and_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    path = home / "kubernetes" / "state.sqlite"
    path.parent.mkdir(parents=True)
    path.write_bytes(GARBAGE)
    up = run(home, "up")
    shown = up.stdout + up.stderr
    assert up.returncode == 1, shown
    assert "kubernetes did not start" in shown
    assert str(path) in shown
    assert "Traceback" not in shown
    assert path.read_bytes() == GARBAGE
    assert marked(home) == []
