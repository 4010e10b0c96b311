"""Real rollouts in a real sandbox: releases, faults, traffic, and what the gateway's access log says of them."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from kanary import kubernetes as k8s
from kanary import manifests
from kanary.errors import ApiError, InputError
from kanary.judge.planning import StepPlan
from kanary.kserve import deploy
from kanary.kserve.deploy import start_canary, wait_ready
from kanary.kubernetes import Act
from kanary.rollout import planning
from kanary.rollout import policy as policies
from kanary.rollout import record as records
from kanary.rollout.observe import Arms, Unobservable
from kanary.rollout.policy import Policy
from kanary.rollout.profiles import Where
from kanary.rollout.prometheus import Prometheus
from kanary.rollout.record import Record
from kanary.rollout.run import Target, rollout, silent
from tests.rollout.rig import NAMESPACE, ROOT, Model, Sandbox, Service, make_release
from tests.waiting import wait_for

RUNTIMES = f"/apis/serving.kserve.io/v1alpha1/namespaces/{NAMESPACE}/servingruntimes"
RATE = 200.0
WARM = 4.0
POLICY: dict[str, Any] = {
    "steps": [50, 100],
    "bake": {"seconds": 3, "requests": 100},
    "interval": 1,
    "deadline": 500,
    "ready_timeout": 120,
    # A probe that a busy machine holds up must not pass for a canary that fails.
    "failing_patience": 60,
    # A server that has just started on a busy machine is silent for a while.
    "warm_up": {"seconds": WARM},
    "watch": {"seconds": 3},
    "margins": {"errors": 0.005, "latency": 0.1, "classes": 0.2, "on_classes": "rollback"},
}
NEVER_READY = POLICY | {"failing_patience": 5}
MODES = (manifests.KNATIVE, manifests.STANDARD)
FAULTS = ("fails", "slow", "one class", "crashes", "never starts")


@dataclass(frozen=True)
class Releases:
    """A stable model, a good one after it, and one that predicts a single class."""

    v1: Model
    v2: Model
    one_class: Model


def make_releases(folder: Path) -> Releases:
    return Releases(make_release(folder, "v1", 1), make_release(folder, "v2", 2), _one_class(folder, 3))


def _one_class(folder: Path, seed: int) -> Model:
    """A release whose last layer says the same of every row."""
    import torch

    from components.package.release import Origin, write_release
    from serving.model import store

    made = make_release(folder / "whole", "one-class", seed)
    spec, network = store.load(made.path)
    state = network.state_dict()
    last = [name for name in state if name.endswith("bias")][-1]
    state[last] = torch.full_like(state[last], -50.0)
    state[last][0] = 50.0
    model = folder / "one-class-model"
    reference = store.reference_rows(made.path, spec)
    store.save(model, dataclasses.replace(spec, files={}), state, reference)
    passed = [{"metric": "accuracy", "value": 1.0, "expectation": ">= 0", "passed": True, "reason": ""}]
    altered = write_release(model, folder / "one-class", {"accuracy": 1.0}, passed, Origin())
    return Model(folder / "one-class", "one-class", altered.digest(), (folder / "one-class").as_uri())


def add_faulty_runtime(sandbox: Sandbox) -> None:
    """A ServingRuntime of the predictor with a fault, besides the one that is there."""
    text = (ROOT / "serving" / "manifests" / "servingruntime.yaml").read_text(encoding="utf-8")
    document = next(iter(yaml.safe_load_all(text)))
    document["metadata"] |= {"name": "faulty", "namespace": NAMESPACE}
    document["spec"]["supportedModelFormats"] = [{"name": "kanary", "version": "1", "autoSelect": False}]
    document["spec"]["containers"][0]["command"] = ["python", "-m", "tests.automation.faults"]
    with sandbox.api() as api:
        api.call(_send(k8s.create(RUNTIMES, document)))


def _send(request: Any) -> Act[None]:
    yield request


@dataclass(frozen=True)
class Live:
    """A service with v1 as its stable release, and rollouts of what comes after it."""

    service: Service
    releases: Releases
    mode: str = manifests.KNATIVE

    @property
    def name(self) -> str:
        return self.service.name

    def deploy(self, model: Model, fault: str = "", *, ready: bool = True, run_id: str = "") -> None:
        """As a canary at 0 %, or as the first release."""
        more: dict[str, Any] = {"runtime": "faulty", "env": {"FAULT": fault}} if fault else {}
        manifest = manifests.inference_service(
            *(self.name, NAMESPACE, model.uri, model.version, model.digest), min_replicas=1, mode=self.mode, **more
        )
        with self.service.sandbox.api() as api:
            started = api.call(start_canary(manifest, run_id=run_id))
            try:
                if ready:
                    api.call(wait_ready(started, deadline=180))
            finally:
                api.call(deploy.finish(started))
        if not ready:
            wait_for(lambda: self.service.status().canary, "KServe has made the canary's revision", 60)

    def deploy_bad(self, kind: str, seed: int, fails: float = 0.02) -> None:
        """A canary with that fault; `fails`: the share of its requests, where that is the fault."""
        v2 = self.releases.v2
        if kind == "one class":
            self.deploy(self.releases.one_class)
        elif kind == "never starts":
            self.deploy(dataclasses.replace(v2, uri=(v2.path.parent / "nowhere").as_uri()), ready=False)
        else:
            self.deploy(
                v2, {"fails": f"fails:{fails}:{seed}", "slow": "slow:0.06", "crashes": f"crash:{40 + seed}"}[kind]
            )

    def prometheus(self, policy: Policy) -> Prometheus:
        url = self.service.sandbox.endpoints["prometheus"]["url"]
        return Prometheus(dataclasses.replace(policy.prometheus, url=url))

    def roll_out(self, section: Mapping[str, Any] = POLICY, say: Any = None) -> Record:
        """The rollout, in this process."""
        policy = policies.parse(section)
        with self.service.sandbox.api() as api, self.prometheus(policy) as prometheus:
            return rollout(api, prometheus, Target(self.name, NAMESPACE), policy, say=say or silent)

    def record(self) -> Record | None:
        return records.find(self.service.state())

    def plan(self, section: Mapping[str, Any] = POLICY, rate: float = RATE) -> StepPlan:
        """What `kanary plan` announces for the first step, from what stable has answered."""
        policy, status = policies.parse(section), self.service.status()
        where = Where(NAMESPACE, self.name, (status.stable,), {})
        arms = Arms("", status.stable, "", "v1")

        def observed() -> planning.Traffic | None:
            with self.prometheus(policy) as prometheus, contextlib.suppress(Unobservable, InputError):
                return planning.traffic(prometheus, where, arms, policy, time.time(), 30.0)
            return None

        seen = wait_for(observed, "Prometheus has scraped the gateway twice")
        assert seen is not None
        return planning.plan(policy, rate, seen.baseline, 0.02)[0]


@dataclass(frozen=True)
class Blame:
    """Whose the failures of a service were, by the gateway's access log: `switch` for those of no revision."""

    requests: int
    stable: int
    canary: int
    switch: int


