"""The network: a multilayer perceptron over standardised numbers and embedded categories. Knows no files."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kanary.modelspec import Architecture, CategoricalFeature, Feature, ModelSpec


class TabularMLP(nn.Module):
    """Logits [rows, classes] from `numeric` float32 [rows, n] and `categorical` int64 [rows, m] (0: none known)."""

    def __init__(self, features: Sequence[Feature], classes: int, architecture: Architecture) -> None:
        super().__init__()
        categorical = [feature for feature in features if isinstance(feature, CategoricalFeature)]
        embeddings = [
            nn.Embedding(len(feature.categories) + 1, size)
            for feature, size in zip(categorical, architecture.embeddings, strict=True)
        ]
        self.embeddings = nn.ModuleList(embeddings)
        width = len(features) - len(categorical) + sum(architecture.embeddings)
        layers: list[nn.Module] = []
        for hidden in architecture.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(architecture.dropout)]
            width = hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, classes))

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        embedded = [embedding(categorical[:, column]) for column, embedding in enumerate(self.embeddings)]
        logits: Tensor = self.layers(torch.cat([numeric, *embedded], dim=1))
        return logits


def silence_unseen(network: TabularMLP, seen: Tensor) -> None:
    """Zero the embeddings of categories not in `seen`, int64 [rows, m]: what training never met is neutral, not noise.

    For a network about to be trained: no gradient ever reaches these rows, so they stay zero.
    """
    with torch.no_grad():
        for column, embedding in enumerate(network.embeddings):
            weight = embedding.get_parameter("weight")
            weight[torch.bincount(seen[:, column], minlength=len(weight)) == 0] = 0.0


def build(spec: ModelSpec) -> TabularMLP:
    """The network that `spec` describes, with weights yet to be loaded."""
    return TabularMLP(spec.features, len(spec.classes), spec.architecture)


def embedding_size(categories: int) -> int:
    """How many numbers stand for one of `categories` values: grows with the root, 16 at most."""
    return min(16, 1 + math.isqrt(categories))
