"""A sandbox whose disk is full: traffic goes on, what is killed comes back, nothing is lost, changes are refused.

The home lies on a small file system of its own; where none may be mounted these tests are skipped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.home import Home, read_json
from sandbox.modelserver.client import HostUnreachable, servers
from sandbox.processes import marked
from tests.kserve.rig import RUNTIME
from tests.rollout.rig import ROOT, Sandbox, sandbox
from tests.sandbox.load import Load
from tests.waiting import wait_for

pytestmark = pytest.mark.destructive

PARTS = ("kserve", "kubernetes", "kfp", "gateway", "modelserver")
_SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"
_RUNTIMES = "/apis/serving.kserve.io/v1alpha1/clusterservingruntimes"
_CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


class Disk:
    """A file system of 96 MiB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Until not one byte is left."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        ballast.write(b"\0" * size)
                except OSError:
                    continue

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=96m", "none", str(path)]
    done = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield Disk(path)
    subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def running(disk: Disk) -> Iterator[Sandbox]:
    with sandbox(disk.path / "home") as found:
        yield found
        disk.free()
    assert marked(found.home) == []


def api(running: Sandbox) -> httpx.Client:
    config = json.loads(running.kubeconfig.read_text(encoding="utf-8"))
    token = config["users"][0]["user"]["token"]
    url = config["clusters"][0]["cluster"]["server"]
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, verify=False, timeout=60)


def service(model: Path) -> dict[str, Any]:
    predictor = {"model": {"modelFormat": {"name": "fake"}, "storageUri": str(model)}}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "m"},
        "spec": {"predictor": predictor},
    }


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": "x" * 20_000}}


def server(home: Path) -> dict[str, Any]:
    try:
        return next(iter(servers(home)), {"pid": 0, "ready": False})
    except HostUnreachable:
        return {"pid": 0, "ready": False}


def part(home: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(Home(home).state)["parts"][name]
    return found


def models(folder: Path) -> list[Path]:
    for version in ("one", "two"):
        (folder / version).mkdir()
        (folder / version / "version").write_text(version, encoding="utf-8")
    return [folder / "one", folder / "two"]


def test_on_a_full_disk_traffic_goes_on_and_changes_are_refused_until_there_is_room(
    disk: Disk, running: Sandbox, tmp_path: Path
) -> None:
    one, two = models(tmp_path)
    home = running.home
    with api(running) as client:
        assert client.post(_RUNTIMES, json=RUNTIME).is_success
        assert client.post(_SERVICES, json=service(one)).is_success
        wait_for(lambda: server(home)["ready"], "the model server", 60)
        load = Load(f"{running.gateway}/serving/default/m/v1/models/m:predict", b'{"instances": [1]}', rate=50)
        wait_for(lambda: httpx.post(load.url, content=load.body, timeout=60).status_code == 200, "the route")
        stored = client.get(f"{_SERVICES}/m").json()["metadata"]["uid"]
        with load:
            disk.fill()
            refused = wait_for(lambda: refusal(client), "no room for a change")
            assert (refused["code"], "full" in refused["message"]) == (500, True), refused
            assert client.get(f"{_SERVICES}/m").json()["metadata"]["uid"] == stored
            before = server(home)
            in_flight = load.kill(before["pid"])
            wait_for(lambda: server(home)["ready"] and server(home)["pid"] != before["pid"], "the server is back")
            os.kill(part(home, "modelserver")["pid"], signal.SIGKILL)
            wait_for(lambda: server(home)["ready"], "the host is back")
            assert server(home)["port"] == before["port"]
            seen = sum(load.answered.values())
            wait_for(lambda: sum(load.answered.values()) > seen + 50, "requests on a full disk")
            for name in ("kserve", "kubernetes", "kfp"):
                os.kill(part(home, name)["pid"], signal.SIGKILL)
            wait_for(lambda: sum(load.answered.values()) > seen + 100, "requests without them")
            disk.free()
            wait_for(lambda: {part(home, name)["state"] for name in PARTS} == {"healthy"}, "all is healthy", 60)
            wait_for(lambda: answers(client, "late"), "changes are taken again")
            assert client.get(f"{_SERVICES}/m").json()["metadata"]["uid"] == stored
            patch = {"spec": {"predictor": {"model": {"storageUri": str(two)}}}}
            merge = {"content-type": "application/merge-patch+json"}
            assert client.patch(f"{_SERVICES}/m", content=json.dumps(patch), headers=merge).is_success
            wait_for(lambda: load.answered["m-predictor-00002"] > 10, "the next revision", 60)
    print(f"\nfull disk: answered {sum(load.answered.values())}, failed {dict(load.failed) or 0}")
    # Those in flight when the server was killed, twice where nobody knew of it.
    assert load.failures <= in_flight + 10, load.failed
    assert not any(path.name.startswith(".state.json.") for path in home.iterdir())


def refusal(client: httpx.Client) -> dict[str, Any]:
    """What a change is refused with; empty where it was taken: a database may have had some room in it."""
    answer = client.post(_CONFIG_MAPS, json=config_map(f"filler-{time.monotonic_ns()}"))
    found: dict[str, Any] = answer.json() if answer.is_error else {}
    return found


def answers(client: httpx.Client, name: str) -> bool:
    try:
        return client.post(_CONFIG_MAPS, json=config_map(name)).status_code in (201, 409)
    except httpx.TransportError:
        return False


def test_up_on_a_full_disk_says_so_and_leaves_nothing(disk: Disk) -> None:
    home = disk.path / "home"
    disk.fill()
    command = [sys.executable, "-P", "-m", "sandbox", "up", "--home", str(home)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert shown.returncode == 1, shown.stdout
    assert "No space left on device" in shown.stdout + shown.stderr
    assert "Traceback" not in shown.stdout + shown.stderr
    assert marked(home) == []
