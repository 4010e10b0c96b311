"""Prediction: columns in, probabilities out, by a verified model. Speaks no protocol; servers wrap it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from kanary.modelspec import ModelSpec
from serving.model import store
from serving.model.folded import FoldedMLP, fold
from serving.model.preprocess import Columns, Encoded, Preprocessor

# Rows that go through the network at once, so that memory stays bounded whatever is asked.
_CHUNK = 16_384


@dataclass(frozen=True)
class Predictor:
    """A model ready to predict. `spec` says which; `network` is the trained one, folded, on `device`."""

    spec: ModelSpec
    preprocessor: Preprocessor
    network: FoldedMLP
    device: str = "cpu"

    @classmethod
    def load(cls, directory: Path | str, expected_digest: str | None = None, device: str = "cpu") -> Predictor:
        """The model in `directory`. ModelError where a file is missing or altered, or the digest is another."""
        spec, network = store.load(Path(directory), expected_digest)
        return cls(spec, Preprocessor(spec.features), fold(network.to(device)), device)

    def predict_proba(self, columns: Columns) -> npt.NDArray[np.float64]:
        """Probabilities [rows, classes], in the order of `spec.classes`; every row adds up to 1.

        InputError for columns that are missing or ragged, or a value that cannot be a number.
        """
        return self.probabilities(self.preprocessor.encode(columns))

    def probabilities(self, encoded: Encoded) -> npt.NDArray[np.float64]:
        """The same for rows that have been read already. A row's are the same in any company, but for rounding."""
        arrays = self.preprocessor.arrays(encoded)
        if len(arrays) <= _CHUNK:
            return self._softmax(torch.from_numpy(arrays.numeric), torch.from_numpy(arrays.categorical))
        numeric = torch.split(torch.from_numpy(arrays.numeric), _CHUNK)
        categorical = torch.split(torch.from_numpy(arrays.categorical), _CHUNK)
        return np.concatenate([self._softmax(*chunk) for chunk in zip(numeric, categorical, strict=True)])

    def _softmax(self, numeric: torch.Tensor, categorical: torch.Tensor) -> npt.NDArray[np.float64]:
        with torch.inference_mode():
            logits = self.network(numeric.to(self.device), categorical.to(self.device))
            probabilities: npt.NDArray[np.float64] = logits.double().softmax(dim=1).cpu().numpy()
        return probabilities

    def labels(self, probabilities: npt.NDArray[np.float64]) -> list[str]:
        """The likeliest class of every row, as the text in `spec.classes`."""
        return [self.spec.classes[index] for index in probabilities.argmax(axis=1).tolist()]
