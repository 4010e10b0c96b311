"""The process: who may ask, what it writes, what it refuses to start on, what it never loads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.kubernetes.server import Server

COLLECTION = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices"
ROOT = Path(__file__).parents[2]


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "sandbox.kubernetes", *arguments]
    return subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120)


def test_an_unknown_token_is_401_and_none_is_403(kube: Server) -> None:
    with kube.client(authorization="Bearer nosuch") as client:
        refused = client.get(COLLECTION)
        assert (refused.status_code, refused.json()["reason"]) == (401, "Unauthorized")
    with kube.client() as client:
        del client.headers["authorization"]
        refused = client.get(f"{COLLECTION}/a")
        assert refused.status_code == 403
        assert 'User "system:anonymous" cannot get resource "inferenceservices"' in refused.json()["message"]
        assert 'cannot get path "/apis"' in client.get("/apis").json()["message"]
        assert client.get("/readyz").text == "ok"
        assert client.get("/version").json()["gitVersion"] == "v1.36.2"


def test_files_hold_secrets_for_their_owner_only(kube: Server) -> None:
    for name in ("kubeconfig", "kubernetes/token", "kubernetes/tls/server.key", "kubernetes/state.sqlite"):
        assert (kube.home / name).stat().st_mode & 0o077 == 0, name


def test_the_certificate_is_the_one_that_the_kubeconfig_trusts(kube: Server) -> None:
    import base64
    import ssl

    authority = yaml.safe_load(kube.kubeconfig.read_text(encoding="utf-8"))["clusters"][0]["cluster"]
    context = ssl.create_default_context(cadata=base64.b64decode(authority["certificate-authority-data"]).decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert httpx.get(f"{kube.url}/readyz", verify=context, trust_env=False).text == "ok"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{kube.url}/readyz", trust_env=False)


def test_a_token_file_names_users(tmp_path: Path, kube_start: Callable[..., Server]) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text('one,ann,u1,"dev,ops"\ntwo\n', encoding="utf-8")
    server = kube_start(tmp_path / "home", "--token-file", str(tokens))
    assert server.token == "one"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    with server.client() as client:
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        user = client.post(path, json=review).json()["status"]["userInfo"]
        assert user == {"username": "ann", "uid": "u1", "groups": ["dev", "ops", "system:authenticated"]}
        user = client.post(path, json=review, headers={"Authorization": "Bearer two"}).json()["status"]["userInfo"]
        assert user["groups"] == ["system:masters", "system:authenticated"]


def test_a_second_server_on_the_same_home_is_refused(kube: Server) -> None:
    done = launch("--home", str(kube.home))
    assert done.returncode == 1
    assert "held by another" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_said(kube: Server, tmp_path: Path) -> None:
    port = kube.url.rpartition(":")[2]
    done = launch("--home", str(tmp_path), "--port", port)
    assert done.returncode == 1
    assert f"port {port} cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_damaged_state_is_said_and_kept(tmp_path: Path) -> None:
    state = tmp_path / "kubernetes/state.sqlite"
    state.parent.mkdir()
    state.write_bytes(b"not a database" * 1000)
    done = launch("--home", str(tmp_path))
    assert done.returncode == 1
    assert "is damaged" in done.stderr
    assert "Move it away" in done.stderr
    assert state.read_bytes() == b"not a database" * 1000


def test_nothing_heavy_is_loaded() -> None:
    heavy = {"kserve", "kubernetes", "torch", "kfp", "pandas", "numpy", "pydantic", "cryptography", "httpx"}
    code = "import sys, sandbox.kubernetes.__main__; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert heavy & set(done.stdout.split()) == set()


def test_two_writers_lose_nothing(kube: Server, namespace: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    path = f"/api/v1/namespaces/{namespace}/configmaps"

    def count(times: int) -> int:
        conflicts = 0
        with kube.client() as client:
            while times:
                body: dict[str, Any] = client.get(f"{path}/counter").json()
                body["data"]["n"] = str(int(body["data"]["n"]) + 1)
                answer = client.put(f"{path}/counter", json=body)
                assert answer.status_code in (200, 409), answer.text
                times -= answer.status_code == 200
                conflicts += answer.status_code == 409
        return conflicts

    with kube.client() as client, ThreadPoolExecutor(4) as pool:
        client.post(path, json={"metadata": {"name": "counter"}, "data": {"n": "0"}}).raise_for_status()
        list(pool.map(count, [50] * 4))
        assert client.get(f"{path}/counter").json()["data"]["n"] == "200"


def test_people_get_indented_json(kube: Server) -> None:
    with kube.client(**{"user-agent": "curl/8"}) as client:
        assert client.get("/api/v1/namespaces").text.startswith('{\n  "')
        assert json.loads(client.get("/api/v1/namespaces?pretty=false").text)["kind"] == "NamespaceList"
