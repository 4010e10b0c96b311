from __future__ import annotations

import contextlib
import json
import os
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest

from kanary import config
from kanary.errors import ConfigError
from kanary.kubeconfig import Credentials, access, from_files, from_pod


def kubeconfig(
    path: Path, name: str = "a", user: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None
) -> Path:
    document = {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": f"ns-{name}"}}],
        "clusters": [{"name": name, "cluster": {"server": f"http://{name}.example"} | (cluster or {})}],
        "users": [{"name": name, "user": user or {}}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def plugin(folder: Path, script: str, version: str = "v1") -> dict[str, Any]:
    path = folder / "plugin"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    env = [{"name": "REGION", "value": "eu"}]
    api = f"client.authentication.k8s.io/{version}"
    return {"exec": {"apiVersion": api, "command": str(path), "env": env, "installHint": "get it"}}


def credential(token: str, expires: str = "") -> str:
    status = {"token": token} | ({"expirationTimestamp": expires} if expires else {})
    return json.dumps({"kind": "ExecCredential", "status": status})


def settings(cwd: Path, **environ: str) -> config.Config:
    return config.load({}, {"HOME": str(cwd)} | environ, cwd)


def test_the_current_context_and_its_namespace(tmp_path: Path) -> None:
    found = from_files([kubeconfig(tmp_path / "c", user={"token": "t"})])
    assert (found.url, found.namespace, found.context) == ("http://a.example", "ns-a", "a")
    assert found.credentials.header() == "Bearer t"


def test_yaml_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_text(
        "current-context: a\ncontexts: [{name: a, context: {cluster: a}}]\n"
        "clusters: [{name: a, cluster: {server: 'http://h/'}}]\n",
        encoding="utf-8",
    )
    found = from_files([path])
    assert (found.url, found.namespace, found.credentials.header()) == ("http://h", "default", "")


def test_of_several_files_the_first_wins_and_one_may_be_missing(tmp_path: Path) -> None:
    paths = [tmp_path / "none", kubeconfig(tmp_path / "1", "a"), kubeconfig(tmp_path / "2", "b")]
    assert from_files(paths).context == "a"
    assert from_files(paths, "b").url == "http://b.example"


def test_a_context_that_is_not_there_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no context 'prod'") as error:
        from_files([kubeconfig(tmp_path / "c")], "prod")
    assert "Its contexts: a." in error.value.hint


def test_paths_are_seen_from_the_kubeconfigs_folder(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "token").write_text("from-file\n", encoding="utf-8")
    found = from_files([kubeconfig(tmp_path / "k" / "c", user={"tokenFile": "token"})])
    assert found.credentials.header() == "Bearer from-file"


@pytest.mark.parametrize("version", ["v1beta1", "v1"])
def test_an_exec_plugin_is_asked_once_until_its_token_expires(tmp_path: Path, version: str) -> None:
    count = tmp_path / "count"
    script = f"echo $REGION >> {count}\necho '{credential('x', '2999-01-01T00:00:00Z')}'"
    credentials = Credentials(plugin(tmp_path, script, version))
    assert [credentials.header(), credentials.header()] == ["Bearer x", "Bearer x"]
    assert count.read_text(encoding="utf-8") == "eu\n"
    assert credentials.forget()
    credentials.header()
    assert count.read_text(encoding="utf-8") == "eu\neu\n"


def test_an_expired_token_is_asked_for_again(tmp_path: Path) -> None:
    count = tmp_path / "count"
    credentials = Credentials(plugin(tmp_path, f"echo >> {count}\necho '{credential('x', '2020-01-01T00:00:00Z')}'"))
    credentials.header()
    credentials.header()
    assert len(count.read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.parametrize(
    ("script", "said"), [("echo broken >&2; exit 1", "failed: broken"), ("echo '{}'", "gave no token")]
)
def test_a_plugin_that_fails_is_named_with_its_hint(tmp_path: Path, script: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        Credentials(plugin(tmp_path, script)).header()
    assert error.value.hint == "get it" or said.startswith("gave")


def test_a_plugin_that_is_not_installed_is_named(tmp_path: Path) -> None:
    absent = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(tmp_path / "absent")}}
    with pytest.raises(ConfigError, match="cannot be run"):
        Credentials(absent).header()


def test_basic_credentials() -> None:
    assert Credentials({"username": "u", "password": "p"}).header() == "Basic dTpw"


def test_a_broken_certificate_is_told(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "c", cluster={"server": "https://h", "certificate-authority-data": "bm90IG9uZQ=="})
    with pytest.raises(ConfigError, match="certificate"):
        from_files([path])


def test_verification_is_left_out_only_where_the_kubeconfig_says_so(tmp_path: Path) -> None:
    trusting = from_files(
        [kubeconfig(tmp_path / "c", cluster={"server": "https://h", "insecure-skip-tls-verify": True})]
    )
    careful = from_files([kubeconfig(tmp_path / "d", cluster={"server": "https://h"})])
    assert isinstance(trusting.tls, ssl.SSLContext)
    assert isinstance(careful.tls, ssl.SSLContext)
    assert trusting.tls.verify_mode == ssl.CERT_NONE
    assert careful.tls.verify_mode == ssl.CERT_REQUIRED


def test_a_server_s_certificate_is_checked_however_its_scheme_is_spelt(tmp_path: Path) -> None:
    found = from_files([kubeconfig(tmp_path / "c", cluster={"server": "HTTPS://h"})])
    assert isinstance(found.tls, ssl.SSLContext)
    assert found.tls.verify_mode == ssl.CERT_REQUIRED
    assert from_files([kubeconfig(tmp_path / "d", cluster={"server": "HTTP://h"})]).tls is False


def test_what_connects_does_not_change_what_other_threads_connect_with(tmp_path: Path) -> None:
    """While one thread sets a context's protocols, as httpx does for each connection, another one reads them."""
    tls = from_files([kubeconfig(tmp_path / "a", cluster={"server": "https://h"})]).tls
    assert isinstance(tls, ssl.SSLContext)
    tls.set_alpn_protocols(["whatever"])
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="h").do_handshake()
    hello = sent.read()
    assert (b"\x08http/1.1" in hello, b"whatever" in hello) == (True, False)


@pytest.mark.parametrize("text", ["", "[]", "{", "a: b: c"])
def test_what_is_no_kubeconfig_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=str(path)):
        from_files([path])


