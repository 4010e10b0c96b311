"""The folded network is the trained one, but for rounding, whatever its layers and features are."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from kanary.modelspec import Architecture, CategoricalFeature, Feature, NumericFeature
from serving.model.folded import fold
from serving.model.network import TabularMLP

NUMBERS: tuple[Feature, ...] = tuple(NumericFeature(f"n{i}", "number", 0.0, 1.0, 0.0) for i in range(3))
CATEGORIES: tuple[Feature, ...] = tuple(
    CategoricalFeature(f"c{i}", "string", tuple(map(str, range(2 + i)))) for i in range(3)
)
PLAIN = Architecture("mlp", (8, 5), 0.5, ())


@pytest.mark.parametrize("hidden", [(), (1,), (8, 5), (16, 16, 16)])
@pytest.mark.parametrize("features", [NUMBERS, CATEGORIES, NUMBERS + CATEGORIES, CATEGORIES[2:], NUMBERS[:1]])
def test_the_folded_network_gives_what_the_trained_one_gives(
    features: tuple[Feature, ...], hidden: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    sizes = tuple(2 + place for place, feature in enumerate(f for f in features if isinstance(f, CategoricalFeature)))
    network = TabularMLP(features, 3, dataclasses.replace(PLAIN, hidden=hidden, embeddings=sizes)).eval()
    categorical = [feature for feature in features if isinstance(feature, CategoricalFeature)]
    for rows in (1, 2, 70):
        numbers = torch.randn(rows, len(features) - len(categorical))
        indices = torch.stack(
            [torch.randint(0, len(feature.categories) + 1, (rows,)) for feature in categorical]
            or [torch.zeros(rows, dtype=torch.int64)],
            dim=1,
        )[:, : len(categorical)]
        with torch.inference_mode():
            expected = network(numbers, indices)
            assert fold(network)(numbers, indices).numpy() == pytest.approx(expected.numpy(), abs=1e-5)
