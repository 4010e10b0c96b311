"""Prediction: columns in, probabilities out, by a verified model. Speaks no protocol; servers wrap it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from kanary.modelspec import ModelSpec
from serving.model import store
from serving.model.network import TabularMLP
from serving.model.preprocess import Columns, transform

# Rows that go through the network at once, so that memory stays bounded whatever is asked.
_CHUNK = 16_384


@dataclass(frozen=True)
class Predictor:
    """A model ready to predict. `spec` says which; `network` is in evaluation mode on `device`."""

    spec: ModelSpec
    network: TabularMLP
    device: str = "cpu"

    @classmethod
    def load(cls, directory: Path | str, expected_digest: str | None = None, device: str = "cpu") -> Predictor:
        """The model in `directory`. ModelError where a file is missing or altered, or the digest is another."""
        spec, network = store.load(Path(directory), expected_digest)
        return cls(spec, network.to(device), device)

    def predict_proba(self, columns: Columns) -> npt.NDArray[np.float64]:
        """Probabilities [rows, classes], in the order of `spec.classes`; every row adds up to 1.

        InputError for columns that are missing or ragged, or a value that cannot be a number.
        """
        arrays = transform(self.spec.features, columns)
        numeric = torch.split(torch.from_numpy(arrays.numeric), _CHUNK)
        categorical = torch.split(torch.from_numpy(arrays.categorical), _CHUNK)
        with torch.inference_mode():
            chunks = [
                self.network(numbers.to(self.device), indices.to(self.device)).double().softmax(dim=1).cpu()
                for numbers, indices in zip(numeric, categorical, strict=True)
            ]
        probabilities: npt.NDArray[np.float64] = torch.cat(chunks).numpy()
        return probabilities

    def labels(self, probabilities: npt.NDArray[np.float64]) -> list[str]:
        """The likeliest class of every row, as the text in `spec.classes`."""
        return [self.spec.classes[index] for index in probabilities.argmax(axis=1)]
