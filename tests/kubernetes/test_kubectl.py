"""kubectl, the real one, against the API: recorded commands in their order, and what a user does by hand."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kubernetes import differences
from tests.kubernetes.server import Server
from tests.waiting import wait_for

Body = dict[str, Any]
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]
VECTORS = json.loads((Path(__file__).parent / "vectors/kubectl.json").read_text(encoding="utf-8"))
COLLECTION = "/apis/serving.kserve.io/v1beta1/namespaces/kc/inferenceservices"
MERGE = {"Content-Type": "application/merge-patch+json"}
READY = {"status": {"url": "http://a.example.com", "conditions": [{"type": "Ready", "status": "True"}]}}
# What differs from run to run, and the stand-in for it.
NORMAL = (
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uid>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>"),
    (r"(resource ?[vV]ersion:?(=|: \"|\s+))(\d+|<rv>)", r"\1<rv>"),
    (r"(Resource Version:\s+)(\d+)", r"\1<rv>"),
    (r"(?m)(?<=\s)(\d+s|<age>)$", "<age>"),
    (r"timeoutSeconds=(\d+|<3 digits>)", "timeoutSeconds=<n>"),
    (r"hash=(\w+|<hash>)", "hash=<hash>"),
)

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on PATH")


def runner(server: Server, cache: Path) -> Kubectl:
    """Runs `kubectl ARGUMENTS`; with check=True a failure fails the test."""

    def run(
        arguments: str,
        stdin: str = "",
        *,
        check: bool = False,
        once_watching: Callable[[], object] | None = None,
        **more: str,
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig), "KUBECACHEDIR": str(cache), **more}
        command = ["kubectl", f"--cache-dir={cache}", *shlex.split(arguments)]
        if once_watching is not None:
            return watched(command, environment, once_watching)
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment, timeout=60)
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


def watched(
    command: list[str], environment: dict[str, str], once_watching: Callable[[], object]
) -> subprocess.CompletedProcess[str]:
    """Runs a command whose log says when its watch has begun, and then does the rest."""
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        log = ""
        for line in process.stderr:
            if "watch=true" in line and "watch=true" not in log:
                once_watching()
            log += line
        return subprocess.CompletedProcess(command, process.wait(60), process.stdout.read(), log)


@pytest.fixture(scope="module")
def recorded_server(tmp_path_factory: pytest.TempPathFactory, kube_start: Callable[..., Server]) -> Server:
    return kube_start(tmp_path_factory.mktemp("kubectl"), "--no-admission", "--namespace", "kc")


@pytest.fixture(scope="module")
def replayed(
    recorded_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> list[subprocess.CompletedProcess[str]]:
    """The recorded commands, each run after the one before, as when they were recorded."""
    run = runner(recorded_server, tmp_path_factory.mktemp("cache"))
    with recorded_server.client() as client:
        return [replay(vector, run, client) for vector in VECTORS]


def replay(vector: Body, run: Kubectl, client: httpx.Client) -> subprocess.CompletedProcess[str]:
    stdin = ""
    if "stdin" in vector:
        name, uri, *extra = vector["stdin"]
        stdin = (
            f"apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {{name: {name}}}\nspec: "
            f'{{predictor: {{model: {{modelFormat: {{name: pytorch}}, storageUri: "{uri}"}}{"".join(extra)}}}}}\n'
        )
    arguments = vector["command"].removeprefix("kubectl ")
    # The recorder did these while the command waited.
    meanwhile = None
    if "--timeout=10s" in arguments:
        meanwhile = partial(client.patch, f"{COLLECTION}/a/status", json=READY, headers=MERGE)
    if " -w " in arguments:
        change = {"metadata": {"labels": {"w": "1"}}}
        meanwhile = partial(client.patch, f"{COLLECTION}/a", json=change, headers=MERGE)
    return run(f"-v=6 {arguments}", stdin, once_watching=meanwhile)


def normal(text: str) -> str:
    for pattern, stand_in in NORMAL:
        text = re.sub(pattern, stand_in, text)
    return text.strip()


def without_log(stderr: str) -> str:
    return "\n".join(line for line in stderr.splitlines() if not re.match(r"[IEW]\d{4} ", line))


def requests_of(stderr: str) -> list[str]:
    """The requests that kubectl logged, in either of its log formats."""
    found = re.findall(r"\b(GET|POST|PUT|PATCH|DELETE) https?://[^/]+(/\S*) (\d+)", stderr)
    found += re.findall(r'verb="(\w+)" url="https?://[^/]+(/[^"]*)" status="(\d+)', stderr)
    return [normal(f"{method} {path} {status}") for method, path, status in found]


def recorded_requests(vector: Body) -> list[str]:
    short = {
        "v3": "GET /openapi/v3?timeout=32s 200",
        "v3-group": "GET /openapi/v3/apis/serving.kserve.io/v1beta1?hash=<hash>&timeout=32s 200",
    }
    return [normal(short.get(request, request.replace("@", COLLECTION, 1))) for request in vector["requests"]]


@pytest.mark.parametrize("index", range(len(VECTORS)), ids=[vector["command"][8:60] for vector in VECTORS])
def test_recorded_command(index: int, replayed: list[subprocess.CompletedProcess[str]]) -> None:
    vector, done = VECTORS[index], replayed[index]
    assert done.returncode == vector["exit"], done.stderr
    # Where the commands were recorded there was no diff program.
    if not vector["command"].startswith("kubectl diff"):
        assert normal(done.stdout) == normal(vector.get("stdout", ""))
    complaint = normal(without_log(done.stderr))
    assert complaint.startswith(normal(vector.get("stderr", "")))
    assert bool(complaint) == bool(vector.get("stderr"))
    made, recorded = requests_of(done.stderr), recorded_requests(vector)
    if vector["command"].startswith("kubectl describe"):
        # The terms of its field selector come in any order.
        made, recorded = made[:2], recorded[:2]
    assert made == recorded or vector["command"] in differences.KUBECTL


@pytest.fixture
def kubectl(kube: Server, namespace: str, tmp_path: Path) -> Kubectl:
    run = runner(kube, tmp_path / "cache")

    def inside(arguments: str, stdin: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
        return run(f"-n {namespace} {arguments}", stdin, **more)

    return inside


ISVC = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: m}
spec: {predictor: {model: {modelFormat: {name: pytorch}, storageUri: "s3://m/1"}}}
"""


