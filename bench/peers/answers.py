"""What every peer's model does with a request: the same prediction by the same code. Knows none of the servers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from serving.model.predict import Predictor

# What the bench tells its servers.
MODEL = "KANARY_BENCH_MODEL"
PORT = "KANARY_BENCH_PORT"
# For servers that gather requests into batches: waiting longer than a prediction takes would gain nothing.
MOST_ROWS = 64
WAIT_S = 0.001


@dataclass(frozen=True)
class Answers:
    """The loaded model, asked in plain values."""

    predictor: Predictor

    def rows(self, instances: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """V1: a label and the probability of every class, for every instance."""
        columns = {f.name: [instance[f.name] for instance in instances] for f in self.predictor.spec.features}
        labels, probabilities = self.columns(columns)
        return [
            {"label": label, "probabilities": dict(zip(self.predictor.spec.classes, row, strict=True))}
            for label, row in zip(labels, probabilities, strict=True)
        ]

    def columns(self, columns: Mapping[str, Sequence[Any]]) -> tuple[list[str], list[list[float]]]:
        """V2: a label, and the probabilities of all classes, for every row."""
        probabilities = self.predictor.predict_proba(columns)
        return self.predictor.labels(probabilities), probabilities.tolist()


def load() -> Answers:
    """The model that the bench names, with as many torch threads as it says."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return Answers(Predictor.load(os.environ[MODEL]))
