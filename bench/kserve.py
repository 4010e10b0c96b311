"""`python -P -m bench.kserve`: the sandbox's KServe: how soon it is up, a new revision answers, what its gateway and
its Kubernetes API take. The peer is KServe's own server, started cold in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench import apiload
from bench.httpload import Job, Load, put_load
from bench.report import show, spread, verdict
from bench.stock import cold_start_s
from tests.rollout.rig import BODIES, NAMESPACE, Model, Sandbox, Service, make_release
from tests.waiting import wait_for

NAME = "bench"
UP_GOAL_S, WARM_GOAL_S, LAG_GOAL_MS, LIST_GOAL_MS = 3.0, 1.0, 20.0, 50.0
GOAL = (
    "all APIs healthy within 3 s of `kanary up`; a new revision answers within 1 s of its patch; median watch lag "
    "under 20 ms; 500 InferenceServices listed under 50 ms; 0 requests failed"
)
CONCURRENCY = (1, 16)
SERVICES = 500
_HEALTH = {
    "kfp": "/apis/v2beta1/healthz",
    "kubernetes": "/readyz",
    "gateway": "",
    "prometheus": "/-/ready",
}


@dataclass(frozen=True)
class Scale:
    """How much of each is measured."""

    starts: int
    patches: int
    seconds: float
    writes: int


@dataclass
class Found:
    """What was measured, and which goals were missed."""

    figures: dict[str, Any] = field(default_factory=dict)
    rows: list[tuple[str, ...]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def add(self, name: str, values: Sequence[float], unit: str, goal: float | None = None) -> float:
        """Notes some figures of a kind; gives their median, which must be below `goal`."""
        summary = spread(values)
        self.figures[f"{name} {unit}".replace(" ", "_")] = summary
        wanted = "" if goal is None else f"< {goal:g}"
        self.rows.append((name, f"{summary['median']:g}", f"{summary['max']:g}", unit, str(summary["runs"]), wanted))
        if goal is not None and summary["median"] >= goal:
            self.missed.append(f"{name}: {summary['median']:g} {unit}, not under {goal:g}")
        return summary["median"]

    def fail(self, what: str) -> None:
        self.missed.append(what)


@contextmanager
def started(home: Path, told: list[float]) -> Any:
    """A sandbox from `kanary up`; `told` gets the seconds until the last of its APIs answered."""
    environment = Sandbox(home).environment(KANARY_FREE_PORTS="1")
    command = [sys.executable, "-P", "-m", "kanary"]
    began = time.perf_counter()
    up = subprocess.Popen(
        [*command, "up", "--home", str(home)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        wait_for(lambda: up.poll() is not None or _all_answer(home), "every API answers", 120.0, 0.005)
        told.append(time.perf_counter() - began)
        output, _ = up.communicate(timeout=120)
        if up.returncode:
            raise RuntimeError(output.decode())
        yield Sandbox(home)
    finally:
        down = subprocess.run(
            [*command, "down", "--home", str(home)], env=environment, capture_output=True, timeout=120
        )
        if down.returncode:
            raise RuntimeError(down.stdout.decode() + down.stderr.decode())


def _all_answer(home: Path) -> bool:
    try:
        endpoints = json.loads((home / "endpoints.json").read_text(encoding="utf-8"))
        return all(_answers(endpoints[part]["url"], path) for part, path in _HEALTH.items())
    except (OSError, ValueError, KeyError):
        return False


def _answers(url: str, path: str) -> bool:
    """Whether a part is there; the gateway has no page of its own, whatever it answers will do."""
    try:
        return httpx.get(url + path, verify=False, timeout=5, trust_env=False).is_success or not path
    except httpx.TransportError:
        return False


def measure(folder: Path, scale: Scale) -> int:
    """All of it; gives the exit code."""
    found = Found()
    print("training the models", flush=True)
    stable, *others = (make_release(folder / "releases", f"v{n}", n) for n in range(1, scale.patches + 2))
    up: list[float] = []
    for number in range(1, scale.starts):
        with started(folder / f"home{number}", up):
            print(f"up {number}/{scale.starts}: {up[-1]:.2f} s", flush=True)
    with ExitStack() as stack:
        running = stack.enter_context(started(folder / "home", up))
        found.add("all APIs healthy", up, "s", UP_GOAL_S)
        api = stack.enter_context(apiload.connected(running.kubeconfig))
        service = Service(running, NAME)
        deploy(api, service, stable)
        cold = [cold_start_s(stable.path, folder / "stock.log") for _ in range(2)]
        warm = [patched(api, service, model) for model in others]
        ours = found.add("patch to new revision answering", warm, "s", WARM_GOAL_S)
        peer = found.add("cold stock ModelServer", cold, "s")
        gateway(found, running, service, scale.seconds)
        kubernetes(found, running, api, scale)
    show("The sandbox's KServe", ("", "MEDIAN", "MAX", "UNIT", "RUNS", "GOAL"), found.rows)
    for missed in found.missed:
        print(f"missed: {missed}")
    return verdict("kserve", found.figures, peer / ours, GOAL, not found.missed)


def deploy(api: httpx.Client, service: Service, model: Model) -> None:
    """The first revision, answering."""
    spec = {"predictor": {"model": {"modelFormat": {"name": "kanary"}, "storageUri": model.uri}}}
    body = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": NAME},
        "spec": spec,
    }
    api.post(apiload.SERVICES.format(NAMESPACE), json=body).raise_for_status()
    _until(service, lambda answer: answer.status_code == 200, "the first revision answers")


def patched(api: httpx.Client, service: Service, model: Model) -> float:
    """Seconds from sending a patch with another model to the first answer of its revision, through the gateway."""
    before = service.predict().headers["kanary-revision"]
    patch = json.dumps({"spec": {"predictor": {"model": {"storageUri": model.uri}}}})
    began = time.perf_counter()
    path = f"{apiload.SERVICES.format(NAMESPACE)}/{NAME}"
    api.patch(path, content=patch, headers=apiload.MERGE).raise_for_status()
    _until(service, lambda answer: answer.headers.get("kanary-revision", before) != before, "a new revision answers")
    took = time.perf_counter() - began
    print(f"{model.version}: its revision answered {took * 1000:.0f} ms after the patch", flush=True)
    return took


def _until(service: Service, good: Callable[[httpx.Response], bool], what: str) -> None:
    with httpx.Client(timeout=10, trust_env=False) as client:
        wait_for(lambda: good(client.post(service.url, content=BODIES[0])), what, 60.0, 0.005)


def gateway(found: Found, running: Sandbox, service: Service, seconds: float) -> None:
    """The same closed loop through the gateway and at the model server itself, by turns."""
    revision = service.predict().headers["kanary-revision"]
    direct = f"http://127.0.0.1:{running.server(revision)['port']}/v1/models/{NAME}:predict"
    bodies = [body.decode() for body in BODIES]
    for connections in CONCURRENCY:
        loads: Mapping[str, list[Load]] = {"direct": [], "gateway": []}
        for _ in range(2):
            for way, url in (("direct", direct), ("gateway", service.url)):
                loads[way].append(put_load(Job(url, bodies, connections, seconds)))
        for way, some in loads.items():
            found.add(f"{way} at {connections}", [load.rate for load in some], "rps")
            for load in some:
                if load.failed:
                    found.fail(f"{way} at {connections}: failed {load.failed}")
        added = [_p50(loads["gateway"]) - _p50(loads["direct"])]
        found.add(f"added by the gateway at {connections}", added, "ms")


def _p50(loads: Sequence[Load]) -> float:
    return statistics.median(load.p50 for load in loads)


def kubernetes(found: Found, running: Sandbox, api: httpx.Client, scale: Scale) -> None:
    """Writes, watches and lists."""
    found.add("API writes", [apiload.writes_per_second(running.kubeconfig, scale.seconds)], "per s")
    found.add("watch lag", apiload.watch_lags_ms(running.kubeconfig, scale.writes, 0.01), "ms", LAG_GOAL_MS)
    found.add("services created", [apiload.make_services(api, "many", SERVICES)], "per s")
    found.add(f"{SERVICES} listed", apiload.list_ms(api, "many", SERVICES, table=False), "ms", LIST_GOAL_MS)
    found.add(f"{SERVICES} as a table", apiload.list_ms(api, "many", SERVICES, table=True), "ms")
    if shutil.which("kubectl"):
        found.add(f"{SERVICES} by kubectl get", apiload.kubectl_ms(running.kubeconfig, "many"), "ms")


def main() -> int:
    """Run it; 0 where the goals are met."""
    parser = argparse.ArgumentParser(prog="python -P -m bench.kserve", description=__doc__)
    parser.add_argument("--starts", type=int, default=3, help="times the sandbox is started (default: 3)")
    parser.add_argument("--patches", type=int, default=10, help="new models patched in (default: 10)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each load (default: 4)")
    parser.add_argument("--writes", type=int, default=300, help="writes that are watched (default: 300)")
    given = parser.parse_args()
    os.environ.pop("KUBECONFIG", None)
    with tempfile.TemporaryDirectory(prefix="kanary-bench-") as folder:
        return measure(Path(folder), Scale(given.starts, given.patches, given.seconds, given.writes))


if __name__ == "__main__":
    sys.exit(main())