def test_built_in_kinds_that_kubectl_sends_as_protobuf(kubectl: Kubectl) -> None:
    kubectl("create configmap c --from-literal=k=v", check=True)
    kubectl("create secret generic s --from-literal=k=v", check=True)
    kubectl("create serviceaccount bob", check=True)
    assert kubectl("get cm c -o jsonpath={.data.k}").stdout == "v"
    assert kubectl("get secret s -o jsonpath={.data.k}").stdout == "dg=="
    assert "Opaque" in kubectl("get secrets").stdout
    kubectl("""patch cm c -p '{"data": {"j": "w"}}'""", check=True)
    assert json.loads(kubectl("get cm c -o json").stdout)["data"] == {"k": "v", "j": "w"}


def test_who_am_i_and_may_i(kubectl: Kubectl) -> None:
    assert "admin" in kubectl("auth whoami").stdout
    assert kubectl("auth can-i delete isvc").stdout == "yes\n"


def test_apply_diff_and_edit(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("apply -f -", ISVC, check=True)
    changed = ISVC.replace("m/1", "m/2")
    differs = kubectl("diff -f -", changed)
    assert differs.returncode == 1
    assert "+      storageUri: s3://m/2" in differs.stdout or "diff" in differs.stderr
    kubectl("apply -f -", changed, check=True)
    assert "unchanged" in kubectl("apply -f -", changed).stdout
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nexec sed -i s,m/2,m/3, "$1"\n', encoding="utf-8")
    editor.chmod(0o700)
    kubectl("edit isvc m", check=True, EDITOR=str(editor))
    assert kubectl("get isvc m -o jsonpath={.spec.predictor.model.storageUri}").stdout == "s3://m/3"


def test_events_stand_in_the_description(kubectl: Kubectl, kube: Server, namespace: str) -> None:
    kubectl("apply -f -", ISVC, check=True)
    uid = kubectl("get isvc m -o jsonpath={.metadata.uid}").stdout
    about = {"kind": "InferenceService", "namespace": namespace, "name": "m", "uid": uid}
    event = {"metadata": {"generateName": "m-"}, "involvedObject": about, "type": "Warning", "reason": "RolledBack"}
    with kube.client() as client:
        client.post(f"/api/v1/namespaces/{namespace}/events", json=event | {"message": "too many errors"})
    assert re.search(r"Warning\s+RolledBack.*too many errors", kubectl("describe isvc m").stdout)
    assert "inferenceservice/m" in kubectl("get events").stdout
    assert "RolledBack" in kubectl("events").stdout


def test_waiting_for_a_condition_and_for_deletion(kubectl: Kubectl, kube: Server, namespace: str) -> None:
    kubectl("apply -f -", ISVC, check=True)
    path = COLLECTION.replace("/kc/", f"/{namespace}/")
    with kube.client() as client:
        helper = threading.Timer(0.2, client.patch, (f"{path}/m/status",), {"json": READY, "headers": MERGE})
        helper.start()
        kubectl("wait isvc/m --for=condition=Ready --timeout=50s", check=True)
        helper.join()
    kubectl("delete isvc m --wait=false", check=True)
    kubectl("wait isvc/m --for=delete --timeout=50s", check=True)


def test_a_watch_shows_changes_as_they_come(kubectl: Kubectl, kube: Server, namespace: str, tmp_path: Path) -> None:
    kubectl("apply -f -", ISVC, check=True)
    command = ["kubectl", f"--cache-dir={tmp_path}", "-n", namespace, "get", "isvc", "-w"]
    environment = {**os.environ, "KUBECONFIG": str(kube.kubeconfig)}
    path = COLLECTION.replace("/kc/", f"/{namespace}/")
    shown = tmp_path / "shown"
    with shown.open("w", encoding="utf-8") as output, kube.client() as client:
        watching = subprocess.Popen(command, stdout=output, env=environment)
        try:
            wait_for(lambda: shown.read_text(encoding="utf-8").count("\n") >= 2, "the first row")
            client.patch(f"{path}/m/status", json=READY, headers=MERGE).raise_for_status()
            wait_for(lambda: "http://a.example.com   True" in shown.read_text(encoding="utf-8"), "the changed row")
        finally:
            watching.terminate()
            watching.wait(60)


def test_logs_of_a_pod_come_from_the_file_it_names(kubectl: Kubectl, kube: Server, namespace: str) -> None:
    (kube.home / "logs").mkdir(exist_ok=True)
    (kube.home / "logs/m.log").write_text("one\ntwo\nthree\n", encoding="utf-8")
    pod = {
        "metadata": {"name": "m-1", "annotations": {"sandbox.kanary.dev/log": "logs/m.log"}},
        "spec": {"containers": [{"name": "kserve-container", "image": "x"}]},
    }
    with kube.client() as client:
        client.post(f"/api/v1/namespaces/{namespace}/pods", json=pod).raise_for_status()
    assert kubectl("logs m-1").stdout == "one\ntwo\nthree\n"
    assert kubectl("logs m-1 --tail=1").stdout == "three\n"


def test_everything_in_a_deleted_namespace_goes(kubectl: Kubectl, kube: Server, tmp_path: Path) -> None:
    outside = runner(kube, tmp_path / "other")
    outside("create namespace gone", check=True)
    outside("-n gone apply -f -", ISVC, check=True)
    outside("delete namespace gone --timeout=50s", check=True)
    assert "NotFound" in outside("get namespace gone").stderr
    assert "NotFound" in outside("-n gone get isvc m").stderr


def test_a_list_of_objects_is_created(kubectl: Kubectl, namespace: str) -> None:
    maps = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"listed-{n}"}} for n in (1, 2)]
    done = kubectl(f"-n {namespace} create -f -", json.dumps({"apiVersion": "v1", "kind": "List", "items": maps}))
    assert (done.stdout, done.stderr) == ("configmap/listed-1 created\nconfigmap/listed-2 created\n", "")


def test_a_version_that_is_not_served_is_named(kubectl: Kubectl, namespace: str) -> None:
    body = {"apiVersion": "serving.kserve.io/v9", "kind": "InferenceService", "metadata": {"name": "x"}}
    done = kubectl(f"-n {namespace} create -f -", json.dumps(body))
    assert 'no matches for kind "InferenceService" in version "serving.kserve.io/v9"' in done.stderr


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("isvc.spec", "FIELD: spec <Object>"),
        ("isvc.spec.predictor.minReplicas", "FIELD: minReplicas <integer>"),
        ("servingruntime.spec.supportedModelFormats", "FIELD: supportedModelFormats <[]Object>"),
        ("lease.spec", "FIELD: spec <LeaseSpec>"),
        ("isvc.kind", "Kind is a string value representing the REST resource"),
    ],
)
def test_fields_are_explained_with_their_types(field: str, shown: str, kubectl: Kubectl) -> None:
    assert shown in kubectl(f"explain {field}", check=True).stdout
