"""A real sandbox, two tiny models released into it, and what an operator does to them: for tests and benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from kanary import config, kubernetes
from kanary.kserve import steer, store
from kanary.kserve.status import ServiceStatus
from kanary.kubernetes import Document
from kanary.operations import Request
from kanary.release import State
from kanary.traffic import Plan, Traffic
from sandbox.modelserver.client import servers
from tests.waiting import wait_for

NAMESPACE = "default"
ROOT = Path(__file__).parents[2]
SCHEMA: Document = {
    "name": "flowers",
    "target": "kind",
    "fields": [
        {"name": "length", "type": "number", "constraints": {"required": True}},
        {"name": "width", "type": "number", "constraints": {"required": True}},
        {"name": "colour", "type": "string", "constraints": {"required": True, "enum": ["red", "white"]}},
        {"name": "kind", "type": "string", "constraints": {"required": True, "enum": ["iris", "rose"]}},
    ],
}
ROWS = tuple(
    {"length": number % 7 + number % 3 / 4, "width": number % 5 + 0.5, "colour": ("red", "white")[number % 2]}
    for number in range(120)
)
BODIES = tuple(json.dumps({"instances": [row]}).encode() for row in ROWS)


@dataclass(frozen=True)
class Model:
    """A release in its folder, and the URI from which it is served."""

    path: Path
    version: str
    digest: str
    uri: str


def make_release(folder: Path, version: str, seed: int) -> Model:
    """Trains for a moment on a small table, and writes the release into `folder`/`version`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from components.package.release import Origin, write_release
    from components.train.settings import Settings
    from components.train.training import train
    from kanary import dataschema

    kinds = ["rose" if row["length"] > row["width"] else "iris" for row in ROWS]  # type: ignore[operator]
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{version}.parquet"
    pq.write_table(pa.Table.from_pylist([row | {"kind": kind} for row, kind in zip(ROWS, kinds, strict=True)]), data)
    schema, settings = dataschema.load(json.dumps(SCHEMA)), Settings(seed=seed, epochs=3, hidden=(8,))
    trained = folder / f"{version}-model"
    train(data, schema, trained, "flowers", version, settings, say=lambda text: None)
    passed = [{"metric": "accuracy", "value": 1.0, "expectation": ">= 0", "passed": True, "reason": ""}]
    spec = write_release(trained, folder / version, {"accuracy": 1.0}, passed, Origin())
    return Model(folder / version, version, spec.digest(), (folder / version).as_uri())


