"""Where the Kubernetes API is and how to enter it: kubeconfig files, the running sandbox's, a pod's own account.

Our own reader: lightkube's refuses exec plugins of `client.authentication.k8s.io/v1`, reads one file only, and brings
an HTTP library of its own. Reads files, runs the exec plugin that a kubeconfig names; never writes.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kanary.config import Config
from kanary.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_EXEC_SECONDS = 60.0
_TOKEN_SECONDS = 60.0  # a pod's token is replaced on disk long before it expires


@dataclass(frozen=True)
class Access:
    """One API server: its URL, whom to trust, how to say who is asking. `namespace` is the context's own."""

    url: str
    namespace: str
    context: str
    source: str  # the file, or "pod", for messages
    tls: ssl.SSLContext | bool = True
    server_name: str = ""
    proxy: str = ""
    credentials: Credentials = field(default_factory=lambda: Credentials({}))


class Credentials:
    """The Authorization header of one user; read again when it has expired or was refused."""

    def __init__(self, user: Mapping[str, Any]) -> None:
        self._user = user
        self._value = ""
        self._expires = 0.0

    def header(self) -> str:
        """The header's value, empty for none. Raises ConfigError."""
        if time.time() >= self._expires:
            self._value, self._expires = _authorization(self._user)
        return self._value

    def forget(self) -> bool:
        """Drops what is remembered; false where reading again cannot give anything else."""
        self._expires = 0.0
        return "exec" in self._user or "tokenFile" in self._user


def access(config: Config, environ: Mapping[str, str] | None = None) -> Access:
    """The API server of the settings: --kubeconfig or KUBECONFIG, else the sandbox's, else the user's, else the pod's.

    Raises ConfigError where there is none, or it cannot be used.
    """
    environ = os.environ if environ is None else environ
    if config.kubeconfig:
        return from_files([Path(part) for part in config.kubeconfig.split(os.pathsep)], config.context)
    home = Path(environ.get("HOME") or Path.home()) / ".kube" / "config"
    sandbox = config.home / "kubeconfig"
    # The sandbox removes endpoints.json when it stops; its kubeconfig stays.
    for path in ([sandbox] if (config.home / "endpoints.json").exists() else []) + [home]:
        if path.exists():
            return from_files([path], config.context)
    if environ.get("KUBERNETES_SERVICE_HOST") and SERVICE_ACCOUNT.exists():
        return from_pod(environ)
    raise ConfigError(
        "No Kubernetes API is known: no kubeconfig is set, no sandbox is running, ~/.kube/config does not exist.",
        "Set KUBECONFIG or --kubeconfig, or start the sandbox: `kanary up`.",
    )