def test_the_setting_wins_over_the_sandbox_and_that_over_the_users_own(tmp_path: Path) -> None:
    kubeconfig(tmp_path / ".kube" / "config", "own")
    assert access(settings(tmp_path), {"HOME": str(tmp_path)}).context == "own"
    kubeconfig(tmp_path / ".kanary" / "kubeconfig", "sandbox")
    stopped = access(settings(tmp_path), {"HOME": str(tmp_path)})
    assert stopped.context == "own", "its kubeconfig stays when the sandbox stops"
    (tmp_path / ".kanary" / "endpoints.json").write_text("{}", encoding="utf-8")
    assert access(settings(tmp_path), {"HOME": str(tmp_path)}).context == "sandbox"
    given = settings(tmp_path, KUBECONFIG=str(kubeconfig(tmp_path / "given", "given")))
    assert access(given, {"HOME": str(tmp_path)}).context == "given"


def test_with_nothing_to_be_found_what_to_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No Kubernetes API is known") as error:
        access(settings(tmp_path), {"HOME": str(tmp_path)})
    assert "kanary up" in error.value.hint


def test_a_pods_own_account(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("team\n", encoding="utf-8")
    (tmp_path / "token").write_text("abc", encoding="utf-8")
    (tmp_path / "ca.crt").write_bytes(Path(ssl.get_default_verify_paths().cafile or certificates()).read_bytes())
    found = from_pod({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path)
    assert (found.url, found.namespace) == ("https://[fd00::1]:443", "team")
    assert found.credentials.header() == "Bearer abc"


def certificates() -> str:
    import certifi

    return certifi.where()


def test_nothing_of_a_client_certificate_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    user = {"client-certificate-data": "eA==", "client-key-data": "eA=="}
    with pytest.raises(ConfigError, match="certificate"):
        from_files([kubeconfig(tmp_path / "c", user=user, cluster={"server": "https://h"})])
    assert os.listdir(tmp_path / "tmp") == []
