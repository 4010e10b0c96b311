"""A cluster in memory, and a Prometheus that counts seeded requests to it: rollouts in simulated time."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unittest import mock

from kanary import kubernetes as k8s
from kanary.errors import Unreachable
from kanary.kserve import deploy
from kanary.kserve.deploy import start_canary, wait_ready
from kanary.kubernetes import Act, Change, Document
from kanary.rollout import policy as policies
from kanary.rollout import record as records
from kanary.rollout.policy import Policy
from kanary.rollout.prometheus import Sample
from kanary.rollout.record import Record
from kanary.rollout.run import Target, rollout
from tests.core import standard_cluster
from tests.core.cluster import NAMESPACE, Cluster, Killed, manifest, path
from tests.core.standard_cluster import StandardCluster

T = TypeVar("T")
EDGES = (5, 10, 25, 50, 100)
QUICK: dict[str, Any] = {
    "steps": [50, 100],
    "bake": {"seconds": 20, "requests": 100},
    "interval": 5,
    "deadline": 600,
    "watch": {"seconds": 30},
    "margins": {"errors": 0.02, "latency": 0.1, "classes": 0.2},
}


@dataclass(frozen=True)
class Model:
    """How a model behaves: share of its requests that fail, milliseconds of an answer, share of the class "yes"."""

    fails: float = 0.0
    ms: float = 8.0
    yes: float = 0.5


@dataclass
class World(Cluster):
    """The cluster, with callers who send `rate` requests a second to whatever its routes say."""

    rate: float = 50.0
    seed: int = 0
    models: dict[str, Model] = field(default_factory=dict)  # by revision number: "01"
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    counted: float = 0.0
    up: bool = True  # Prometheus
    skew: float = 1.0  # so many times its share is what the canary gets
    scraped_every: float = 0.0  # seconds; 0: at each look
    scraped: tuple[float, dict[str, dict[str, int]]] = (0.0, {})
    at_look: Callable[[], None] | None = None
    sent_to: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    pid: int = 2**22  # the first that no process can have
    stable: str = "01"
    die_after: int | None = None  # calls of the API, all acts together

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.counted = self.now

    # ---- what a rollout is given

    def call(self, act: Act[T]) -> T:
        return self.run(act)

    def send(self, request: Any) -> Document:
        if request.changes and request.path != k8s.SELF_REVIEW:
            if self.die_after is not None and self.calls >= self.die_after:
                raise Killed
            self.calls += 1
        return super().send(request)

    def instant(self, query: str, at: float) -> tuple[Sample, ...]:
        self._count(at)
        if self.at_look is not None:
            look, self.at_look = self.at_look, None
            look()
        if not self.up:
            raise Unreachable("Prometheus cannot be reached: refused")
        return _answer(query, self.scraped[1], self.scraped[0])

    def pause(self, seconds: float) -> None:
        self.now += seconds

    # ---- what a test does

    def deploy(self, number: int, run_id: str = "") -> None:
        started = self.run(start_canary(self.manifest(number), run_id=run_id, clock=self.clock))
        try:
            self.run(wait_ready(started, clock=self.clock))
        finally:
            self.run(deploy.finish(started))

    def manifest(self, number: int) -> Document:
        return manifest(number)

    def roll_out(self, section: dict[str, Any] | None = None, run_id: str = "") -> Record:
        self.said: list[str] = []
        self.pid += 1
        # Another process each time, and whoever held the Lease before is dead.
        with (
            mock.patch("kanary.rollout.entering.os.getpid", return_value=self.pid),
            # Words take most of a simulated rollout's time, and change nothing about it.
            mock.patch("kanary.rollout.judging.TOLD_EVERY", 1e9),
        ):
            return rollout(
                self,
                self,
                Target("m", NAMESPACE, run_id),
                policies.parse(QUICK if section is None else section),
                say=self.said.append,
                clock=self.clock,
                pause=self.pause,
            )

    @property
    def record(self) -> Record:
        found = records.find(self.state)
        assert found is not None
        return found

    def policy(self) -> Policy:
        return policies.parse(self.record.policy)

    # ---- the inside

    def _wait(self, step: Change) -> Document | None:
        found = self.objects.get(f"{step.collection}/{step.name}")
        if found is not None and found["metadata"]["resourceVersion"] != step.resource_version:
            return copy.deepcopy(found)
        if self._move():
            return None
        self.now += step.seconds
        return None

    def _count(self, until: float) -> None:
        """The requests since the last look, by the split that is in force now."""
        due = self.scraped[0] + self.scraped_every
        if self.scraped_every and self.counted < due <= until:
            self._count_until(due)
        else:
            self._count_until(until)
        if self.counted >= due:
            self.scraped = (self.counted, copy.deepcopy(self.counters))
        if self.counted < until:
            self._count(until)

    def _count_until(self, until: float) -> None:
        seconds, self.counted = until - self.counted, until
        split = self.splits[-1] if self.splits else {}
        names = self._named()
        for name in names.values():
            zeros = dict.fromkeys(("requests", "errors", "yes", "no", *map(str, EDGES)), 0)
            self.counters.setdefault(name, zeros)
        for _ in range(round(seconds * self.rate) if split else 0):
            weights = [part * (self.skew if number != self.stable else 1.0) for number, part in split.items()]
            number = self.random.choices(list(split), weights)[0]
            self._one(names[number], self.models.get(number, Model()))

    def _one(self, name: str, model: Model) -> None:
        counters = self.counters[name]
        counters["requests"] += 1
        self.sent_to[name] = self.sent_to.get(name, 0) + 1
        if self.random.random() < model.fails:
            counters["errors"] += 1
            return
        taken = self.random.lognormvariate(0, 0.3) * model.ms
        for edge in EDGES:
            counters[str(edge)] += taken <= edge
        counters["yes" if self.random.random() < model.yes else "no"] += 1

    def _named(self) -> dict[str, str]:
        """What the counters call those that `splits` names."""
        return {name[-2:]: name for name in self._revisions()}

    def _revisions(self) -> list[str]:
        predictor = (self.service.get("status") or {}).get("components", {}).get("predictor", {})
        found = [entry["revisionName"] for entry in predictor.get("traffic", [])]
        found += [predictor.get(key) for key in ("latestReadyRevision", "latestRolledoutRevision")]
        return list(dict.fromkeys(name for name in found if name))


def _answer(query: str, counters: dict[str, dict[str, int]], at: float) -> tuple[Sample, ...]:
    metric = next((name for name in _METRICS if name in query), "")
    named = re.search(r'revision=~"([^"]*)"', query)
    wanted = {name: values for name, values in counters.items() if named is None or re.fullmatch(named[1], name)}
    if "timestamp(" in query:
        return tuple(Sample({"revision": name, "instance": "gw"}, at) for name in wanted)
    if query.startswith("count("):
        return (Sample({}, float(len(wanted))),) if metric == "envoy_cluster_upstream_rq_completed" and wanted else ()
    found = []
    for name, values in wanted.items():
        for labels, value in _METRICS[metric](values) if metric else ():
            found.append(Sample({"revision": name, "instance": "gw", **labels}, float(value)))
    return tuple(found)


_METRICS: dict[str, Callable[[dict[str, int]], list[tuple[dict[str, str], int]]]] = {
    "envoy_cluster_upstream_rq_completed": lambda v: [({}, v["requests"])],
    # Envoy names a class of codes with its first one.
    "envoy_cluster_upstream_rq_xx": lambda v: [({}, v["errors"])] if v["errors"] else [],
    "envoy_cluster_upstream_rq_time_bucket": lambda v: [
        *(({"le": str(edge)}, v[str(edge)]) for edge in EDGES),
        ({"le": "+Inf"}, v["requests"] - v["errors"]),
    ],
    "kanary_predictions_total": lambda v: [({"class": "yes"}, v["yes"]), ({"class": "no"}, v["no"])],
}


@dataclass
class StandardWorld(World, StandardCluster):
    """The same in Standard mode: Deployments, and the shares of a route."""

    world: Any = field(default_factory=standard_cluster.StandardWorld)

    def manifest(self, number: int) -> Document:
        return standard_cluster.manifest(number)

    def _named(self) -> dict[str, str]:
        return {name: name for name in self.deployments()}


def serving(run_id: str = "", kind: type[World] = World) -> World:
    """A world in which v1 serves, and v2 is a canary at 0 % that this run has deployed."""
    world = kind()
    world.deploy(1)
    world.deploy(2, run_id)
    world.settle()
    assert path("m") in world.objects
    return world
