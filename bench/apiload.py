"""What the sandbox's Kubernetes API takes and how soon it tells: writes, the lag of watches, lists. One client each."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.waiting import wait_for

MERGE = {"Content-Type": "application/merge-patch+json"}
SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices"
_CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
_CLIENTS = 4
# KServe's own switch: such a service has no servers.
_STOPPED = {"serving.kserve.io/stop": "true"}


@contextmanager
def connected(kubeconfig: Path) -> Iterator[httpx.Client]:
    """A client of the API with the kubeconfig's certificate and token."""
    config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    trust = ssl.create_default_context(cadata=authority)
    headers = {"Authorization": f"Bearer {user['token']}"}
    with httpx.Client(base_url=cluster["server"], headers=headers, verify=trust, timeout=30, trust_env=False) as api:
        yield api


def writes_per_second(kubeconfig: Path, seconds: float) -> float:
    """Merge patches of config maps, one after another on each of four connections."""

    def write(number: int) -> int:
        done = 0
        with connected(kubeconfig) as api:
            _make(api, f"bench-{number}")
            ready.wait()
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                _patch(api, f"bench-{number}", str(done))
                done += 1
        return done

    ready = threading.Barrier(_CLIENTS)
    with ThreadPoolExecutor(_CLIENTS) as pool:
        return sum(pool.map(write, range(_CLIENTS))) / seconds


def watch_lags_ms(kubeconfig: Path, writes: int, pause_s: float) -> list[float]:
    """From sending a write to reading its event on another connection, in milliseconds; `pause_s` between writes."""
    seen: dict[str, float] = {}

    def follow(events: httpx.Response) -> None:
        for line in events.iter_lines():
            value = json.loads(line)["object"].get("data", {}).get("at")
            seen[value] = time.perf_counter()
            if value == str(writes - 1):
                return

    sent = {}
    with connected(kubeconfig) as api, connected(kubeconfig) as watching:
        _make(api, "lag")
        query = {"watch": "true", "fieldSelector": "metadata.name=lag"}
        with watching.stream("GET", _CONFIG_MAPS, params=query) as events:
            follower = threading.Thread(target=follow, args=(events,), name="watch")
            follower.start()
            for number in range(writes):
                sent[str(number)] = time.perf_counter()
                _patch(api, "lag", str(number))
                time.sleep(pause_s)
            follower.join(30)
    if len(seen.keys() & sent.keys()) != writes:
        raise RuntimeError(f"the watch told of {len(seen)} of {writes} writes")
    return [(seen[number] - at) * 1000 for number, at in sent.items()]


def make_services(api: httpx.Client, namespace: str, count: int) -> float:
    """Creates InferenceServices whose servers are switched off; how many a second."""
    api.post("/api/v1/namespaces", json={"metadata": {"name": namespace}}).raise_for_status()
    began = time.perf_counter()
    for number in range(count):
        body = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": f"s{number}", "annotations": _STOPPED},
            "spec": {"predictor": {"model": {"modelFormat": {"name": "kanary"}, "storageUri": "file:///nowhere"}}},
        }
        api.post(SERVICES.format(namespace), json=body).raise_for_status()
    rate = count / (time.perf_counter() - began)
    wait_for(lambda: all(item.get("status") for item in _items(api, namespace)), "every service has a status", 120, 0.5)
    return rate


def list_ms(api: httpx.Client, namespace: str, count: int, *, table: bool, runs: int = 20) -> list[float]:
    """A list of all services, from the request to the whole body, in milliseconds."""
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        answer = api.get(SERVICES.format(namespace), headers={"Accept": _TABLE} if table else {})
        taken.append((time.perf_counter() - began) * 1000)
        if len(answer.json()["rows" if table else "items"]) != count:
            raise RuntimeError(f"the list has not {count} services")
    return taken


def kubectl_ms(kubeconfig: Path, namespace: str, runs: int = 3) -> list[float]:
    """The same by `kubectl get isvc`, from its start to its end."""
    taken = []
    command = ["kubectl", "--kubeconfig", str(kubeconfig), "get", "isvc", "-n", namespace, "--no-headers"]
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def _items(api: httpx.Client, namespace: str) -> list[Any]:
    found: list[Any] = api.get(SERVICES.format(namespace)).raise_for_status().json()["items"]
    return found


def _make(api: httpx.Client, name: str) -> None:
    api.post(_CONFIG_MAPS, json={"metadata": {"name": name}}).raise_for_status()


def _patch(api: httpx.Client, name: str, value: str) -> None:
    body = json.dumps({"data": {"at": value}})
    api.patch(f"{_CONFIG_MAPS}/{name}", content=body, headers=MERGE).raise_for_status()
