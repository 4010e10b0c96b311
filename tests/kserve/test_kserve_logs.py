"""`kubectl logs` of a model server, with the options that an operator uses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sandbox import logtimes
from sandbox.kubernetes.logs import part
from sandbox.kubernetes.status import ApiError
from sandbox.kubernetes.storage import Stored
from tests.kserve.rig import DEADLINE_S, Namespace, wait

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on PATH")


def kubectl(ns: Namespace, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["kubectl", f"--kubeconfig={ns.sandbox.home / 'kubeconfig'}", "-n", ns.name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def pod(ns: Namespace) -> str:
    """The only pod, once it runs."""
    path = f"/api/v1/namespaces/{ns.name}/pods"
    wait(lambda: [(one.get("status") or {}).get("phase") for one in ns.items(path)] == ["Running"], "one pod runs")
    name: str = ns.items(path)[0]["metadata"]["name"]
    return name


@needs_kubectl
@pytest.mark.sandbox
def test_kubectl_shows_the_log_of_a_model_server_by_every_name_it_has(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    name = pod(ns)
    wait(lambda: kubectl(ns, "get", "deployment", "m-predictor-00001-deployment").returncode == 0, "a deployment")
    for asked in (
        (name,),
        (name, "-c", "kserve-container"),
        (name, "--tail=1"),
        (name, "--since=1h"),
        (name, "--all-containers"),
        ("-l", "serving.kserve.io/inferenceservice=m"),
        ("-l", "serving.knative.dev/revision=m-predictor-00001"),
        ("deployment/m-predictor-00001-deployment",),
    ):
        assert kubectl(ns, "logs", *asked).stdout == "serving one\n", asked
    assert kubectl(ns, "logs", name, "--limit-bytes=4").stdout == "serv"
    never = kubectl(ns, "logs", "-p", name)
    assert 'previous terminated container "kserve-container"' in never.stderr
    assert "is not valid for pod" in kubectl(ns, "logs", name, "-c", "other").stderr


@needs_kubectl
@pytest.mark.sandbox
def test_after_a_crash_the_log_is_the_new_processs_and_p_shows_the_one_before(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    name, log = pod(ns), Path(ns.servers()["m-predictor-00001"]["log"])
    with log.open("a") as file:
        file.write("the last words\n")
    os.kill(ns.servers()["m-predictor-00001"]["pid"], signal.SIGKILL)
    wait(lambda: "serving" not in kubectl(ns, "logs", "-p", name).stderr and _restarted(ns), "it runs again")
    wait(lambda: kubectl(ns, "logs", "-p", name).stdout == "serving one\nthe last words\n", "the previous log")
    wait(lambda: kubectl(ns, "logs", name).stdout == "serving one\n", "the log of the new process alone")


@needs_kubectl
@pytest.mark.sandbox
def test_a_log_can_be_followed(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    name, log = pod(ns), Path(ns.servers()["m-predictor-00001"]["log"])
    command = ["kubectl", f"--kubeconfig={ns.sandbox.home / 'kubeconfig'}", "-n", ns.name, "logs", "-f", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        try:
            assert following.stdout.readline() == "serving one\n"
            with log.open("a") as file:
                file.write("more\n")
            assert following.stdout.readline() == "more\n"
        finally:
            following.terminate()


def stored(log: str, restarts: int = 0) -> Stored:
    body = {
        "metadata": {"name": "p", "annotations": {"sandbox.kanary.dev/log": log}},
        "spec": {"containers": [{"name": "kserve-container"}]},
        "status": {"containerStatuses": [{"restartCount": restarts}]},
    }
    return Stored("ns", "p", 1, json.dumps(body).encode())


def test_since_starts_where_the_log_stood_at_the_last_note_before(tmp_path: Path) -> None:
    log, now = tmp_path / "m.log", time.time()
    log.write_bytes(b"x" * 1000)
    noted = [(now - 100, 0, True), (now - 50, 300, False), (now - 20, 700, False)]
    lines = [f'{{"time": {moment}, "offset": {at}, "life": {str(life).lower()}}}' for moment, at, life in noted]
    (tmp_path / "m.log.times").write_text("\n".join([*lines, "spoilt", ""]), encoding="utf-8")
    starts = {
        seconds: part(stored("m.log"), tmp_path, {"sinceSeconds": str(seconds)}, now).start
        for seconds in (10, 30, 60, 500)
    }
    assert starts == {10: 700, 30: 300, 60: 0, 500: 0}
    with pytest.raises(ApiError):
        part(stored("m.log"), tmp_path, {"sinceTime": "yesterday"}, now)


def test_notes_of_a_log_that_was_cut_are_forgotten(tmp_path: Path) -> None:
    log = tmp_path / "m.log"
    logtimes.mark(log)
    assert logtimes.marks(log) == []  # nothing has begun
    log.write_bytes(b"x" * 10)
    logtimes.begin(log)
    log.write_bytes(b"x" * 20)
    logtimes.mark(log)
    logtimes.mark(log)
    assert [(one.offset, one.life) for one in logtimes.marks(log)] == [(10, True), (20, False)]
    log.write_bytes(b"x" * 5)
    assert logtimes.marks(log) == []
    logtimes.begin(log)
    log.write_bytes(b"x" * 30)
    assert [one.offset for one in logtimes.marks(log)] == [5]


def _restarted(ns: Namespace) -> bool:
    server = ns.servers()["m-predictor-00001"]
    return bool(server["restarts"] == 1 and server["ready"])