def from_pod(environ: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Access:
    """The cluster that this process runs in, as its pod's service account."""
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        namespace = (folder / "namespace").read_text(encoding="utf-8").strip()
        tls = _for_threads(ssl.create_default_context(cafile=str(folder / "ca.crt")))
    except OSError as error:
        raise ConfigError(f"The pod's service account in {folder} cannot be read: {error}") from error
    url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access(url, namespace, "", "pod", tls, credentials=Credentials({"tokenFile": str(folder / "token")}))


def from_files(paths: list[Path], context: str = "") -> Access:
    """The server of `context`, or of the current one. Of several files the first that names a thing wins."""
    where = os.pathsep.join(map(str, paths))
    found: dict[str, dict[str, Any]] = {"clusters": {}, "users": {}, "contexts": {}}
    current = context
    for path in paths:
        document = _read(path, optional=len(paths) > 1)
        current = current or str(document.get("current-context") or "")
        for kind, named in found.items():
            for entry in document.get(kind) or []:
                content = entry.get(kind[:-1]) or {}
                named.setdefault(str(entry.get("name")), _absolute(content, path.parent))
    if current not in found["contexts"]:
        names = ", ".join(found["contexts"]) or "none"
        raise ConfigError(f"There is no context {current!r} in {where}.", f"Its contexts: {names}. Set --context.")
    chosen = found["contexts"][current]
    cluster = found["clusters"].get(chosen.get("cluster"))
    if not cluster or not cluster.get("server"):
        raise ConfigError(f"Context {current!r} in {where} names no cluster with a server.", "Mend the kubeconfig.")
    user = found["users"].get(chosen.get("user")) or {}
    return Access(
        str(cluster["server"]).rstrip("/"),
        chosen.get("namespace") or "default",
        current,
        where,
        _tls(cluster, user, where),
        cluster.get("tls-server-name") or "",
        cluster.get("proxy-url") or "",
        Credentials(user),
    )


def _read(path: Path, optional: bool) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        # The sandbox's and many tools' are JSON, which is read fifty times faster, and needs no yaml.
        document = json.loads(text) if text.lstrip().startswith("{") else _yaml(text)
    except FileNotFoundError as error:
        if optional:
            return {}
        raise ConfigError(f"The kubeconfig {path} does not exist.", "Set KUBECONFIG or --kubeconfig.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"The kubeconfig {path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is no kubeconfig.", "Set KUBECONFIG or --kubeconfig to one.")
    return document


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _absolute(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`content` with its files' paths seen from the folder of its kubeconfig."""
    files = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
    return {k: str(folder / str(v)) if k in files and v else v for k, v in content.items()}


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], where: str) -> ssl.SSLContext | bool:
    if urlsplit(str(cluster["server"])).scheme == "http":
        return False
    try:
        authority = cluster.get("certificate-authority-data")
        made = ssl.create_default_context(
            cafile=cluster.get("certificate-authority") or None,
            cadata=base64.b64decode(authority).decode("ascii") if authority else None,
        )
        if cluster.get("insecure-skip-tls-verify"):
            made.check_hostname = False
            made.verify_mode = ssl.CERT_NONE
        _load_client_certificate(made, user)
    except (OSError, ValueError) as error:
        raise ConfigError(f"A certificate of the kubeconfig {where} cannot be used: {error}") from error
    return _for_threads(made)


def _for_threads(made: ssl.SSLContext) -> ssl.SSLContext:
    """`made`, for handshakes of several threads at once.

    Before each of them httpx sets anew which protocols it speaks, and OpenSSL frees what another thread is reading: its
    first message is garbage then, and the server hangs up. They are set once, here.
    """
    made.set_alpn_protocols(["http/1.1"])
    made.set_alpn_protocols = lambda alpn_protocols: None  # type: ignore[method-assign]
    return made


def _load_client_certificate(tls: ssl.SSLContext, user: Mapping[str, Any]) -> None:
    if user.get("client-certificate-data"):
        # OpenSSL reads certificates from files only.
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = Path(folder, "certificate"), Path(folder, "key")
            certificate.write_bytes(base64.b64decode(user["client-certificate-data"]))
            key.touch(mode=0o600)
            key.write_bytes(base64.b64decode(user.get("client-key-data") or ""))
            tls.load_cert_chain(certificate, key)
    elif user.get("client-certificate"):
        tls.load_cert_chain(user["client-certificate"], user.get("client-key"))


def _authorization(user: Mapping[str, Any]) -> tuple[str, float]:
    """The header's value and until when (seconds since the epoch) it holds."""
    if user.get("tokenFile"):
        try:
            token = Path(user["tokenFile"]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The token file {user['tokenFile']} cannot be read: {error}") from error
        return f"Bearer {token}", time.time() + _TOKEN_SECONDS
    if user.get("token"):
        return f"Bearer {user['token']}", float("inf")
    if user.get("exec"):
        return _from_plugin(user["exec"])
    if user.get("username"):
        pair = base64.b64encode(f"{user['username']}:{user.get('password', '')}".encode()).decode()
        return f"Basic {pair}", float("inf")
    if user.get("auth-provider"):
        raise ConfigError("The kubeconfig uses auth-provider, which Kubernetes has removed.", "Use an exec plugin.")
    return "", float("inf")


def _from_plugin(plugin: Mapping[str, Any]) -> tuple[str, float]:
    version, command = plugin.get("apiVersion"), [str(plugin.get("command")), *(plugin.get("args") or [])]
    extra = {str(entry["name"]): str(entry["value"]) for entry in plugin.get("env") or []}
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    environment = os.environ | extra | {"KUBERNETES_EXEC_INFO": json.dumps(info)}
    hint = str(plugin.get("installHint") or "Run it by hand to see what is wrong.")
    try:
        ran = subprocess.run(command, env=environment, capture_output=True, timeout=_EXEC_SECONDS, check=True)
        status = json.loads(ran.stdout)["status"]
        token = status["token"]
        expires = status.get("expirationTimestamp")
        until = datetime.fromisoformat(expires).timestamp() - 10 if expires else float("inf")
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()[-500:]
        raise ConfigError(f"The credential plugin {command[0]} failed: {said}", hint) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"The credential plugin {command[0]} cannot be run: {error}", hint) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"The credential plugin {command[0]} gave no token.", hint) from error
    return f"Bearer {token}", until
