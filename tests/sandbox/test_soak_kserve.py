"""An hour (KANARY_SOAK_MINUTES) of everything at once: nothing fails that should not, and nothing grows.

Parts are killed in the first third only: one that starts anew grows to its working set, which is no leak. Revisions are
collected soon: by Knative's defaults a service keeps those of two days, each with its objects. Events, which a cluster
keeps for an hour, go after minutes for the same reason: within the hour they would only become more and more. The
Kubernetes API keeps the changes of ten minutes: a second half that begins before that is over is not judged.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.home import read_json
from tests.kubernetes.server import Server
from tests.rollout.rig import BODIES, NAMESPACE, Model, Sandbox, Service, make_release, sandbox
from tests.sandbox import soaking
from tests.waiting import wait_for

pytestmark = pytest.mark.soak
MINUTES = float(os.environ.get("KANARY_SOAK_MINUTES", "60"))
RATE = 10.0  # good predictions a second on each of the connections
CONNECTIONS = 2
KILL_EVERY_S = 75.0
BACK_S = 15.0  # failures so long after a kill are put down to it
SAMPLE_EVERY_S = 5.0
EVENT_TTL_S = 300
FILLED_MINUTES = 15.0  # after so long everything that is kept for a while is there
MOST_MIB = {"logs": 150.0, "databases": 100.0, "metrics": 400.0}
MERGE = {"Content-Type": "application/merge-patch+json"}
SERVICES = f"/apis/serving.kserve.io/v1beta1/namespaces/{NAMESPACE}/inferenceservices"
COLLECTION = {
    "metadata": {"name": "config-gc"},
    "data": {
        "retain-since-create-time": "60s",
        "retain-since-last-active-time": "30s",
        "min-non-active-revisions": "3",
        "max-non-active-revisions": "10",
    },
}
# Neither is a failure of the sandbox: what is asked for is wrong.
BAD = ((b'{"instances": [', 400), (b'{"instances": [{"length": "long"}]}', 400), (b"", 400))


@dataclass
class Soak:
    """What goes on, and what came of it."""

    running: Sandbox
    end: float
    done: Counter[str] = field(default_factory=Counter)
    kills: list[tuple[float, str]] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    broken: list[BaseException] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.end and not self.broken

    def rest(self, seconds: float) -> None:
        wait_until(lambda: not self.goes_on, seconds)

    def api(self) -> httpx.Client:
        config = json.loads(json.dumps(_kubeconfig(self.running.home)))
        url, token = config["clusters"][0]["cluster"]["server"], config["users"][0]["user"]["token"]
        return Server(None, self.running.home, url, token).client()  # type: ignore[arg-type]

    def recently_killed(self, at: float) -> str:
        return next((part for killed, part in reversed(self.kills) if killed - 1.0 <= at < killed + BACK_S), "")


def _kubeconfig(home: Path) -> Any:
    import yaml

    return yaml.safe_load((home / "kubeconfig").read_text(encoding="utf-8"))


def wait_until(over: Callable[[], bool], seconds: float) -> None:
    """Waits `seconds`, or less if it is over sooner."""
    with suppress(AssertionError):
        wait_for(over, "", seconds, 0.1)


@contextmanager
def at_work(soak: Soak, *works: Callable[[Soak], None]) -> Iterator[None]:
    """Each work in a thread of its own, over and over; one that breaks ends the soak."""

    def repeat(work: Callable[[Soak], None]) -> None:
        while soak.goes_on:
            try:
                work(soak)
            except httpx.TransportError:
                soak.rest(0.2)  # a part was killed; the next turn speaks to its successor
            except BaseException as error:  # noqa: BLE001  # told at the end, whatever it is
                if soak.recently_killed(time.monotonic()):
                    soak.done["interrupted"] += 1
                else:
                    soak.broken.append(error)

    threads = [threading.Thread(target=repeat, args=(work,), name=work.__name__) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(120)


def good_predictions(soak: Soak) -> None:
    url, due = Service(soak.running, "steady").url, time.monotonic()
    with httpx.Client(timeout=10, trust_env=False) as client:
        for number in itertools.count():
            if not soak.goes_on:
                return
            try:
                status = str(client.post(url, content=BODIES[number % len(BODIES)]).status_code)
            except httpx.TransportError as error:
                status = type(error).__name__
            soak.done[f"good {status}"] += 1
            if status != "200":
                soak.failures.append((time.monotonic(), status))
            due += 1 / RATE
            time.sleep(max(0.0, due - time.monotonic()))


def bad_predictions(soak: Soak) -> None:
    service = Service(soak.running, "steady")
    cases = [(service.url, body, status) for body, status in BAD]
    cases.append((service.url.replace("steady", "nosuch"), BODIES[0], 404))
    with httpx.Client(timeout=10, trust_env=False) as client:
        for url, body, wanted in cases:
            status = client.post(url, content=body).status_code
            soak.done["bad"] += 1
            if status != wanted and not soak.recently_killed(time.monotonic()):
                soak.wrong.append(f"{body[:30]!r} to {url}: {status}, not {wanted}")
    soak.rest(0.5)


def rollouts(models: list[Model]) -> Callable[[Soak], None]:
    """New canaries, weight flips, then a promotion or a rollback."""
    turns = itertools.count(1)

    def rollout(soak: Soak) -> None:
        turn = next(turns)
        with soak.api() as api:
            # A turn that a kill has cut off left its own content: what is to come is whatever is not there.
            stable, canary = sorted(models, key=lambda model: model.uri != storage(api))
            before = component(api)["latestCreatedRevision"]
            patch(api, "steady", storage=canary.uri, percent=10)
            revision = wait_for(lambda: ready_canary(api, before), "the canary is ready", 60.0)
            for percent in random.Random(turn).choices((0, 10, 50, 90), k=6):
                patch(api, "steady", percent=percent)
                soak.done["weight flips"] += 1
                soak.rest(0.5)
            if turn % 2:
                patch(api, "steady", percent=None)
                wait_for(lambda: rolled_out(api) == revision, "the canary is rolled out", 60.0)
                soak.done["promotions"] += 1
            else:
                patch(api, "steady", percent=0)
                patch(api, "steady", storage=stable.uri, percent=None)
                wait_for(lambda: rolled_out(api) not in ("", revision), "the stable content is rolled out", 60.0)
                soak.done["rollbacks"] += 1
        soak.rest(1.0)

    return rollout


def patch(api: httpx.Client, name: str, **change: Any) -> None:
    """Changes the model's `storage` and the canary's `percent` (None removes it)."""
    predictor: dict[str, Any] = {"canaryTrafficPercent": change["percent"]} if "percent" in change else {}
    if "storage" in change:
        predictor["model"] = {"storageUri": change["storage"]}
    body = json.dumps({"spec": {"predictor": predictor}})
    api.patch(f"{SERVICES}/{name}", content=body, headers=MERGE).raise_for_status()


def storage(api: httpx.Client) -> str:
    found = api.get(f"{SERVICES}/steady").raise_for_status().json()["spec"]["predictor"]["model"]["storageUri"]
    return str(found)


def component(api: httpx.Client) -> dict[str, Any]:
    status = api.get(f"{SERVICES}/steady").raise_for_status().json().get("status") or {}
    found: dict[str, Any] = status.get("components", {}).get("predictor", {})
    return found


def ready_canary(api: httpx.Client, before: str) -> str:
    found = component(api)
    created = str(found["latestCreatedRevision"])
    shares = {entry["revisionName"] for entry in found["traffic"]}
    return created if before != created == found["latestReadyRevision"] and created in shares else ""


def rolled_out(api: httpx.Client) -> str:
    found = component(api)
    ready = found["latestReadyRevision"] == found["latestCreatedRevision"] == found["latestRolledoutRevision"]
    return str(found["latestRolledoutRevision"]) if ready else ""


def services_come_and_go(model: Model) -> Callable[[Soak], None]:
    """Creates and deletes; every fourth service has a server."""
    turns = itertools.count()

    def come_and_go(soak: Soak) -> None:
        turn = next(turns)
        name, served = f"guest-{turn}", turn % 4 == 0
        metadata: dict[str, Any] = {"name": name, "labels": {"guest": "yes"}}
        if not served:
            metadata["annotations"] = {"serving.kserve.io/stop": "true"}
        with soak.api() as api:
            api.post(SERVICES, json=inference_service(metadata, model)).raise_for_status()
            if served:
                wait_for(lambda: Service(soak.running, name).predict().status_code == 200, f"{name} answers", 60.0)
            api.delete(f"{SERVICES}/{name}").raise_for_status()
            wait_for(lambda: api.get(f"{SERVICES}/{name}").status_code == 404, f"{name} is gone", 60.0)
        soak.done["services"] += 1
        soak.rest(0.5)

    return come_and_go


def inference_service(metadata: dict[str, Any], model: Model) -> dict[str, Any]:
    spec = {"predictor": {"model": {"modelFormat": {"name": "kanary"}, "storageUri": model.uri}}}
    head = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    return {**head, "metadata": metadata, "spec": spec}


def lists_and_watches(soak: Soak) -> None:
    """Pages through lists; opens watches, some read to their end, some dropped after the first event."""
    with soak.api() as api:
        page = api.get(f"{SERVICES}?limit=1").raise_for_status().json()
        while page["metadata"].get("continue"):
            query = {"limit": 1, "continue": page["metadata"]["continue"]}
            page = api.get(SERVICES, params=query).raise_for_status().json()
        soak.done["lists"] += 1
        for drop in (True, False, True):
            with api.stream("GET", f"{SERVICES}?watch=true&timeoutSeconds=2&allowWatchBookmarks=true") as events:
                for line in events.iter_lines():
                    assert json.loads(line)["type"] != "ERROR", line
                    if drop:
                        break
            soak.done["watches"] += 1
    soak.rest(0.2)


def pipeline_runs(spec: dict[str, Any]) -> Callable[[Soak], None]:
    def run(soak: Soak) -> None:
        url = f"{soak.running.endpoints['kfp']['url']}/apis/v2beta1/runs"
        body = {"display_name": "soak", "pipeline_spec": spec, "runtime_config": {"parameters": {"text": "ab"}}}
        with httpx.Client(timeout=30, trust_env=False) as client:
            run_id = client.post(url, json=body).raise_for_status().json()["run_id"]
            wait_for(
                lambda: client.get(f"{url}/{run_id}").json()["state"] == "SUCCEEDED", "the run succeeds", 120.0, 0.5
            )
        soak.done["runs"] += 1
        soak.rest(20.0)

    return run


def kills(until: float) -> Callable[[Soak], None]:
    """A part after the other, by SIGKILL, and waits until it is back."""
    turns = itertools.cycle(("kserve", "prometheus", "gateway", "kubernetes", "model server", "kfp", "modelserver"))

    def kill(soak: Soak) -> None:
        soak.rest(KILL_EVERY_S)
        if time.monotonic() > until or not soak.goes_on:
            soak.rest(soak.end)
            return
        what = next(turns)
        soak.kills.append((time.monotonic(), what))
        os.kill(pid_of(soak.running, what), signal.SIGKILL)
        print(f"soak: killed {what}", flush=True)

    return kill


def pid_of(running: Sandbox, what: str) -> int:
    if what == "model server":
        revision = Service(running, "steady").predict().headers["kanary-revision"]
        return int(running.server(revision)["pid"])
    return int(read_json(running.home / "state.json")["parts"][what]["pid"])


def observe(soak: Soak, began: float) -> dict[str, list[soaking.Sample]]:
    """Samples every few seconds until the end, telling how it goes each minute; the samples of the quiet half."""
    found: dict[str, list[soaking.Sample]] = {part: [] for part in soaking.PARTS}
    minute = 0
    while soak.goes_on:
        soak.rest(SAMPLE_EVERY_S)
        taken = soaking.sample(soak.running.home)
        for part, one in taken.items():
            found[part].append(one)
        if (passed := int((time.monotonic() - began) / 60)) > minute:
            minute = passed
            files = {name: round(size, 1) for name, size in soaking.sizes(soak.running.home).items()}
            failed = Counter(soak.recently_killed(at) or "NO KILL" for at, _ in soak.failures)
            print(f"soak: minute {minute}: {soaking.told(taken)}", flush=True)
            print(f"soak: {dict(soak.done)}; failed by kill {dict(failed)}; MiB {files}", flush=True)
    return found


def test_an_hour_of_mixed_load_leaves_everything_flat(
    tmp_path: Path, spec: dict[str, Any], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KANARY_EVENT_TTL", str(EVENT_TTL_S))
    models = [make_release(tmp_path / "releases", f"v{number}", number) for number in (1, 2)]
    with capfd.disabled(), sandbox(tmp_path / "home") as running, ExitStack() as stack:
        began = time.monotonic()
        soak = Soak(running, began + 60 * MINUTES)
        with soak.api() as api:
            api.post("/api/v1/namespaces", json={"metadata": {"name": "knative-serving"}})
            api.post("/api/v1/namespaces/knative-serving/configmaps", json=COLLECTION).raise_for_status()
            api.post(SERVICES, json=inference_service({"name": "steady"}, models[0])).raise_for_status()
            wait_for(lambda: "traffic" in component(api) and rolled_out(api), "the service is rolled out", 60.0)
        wait_for(lambda: Service(running, "steady").predict().status_code == 200, "the service answers", 60.0)
        works = (bad_predictions, rollouts(models), services_come_and_go(models[0]), lists_and_watches)
        killing = kills(began + 60 * MINUTES / 3)
        stack.enter_context(at_work(soak, *[good_predictions] * CONNECTIONS, *works, pipeline_runs(spec), killing))
        samples = observe(soak, began)
        files = soaking.sizes(running.home)
    assert not soak.broken, soak.broken
    assert not soak.wrong, soak.wrong[:10]
    unexplained = [failure for failure in soak.failures if not soak.recently_killed(failure[0])]
    assert not unexplained, unexplained[:10]
    growing = soaking.growing(samples)
    print(f"soak: {soaking.course(samples)}; growing: {growing}")
    assert growing == [] or MINUTES / 2 < FILLED_MINUTES
    assert {name: size for name, size in files.items() if size > MOST_MIB[name]} == {}
    assert all(soak.done[what] for what in ("promotions", "rollbacks", "services", "watches", "runs")), soak.done