@dataclass(frozen=True)
class Sandbox:
    """A sandbox that runs in `home`."""

    home: Path

    @property
    def endpoints(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "endpoints.json").read_text(encoding="utf-8"))
        return found

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    @property
    def gateway(self) -> str:
        return str(self.endpoints["gateway"]["url"])

    def environment(self, **more: str) -> dict[str, str]:
        """For a process that is to speak to this sandbox."""
        found = os.environ | {"KANARY_HOME": str(self.home), "PYTHONPATH": str(ROOT)} | more
        found.pop("KUBECONFIG", None)
        return found

    @contextmanager
    def api(self) -> Iterator[kubernetes.Kubernetes]:
        settings = config.load({"home": str(self.home), "kubeconfig": str(self.kubeconfig)}, environ={})
        with kubernetes.connect(settings) as api:
            yield api

    def kanary(self, *arguments: str) -> list[str]:
        """The command line of a `kanary` verb."""
        return [sys.executable, "-P", "-m", "kanary", arguments[0], "--home", str(self.home), *arguments[1:]]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A `kanary` verb in a process of its own, both streams piped."""
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(self.kanary(*arguments), env=self.environment(), **streams)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `kanary` verb, until it has ended, well or not."""
        verb = self.kanary(*arguments)
        return subprocess.run(verb, env=self.environment(), capture_output=True, text=True, timeout=240, check=False)

    def answer(self, *arguments: str) -> Any:
        """What a `kanary` verb prints with --json; fails where the verb fails."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def server(self, revision: str) -> Document:
        """A revision's model server, as the host tells of it: pid, state, ready, restarts."""
        return next(one for one in servers(self.home, 60.0) if one["id"] == f"{NAMESPACE}/{revision}")

    def access_log(self, service: str = "") -> list[Document]:
        """The gateway's requests so far, of one service or all; the newest quarter of a second may be missing.

        Of long runs the last 10 MB and what came since: the log is rotated.
        """
        logs = self.home / "logs"
        named = f'"service":"{service}"' if service else ""
        found: dict[str, Document] = {}
        for path in (logs / "access.log.1", logs / "access.log"):
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            lines = [line for line in text[: text.rfind("\n") + 1].splitlines() if named in line]
            # Between the two files may have been rotated.
            found |= {entry["request_id"]: entry for entry in map(json.loads, lines)}
        return list(found.values())

    def prometheus(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Label sets and values of an instant query."""
        url = self.endpoints["prometheus"]["url"]
        answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=60, trust_env=False).json()
        assert answer["status"] == "success", answer
        return [(entry["metric"], float(entry["value"][1])) for entry in answer["data"]["result"]]


@contextmanager
def sandbox(home: Path, *options: str) -> Iterator[Sandbox]:
    """A sandbox in `home`, stopped at the end. `options` are those of `up`."""
    command = [sys.executable, "-P", "-m", "sandbox"]
    environment = Sandbox(home).environment()
    up = subprocess.run(
        [*command, "up", "--home", str(home), *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        yield Sandbox(home)
    finally:
        down = subprocess.run(
            [*command, "down", "--home", str(home)], env=environment, capture_output=True, text=True, timeout=120
        )
        assert down.returncode == 0, down.stdout + down.stderr


@dataclass(frozen=True)
class Service:
    """An InferenceService of a test, and what can be asked and done about it."""

    sandbox: Sandbox
    name: str

    @property
    def url(self) -> str:
        """Where predictions are posted to, through the gateway."""
        return f"{self.sandbox.gateway}/serving/{NAMESPACE}/{self.name}/v1/models/{self.name}:predict"

    def document(self) -> Document:
        with self.sandbox.api() as api:
            return api.call(store.both(self.name, NAMESPACE))[0]

    def exists(self) -> bool:
        with self.sandbox.api() as api:
            collection: Document = api.call(_one(kubernetes.read(kubernetes.inference_services(NAMESPACE))))
        return self.name in {entry["metadata"]["name"] for entry in collection["items"]}

    def state(self) -> State:
        with self.sandbox.api() as api:
            return api.call(store.both(self.name, NAMESPACE))[1]

    def status(self) -> ServiceStatus:
        with self.sandbox.api() as api:
            return api.call(steer.status(self.name, NAMESPACE))

    def move(self, percent: int) -> steer.Moved:
        """The canary's share, as `kanary set-traffic` moves it."""
        with self.sandbox.api() as api:
            return api.call(steer.set_traffic(self.name, NAMESPACE, percent))

    def traffic(self, rate: float, seconds: float | None = None) -> Traffic:
        """Predictions through the gateway; start it, or use it as a context manager."""
        return Traffic(Plan(self.url, BODIES, rate=rate, seconds=seconds))

    def predict(self) -> httpx.Response:
        return httpx.post(self.url, content=BODIES[0], timeout=60, trust_env=False)

    def deploying(self, model: Model, percent: int, timeout_s: float = 30.0) -> subprocess.Popen[str]:
        """The deploy step's own logic in a process of its own."""
        arguments = [str(model.path), model.uri, model.digest, self.name, NAMESPACE, str(percent), str(timeout_s)]
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        command = [sys.executable, "-P", "-c", _DEPLOY, *arguments]
        return subprocess.Popen(command, env=self.sandbox.environment(), **streams)

    def delete(self) -> None:
        with self.sandbox.api() as api:
            api.call(_one(Request("DELETE", kubernetes.inference_services(NAMESPACE, self.name))))
        wait_for(lambda: not self.exists(), f"{self.name} is gone")


_DEPLOY = """
import sys
from pathlib import Path
from components.deploy.deployment import Target, deploy
from kanary.errors import KanaryError
path, uri, digest, service, namespace, percent, timeout = sys.argv[1:]
try:
    print(deploy(Path(path), uri, digest, Target(service, namespace, int(percent), float(timeout))))
except KanaryError as error:
    sys.exit(str(error))
"""


def _one(request: Request) -> kubernetes.Act[Document]:
    answer: Document = yield request
    return answer
