"""The sandbox's KServe in processes of its own: Kubernetes API, Envoy, model server host and controller on one home."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from sandbox.modelserver.client import servers
from sandbox.processes import kill_marked, marked
from tests.gateway.rig import Client, Envoy, Load
from tests.waiting import wait_for

Document = dict[str, Any]
DEADLINE_S = 60.0
_ROOT = Path(__file__).parents[2]
_SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices"
_MERGE = {"content-type": "application/merge-patch+json"}
RUNTIME = {
    "apiVersion": "serving.kserve.io/v1alpha1",
    "kind": "ClusterServingRuntime",
    "metadata": {"name": "fake", "annotations": {"kanary.dev/preload": "http.server,argparse"}},
    "spec": {
        "supportedModelFormats": [{"name": "fake", "version": "1", "autoSelect": True}],
        "protocolVersions": ["v1", "v2"],
        "containers": [
            {
                "name": "kserve-container",
                "image": "localhost/fake:1",
                "command": ["python3", "-m", "tests.kserve.fake_server"],
                "args": ["--http_port=8080", "--model_name={{.Name}}", "--model_dir=/mnt/models"],
            }
        ],
    },
}


class Sandbox:
    """All four parts. `scale_down_s` is how long an unreferenced revision keeps its server.

    `release` names the KServe that Standard mode behaves like, "" the controller's own choice.
    """

    def __init__(self, home: Path, scale_down_s: float = 0.5, release: str = "") -> None:
        self.home = home
        self.models = home / "sources"
        self._scale_down_s = scale_down_s
        self._release = release
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.envoy = Envoy(home)
        self.start_part("kubernetes", "--port", "0")
        self.api = self._client()
        self.start_part("modelserver")
        (home / "runtime.yaml").write_text(json.dumps(RUNTIME), encoding="utf-8")
        self.start_controller()

    def start_part(self, name: str, *options: str) -> None:
        """Start one part; it waits for the others by itself."""
        command = [sys.executable, "-P", "-m", f"sandbox.{name}", "--home", str(self.home), *options]
        log = self.home / "logs" / f"{name}.log"
        with log.open("ab") as output:
            environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
            self.processes[name] = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment, start_new_session=True
            )

    def start_controller(self) -> None:
        apply = str(self.home / "runtime.yaml")
        options = ("--release", self._release) if self._release else ()
        self.start_part("kserve", "--scale-down-seconds", str(self._scale_down_s), "--apply", apply, *options)

    def kill(self, name: str) -> None:
        """kill -9."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait(DEADLINE_S)

    def stop(self) -> None:
        """End everything, the controller first."""
        self.api.close()
        for name in ("kserve", "modelserver", "kubernetes"):
            process = self.processes[name]
            if process.poll() is None:
                process.terminate()
            assert process.wait(DEADLINE_S) in (0, -signal.SIGKILL, -signal.SIGTERM), self.log(name)
        self.envoy.stop()
        left = marked(self.home)
        assert kill_marked(self.home)
        assert not left or self.processes["modelserver"].returncode == -signal.SIGKILL, left

    def log(self, name: str) -> str:
        return (self.home / "logs" / f"{name}.log").read_text(encoding="utf-8")

    def post(self, path: str, body: Document) -> Document:
        return self._json(self.api.post(path, json=body))

    @contextlib.contextmanager
    def config_map(self, namespace: str, name: str, data: dict[str, str]) -> Iterator[None]:
        """A ConfigMap, as long as the context lasts."""
        if self.api.get(f"/api/v1/namespaces/{namespace}").is_error:
            self.namespace(namespace)
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        self.post(path, {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": data})
        try:
            yield
        finally:
            self.api.delete(f"{path}/{name}").raise_for_status()

    def namespace(self, name: str) -> Namespace:
        """A namespace of its own for one test."""
        self.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return Namespace(self, name)

    def model(self, version: str) -> str:
        """A model folder whose server answers with `version`."""
        folder = self.models / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "version").write_text(version, encoding="utf-8")
        return str(folder)

    def _client(self) -> httpx.Client:
        kubeconfig = self.home / "kubeconfig"
        wait(kubeconfig.exists, "the Kubernetes API writes its kubeconfig")
        config = json.loads(kubeconfig.read_text(encoding="utf-8"))
        token = config["users"][0]["user"]["token"]
        return httpx.Client(
            base_url=config["clusters"][0]["cluster"]["server"],
            headers={"authorization": f"Bearer {token}"},
            verify=False,
            timeout=DEADLINE_S,
            transport=httpx.HTTPTransport(verify=False, retries=8),
        )

    @staticmethod
    def _json(answer: httpx.Response) -> Document:
        assert not answer.is_error, answer.text
        found: Document = answer.json()
        return found


class Namespace:
    """InferenceServices of one namespace."""

    def __init__(self, sandbox: Sandbox, name: str) -> None:
        self.sandbox = sandbox
        self.name = name
        self.path = _SERVICES.format(name)

    def create(self, version: str, name: str = "m", annotations: Document | None = None) -> Document:
        """An InferenceService of the fake runtime."""
        predictor: Document = {"model": {"modelFormat": {"name": "fake"}, "storageUri": self.sandbox.model(version)}}
        body = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name, "annotations": annotations or {}},
            "spec": {"predictor": predictor},
        }
        return self.sandbox.post(self.path, body)

    def patch(self, body: Document, name: str = "m") -> Document:
        answer = self.sandbox.api.patch(f"{self.path}/{name}", content=json.dumps(body), headers=_MERGE)
        return self.sandbox._json(answer)

    def deploy(self, version: str, percent: int | None, name: str = "m") -> Document:
        """Another model, with that percentage; None takes the field away."""
        model = {"storageUri": self.sandbox.model(version)}
        return self.patch({"spec": {"predictor": {"model": model, "canaryTrafficPercent": percent}}}, name)

    def percent(self, percent: int | None, name: str = "m") -> Document:
        return self.patch({"spec": {"predictor": {"canaryTrafficPercent": percent}}}, name)

    def annotate(self, key: str, value: str, name: str = "m") -> Document:
        return self.patch({"metadata": {"annotations": {key: value}}}, name)

    def get(self, name: str = "m") -> Document:
        return self.sandbox._json(self.sandbox.api.get(f"{self.path}/{name}"))

    def wait(self, what: str, condition: Callable[[Document], bool], name: str = "m") -> Document:
        """Wait until the InferenceService's component status is as wished; the whole object."""
        found: list[Document] = []

        def look() -> bool:
            found[:] = [self.get(name)]
            return condition(found[0].get("status") or {})

        try:
            wait(look, what)
        except AssertionError:
            status = json.dumps(found[0].get("status"), indent=1)
            raise AssertionError(f"not in time: {what}\n{status}\n{self.sandbox.log('kserve')[-3000:]}") from None
        return found[0]

    def settled(self, traffic: dict[str, int], name: str = "m") -> Document:
        """Wait until traffic is so, by the last two digits of revisions, and the service is Ready."""
        wanted = {f"{name}-predictor-000{revision}": percent for revision, percent in traffic.items()}
        return self.wait(f"traffic {traffic}", lambda status: shares(status) == wanted and ready(status), name)

    def items(self, path: str) -> list[Document]:
        """The objects of a collection."""
        found: list[Document] = self.sandbox.api.get(path).json()["items"]
        return found

    def events(self, name: str = "m") -> list[str]:
        """Reasons of the events about the InferenceService itself."""
        answer = self.sandbox.api.get(f"/api/v1/namespaces/{self.name}/events")
        return [event["reason"] for event in answer.json()["items"] if event["involvedObject"]["name"] == name]

    def delete(self, name: str = "m") -> None:
        self.sandbox._json(self.sandbox.api.delete(f"{self.path}/{name}"))

    def servers(self) -> dict[str, Document]:
        """Its model servers by revision."""
        found = servers(self.sandbox.home, DEADLINE_S)
        return {one["id"].partition("/")[2]: one for one in found if one["id"].startswith(f"{self.name}/")}

    def revisions_in_access_log(self) -> set[str]:
        """Which revisions have answered for this namespace so far, as the gateway's log has it."""
        # What follows the last end of a line is still being written.
        lines = (self.sandbox.home / "logs" / "access.log").read_text(encoding="utf-8").split("\n")[:-1]
        return {entry["revision"] for entry in map(json.loads, lines) if entry["namespace"] == self.name}

    def client(self) -> Client:
        return Client(self.sandbox.envoy.port)

    def load(self, name: str = "m") -> Load:
        return Load(self.sandbox.envoy.port, f"{name}.{self.name}.localhost")

    def ask(self, host: str = "") -> tuple[int, str]:
        """Status and revision of one request."""
        client = self.client()
        try:
            answer = client.get("/v1/models/m", host=host or f"m.{self.name}.localhost")
        finally:
            client.close()
        return answer.status, answer.revision


def shares(status: Document) -> dict[str, int]:
    """Percent by revision, revisions without any left out."""
    found: dict[str, int] = {}
    for target in component(status).get("traffic") or []:
        found[target["revisionName"]] = found.get(target["revisionName"], 0) + target["percent"]
    return {revision: percent for revision, percent in found.items() if percent}


def component(status: Document) -> Document:
    found: Document = (status.get("components") or {}).get("predictor") or {}
    return found


def condition(status: Document, kind: str) -> Document:
    return next((found for found in status.get("conditions") or [] if found["type"] == kind), {})


def ready(status: Document) -> bool:
    """Ready, and the model of the latest revision loaded."""
    loaded = (status.get("modelStatus") or {}).get("transitionStatus") == "UpToDate"
    return loaded and condition(status, "Ready").get("status") == "True"


def wait(condition: Callable[[], bool], what: str) -> None:
    wait_for(condition, what, DEADLINE_S, every=0.005)
