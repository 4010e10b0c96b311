"""A synthetic market in time order, of elec2's kind: prices and demands, a class, and drift where it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from kanary.modelspec import Architecture, CategoricalFeature, Lineage, ModelSpec, NumericFeature, Training
from serving.model import store
from serving.model.network import build

FEATURES = ("price", "demand", "transfer", "weather")
WEATHERS = ("clear", "cloudy", "storm")
CLASSES = ("down", "up")
DEMAND_STD = 1.2
TYPE = "org.kubeflow.serving.inference."


def rows(number: int, seed: int, shift: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
    """So many rows; `shift` moves a number by so many standard deviations, or makes storms so much likelier."""
    rng, shift = np.random.default_rng(seed), dict(shift or {})
    share = np.array([0.5, 0.4, 0.1])
    if extra := shift.get("weather", 0.0):
        share = np.array([0.5 - extra, 0.4, 0.1 + extra])
    price = rng.gamma(2.0, 1.0, number) + shift.get("price", 0.0) * 1.41
    demand = 5.0 + rng.normal(size=number) + 0.5 * price + shift.get("demand", 0.0) * DEMAND_STD
    transfer = rng.integers(0, 50, number) + round(shift.get("transfer", 0.0) * 14.4)
    weather = rng.choice(WEATHERS, number, p=share)
    return [
        {"price": float(p), "demand": float(d), "transfer": int(t), "weather": str(w)}
        for p, d, t, w in zip(price, demand, transfer, weather, strict=True)
    ]


def label(row: Mapping[str, Any], turned: bool = False, usual: float = 0.0) -> str:
    """The true class of a row, for a demand that is so much higher than it was usual.

    `turned`: the concept has drifted, and what meant up means down.
    """
    return CLASSES[(row["demand"] > 5.5 + usual + 0.4 * row["price"]) ^ turned]


def write_model(
    folder: Path, reference: list[dict[str, Any]], version: str = "v1", seed: int = 0, name: str = "market"
) -> ModelSpec:
    """A model directory with these reference rows and weights that answer at random, the same for the same seed."""
    numbers = {key: np.array([row[key] for row in reference], dtype=float) for key in FEATURES[:3]}
    spec = ModelSpec(
        format="kanary/2",
        name=name,
        version=version,
        target="class",
        target_type="string",
        classes=CLASSES,
        features=(
            *(
                NumericFeature(
                    key,
                    "integer" if key == "transfer" else "number",
                    mean=float(values.mean()),
                    std=float(values.std()),
                    fill=float(np.median(values)),
                )
                for key, values in numbers.items()
            ),
            CategoricalFeature("weather", "string", WEATHERS),
        ),
        sensitive=(),
        architecture=Architecture("mlp", (8,), 0.1, (2,)),
        lineage=Lineage("0" * 64, "1" * 64, len(reference), 0, "0.1.0", "2"),
        training=Training(1, 1, 4, 0.001, 1, 0.5, False, "cpu"),
        files={},
    )
    torch.manual_seed(seed)
    table = pa.Table.from_pylist([row | {"class": label(row)} for row in reference])
    return store.save(folder, spec, build(spec).state_dict(), table)


@dataclass(frozen=True)
class About:
    """Whose events are made."""

    version: str = "v1"
    revision: str = "market-predictor-00001"
    service: str = "market"
    namespace: str = "default"
    digest: str = ""


def headers(about: About, kind: str, event_id: str) -> dict[str, str]:
    """An event's headers as the payload log writes them."""
    annotations = {"model-version": about.version} | ({"model-digest": about.digest} if about.digest else {})
    return {
        "Content-Type": "application/json",
        "Ce-Specversion": "1.0",
        "Ce-Type": TYPE + kind,
        "Ce-Id": event_id,
        "Ce-Source": "pod",
        "Ce-Inferenceservicename": about.service,
        "Ce-Namespace": about.namespace,
        "Ce-Component": "predictor",
        "Ce-Endpoint": "",
        "Ce-Revision": about.revision,
        "Ce-Annotations": json.dumps(annotations),
        "Ce-Metadata": "{}",
    }


def request(*given: Mapping[str, Any]) -> bytes:
    """A V1 request."""
    return json.dumps({"instances": list(given)}).encode()


def response(*given: Mapping[str, Any], wrong: float = 0.0, rng: np.random.Generator | None = None) -> bytes:
    """A V1 response of a model that is right but for a share `wrong`."""
    rng = rng or np.random.default_rng(0)
    made = []
    for row in given:
        truth = label(row)
        answered = CLASSES[1 - CLASSES.index(truth)] if rng.random() < wrong else truth
        sure = float(np.clip(0.75 + 0.1 * rng.normal(), 0.51, 0.99))
        other = CLASSES[1 - CLASSES.index(answered)]
        made.append({"label": answered, "probabilities": {answered: sure, other: 1 - sure}})
    return json.dumps({"predictions": made}).encode()


def wire(about: About, kind: str, event_id: str, body: bytes, path: str = "/") -> bytes:
    """The bytes of one POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: sink", *(f"{k}: {v}" for k, v in headers(about, kind, event_id).items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def exchanges(
    about: About, given: list[dict[str, Any]], prefix: str = "", wrong: float = 0.0, seed: int = 0
) -> Iterator[bytes]:
    """Two events a row, as bytes: its request and its response."""
    rng = np.random.default_rng(seed)
    for number, row in enumerate(given):
        event_id = f"{prefix}{number}"
        yield wire(about, "request", event_id, request(row))
        yield wire(about, "response", event_id, response(row, wrong=wrong, rng=rng))