def predictions(sandbox: Sandbox, name: str) -> list[dict[str, Any]]:
    """The service's predictions so far, by the gateway's access log."""
    return [entry for entry in sandbox.access_log(name) if entry["method"] == "POST"]


def blame(sandbox: Sandbox, name: str, canary: str) -> Blame:
    entries = predictions(sandbox, name)
    failed = Counter(entry["revision"] or "" for entry in entries if int(entry["status"] or 0) >= 500)
    switch = failed.pop("", 0) + failed.pop("-", 0)
    bad = failed.pop(canary, 0)
    return Blame(len(entries), sum(failed.values()), bad, switch)


def exposed(sandbox: Sandbox, name: str, record: Record) -> int:
    """Requests of both arms from when the first step's canary was warm until the last one that reached it."""
    begun = record.steps[0].since + WARM if record.steps else 0.0
    times = [
        (datetime.fromisoformat(entry["time"]).timestamp(), entry["revision"]) for entry in predictions(sandbox, name)
    ]
    last = max((at for at, revision in times if revision == record.canary), default=0.0)
    return sum(begun <= at <= last for at, _ in times)


def logged(sandbox: Sandbox, name: str, requests: int) -> None:
    """Waits until the access log holds so many of the service's predictions."""
    wait_for(lambda: len(predictions(sandbox, name)) >= requests, "the gateway has logged every request", 60)


def gone(service: Service) -> None:
    if service.exists():
        try:
            service.delete()
        except ApiError as error:
            if error.status != 404:
                raise
