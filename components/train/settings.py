"""What a person may choose about training, and what of it cannot be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from kanary.errors import InputError
from kanary.modelspec import NAME, VERSION


@dataclass(frozen=True)
class Settings:
    """The defaults suit tables of some hundreds to some hundred thousand rows.

    `epochs` is the most there will be; training stops after `patience` epochs without a better validation loss.
    `balanced` weighs classes inversely to their frequency.
    """

    seed: int = 0
    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-3
    hidden: tuple[int, ...] = (64, 32)
    dropout: float = 0.1
    patience: int = 15
    validation_fraction: float = 0.15
    balanced: bool = False

    def __post_init__(self) -> None:
        for holds, what in [
            (0 <= self.seed < 2**63, f"seed is {self.seed}; it must be from 0 to below 2**63"),
            (self.epochs >= 1, f"epochs is {self.epochs}; it must be 1 at least"),
            (self.batch_size >= 1, f"batch_size is {self.batch_size}; it must be 1 at least"),
            (self.patience >= 1, f"patience is {self.patience}; it must be 1 at least"),
            (0 < self.learning_rate < math.inf, f"learning_rate is {self.learning_rate}; it must be above 0"),
            (all(size >= 1 for size in self.hidden), f"hidden is {list(self.hidden)}; sizes must be 1 at least"),
            (0 <= self.dropout < 1, f"dropout is {self.dropout}; it must be from 0 to below 1"),
            (0 < self.validation_fraction <= 0.5, f"validation_fraction is {self.validation_fraction}; 0 to 0.5"),
        ]:
            if not holds:
                raise InputError(f"train: {what}", "change the pipeline's parameter")


def layer_sizes(values: Sequence[object]) -> tuple[int, ...]:
    """Hidden layer sizes as KFP hands them over: numbers in a list arrive as floats."""
    sizes = [int(value) for value in values if _is_whole(value)]
    if len(sizes) < len(values):
        raise InputError(f"train: hidden is {list(values)!r}; it must be a list of whole numbers", "say [64, 32]")
    return tuple(sizes)


def _is_whole(value: object) -> TypeGuard[int | float]:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return whole and not isinstance(value, bool)


def check_identity(name: str, version: str) -> None:
    """InputError for a name or version that cannot be part of a path, a URL and a Kubernetes object."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"train: the model's name is {name!r}", "use lower-case letters, digits and '-', a letter first"
        )
    if version and not VERSION.fullmatch(version):
        raise InputError(f"train: the version is {version!r}", "use up to 63 letters, digits, '.', '_' and '-'")
