"""A market that is served, watched and retrained in a sandbox: its data, its services, and how often they are right."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from kanary import manifests, modelspec
from kanary.kserve import deploy
from kanary.traffic import Plan, Traffic
from kanary.traffic_rows import Column, read_rows
from tests.drift import stream
from tests.rollout.rig import NAMESPACE, Service

Row = Mapping[str, Any]
FEEDBACK = "/v1/feedback"
RISE = 1.5  # of demand, in standard deviations


@dataclass(frozen=True)
class Market:
    """Rows in time order, each with its class, and what a schema says of them: an era before a drift and one after."""

    schema: Mapping[str, Any]
    before: Sequence[Row]
    after: Sequence[Row]

    @property
    def target(self) -> str:
        """The column that is predicted."""
        return str(self.schema["target"])


@dataclass(frozen=True)
class Watched:
    """A service whose payloads the drift detector gets."""

    service: Service
    market: Market

    @property
    def name(self) -> str:
        """The service's."""
        return self.service.name

    def begin(self, release: Path) -> None:
        """Serve a release as the service's first one, logged to the detector."""
        spec = modelspec.verify(release)
        manifest = manifests.inference_service(
            self.name, NAMESPACE, release.as_uri(), spec.version, spec.digest(), min_replicas=1
        )
        manifest["spec"]["predictor"]["logger"] = {
            "url": self.service.sandbox.endpoints["drift"]["url"],
            "mode": "all",
            "metadataAnnotations": [manifests.VERSION, manifests.DIGEST],
        }
        with self.service.sandbox.api() as api:
            started = api.call(deploy.start_canary(manifest))
            try:
                api.call(deploy.wait_ready(started, deadline=600))
            finally:
                api.call(deploy.finish(started))

    def traffic(self, path: Path, rate: float) -> Traffic:
        """Live traffic of a file's rows, in its order, each one's class told a second after its answer."""
        columns = [Column(field["name"], field["type"]) for field in self.market.schema["fields"]]
        features = [column for column in columns if column.name != self.market.target]
        given = read_rows(path, features, target=self.market.target)
        feedback = self.service.sandbox.endpoints["drift"]["url"] + FEEDBACK
        return Traffic(
            Plan(self.service.url, given.bodies, rate, labels=given.labels, labels_after=1.0, feedback=feedback)
        )

    def accuracy(self, rows: Sequence[Row]) -> float:
        """The share of these rows, asked for through the gateway, that get their true class."""
        right = 0
        for at in range(0, len(rows), 100):
            some = rows[at : at + 100]
            asked = [{key: value for key, value in row.items() if key != self.market.target} for row in some]
            answer = httpx.post(self.service.url, json={"instances": asked}, timeout=30, trust_env=False)
            answer.raise_for_status()
            told = [one["label"] for one in answer.json()["predictions"]]
            right += sum(one == str(row[self.market.target]) for one, row in zip(told, some, strict=True))
        return right / len(rows)

    def told(self, metric: str, **labels: str) -> dict[str, float]:
        """What Prometheus knows of a metric of the detector, by revision."""
        matchers = "".join(f',{name}="{value}"' for name, value in labels.items())
        found = self.service.sandbox.prometheus(f'kanary_drift_{metric}{{service="{self.name}"{matchers}}}')
        return {sample["revision"]: value for sample, value in found}

    def drifting(self, revision: str) -> set[str]:
        """The features of a revision that Prometheus says drift."""
        found = self.service.sandbox.prometheus(
            f'kanary_drift_detected{{service="{self.name}",revision="{revision}",kind="feature"}} == 1'
        )
        return {sample["feature"] for sample, _ in found}


def written(path: Path, rows: Sequence[Row]) -> Path:
    """The rows as CSV, in place of what was there."""
    beside = path.with_suffix(".new")
    with beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    beside.replace(path)
    return path


def synthetic(seed: int, rows: int = 12_000) -> Market:
    """Of elec2's kind: whether demand is above what is usual at that price. Then demand rises, and that is usual now.

    One class in twenty is told wrong.
    """
    rng = np.random.default_rng([seed, 7])
    eras = []
    for number, usual in ((0, 0.0), (1, RISE)):
        given = stream.rows(rows, 10 * seed + number, {"demand": usual} if usual else None)
        wrong = rng.random(rows) < 0.05
        flipped = dict(zip(stream.CLASSES, reversed(stream.CLASSES), strict=True))
        told = [stream.label(row, usual=usual * stream.DEMAND_STD) for row in given]
        eras.append(
            [row | {"class": flipped[one] if bad else one} for row, one, bad in zip(given, told, wrong, strict=True)]
        )
    categories = {"weather": stream.WEATHERS, "class": stream.CLASSES}
    kinds = {"price": "number", "demand": "number", "transfer": "integer", "weather": "string", "class": "string"}
    return Market(schema("market", kinds, categories), *eras)


def schema(name: str, kinds: Mapping[str, str], categories: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A table schema whose target is the column `class`."""
    fields = []
    for field, kind in kinds.items():
        listed = {"enum": list(categories[field])} if field in categories else {}
        fields.append({"name": field, "type": kind, "constraints": {"required": True} | listed})
    return {"name": name, "target": "class", "fields": fields}
