"""A Kubernetes API as a process: a home of its own, a free port."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

START_SECONDS = 120.0


@dataclass(frozen=True)
class Server:
    """A running API. `client` carries the administrator's token."""

    process: subprocess.Popen[bytes]
    home: Path
    url: str
    token: str

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    def client(self, **headers: str) -> httpx.Client:
        client = httpx.Client(base_url=self.url, verify=False, timeout=30.0, trust_env=False)
        del client.headers["user-agent"]
        client.headers["authorization"] = f"Bearer {self.token}"
        client.headers.update(headers)
        return client


def start(home: Path, *options: str) -> Server:
    """Starts the API on a home and waits until it answers."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / "api.log"
    command = [sys.executable, "-P", "-m", "sandbox.kubernetes", "--home", str(home), *options]
    (home / "kubeconfig").unlink(missing_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": _root()})
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            config = yaml.safe_load((home / "kubeconfig").read_text(encoding="utf-8"))
            url, token = config["clusters"][0]["cluster"]["server"], config["users"][0]["user"]["token"]
            server = Server(process, home, url, token)
            with server.client() as client:
                client.get("/readyz").raise_for_status()
            return server
        except (OSError, httpx.TransportError):
            time.sleep(0.02)
    stop(process)
    raise AssertionError(log.read_text(encoding="utf-8"))


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _root() -> str:
    return str(Path(__file__).parents[2])
