"""Which model an event is about: looked for among the releases, by digest, else by name and version. Reads, verifies.

A release is a folder with model.json: RELEASES/NAME/VERSION, as the package step publishes them, or RELEASES itself.
"""

from __future__ import annotations

import glob
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kanary import modelspec
from kanary.errors import KanaryError
from kanary.modelspec import REFERENCE, SPEC, ModelSpec
from serving.drift.events import Source

_DEEPEST = 2
AGAIN_S = 10.0


@dataclass(frozen=True)
class Model:
    """A verified model directory. `key` names the content that a detector is fitted to."""

    folder: Path
    spec: ModelSpec
    digest: str

    @property
    def key(self) -> str:
        """Of the reference rows and of the features that say how they are read."""
        features = repr((self.spec.features, self.spec.classes, self.spec.files[REFERENCE]))
        return hashlib.sha256(features.encode()).hexdigest()


@dataclass
class Models:
    """The models below `roots`, looked for every AGAIN_S at most: whatever versions events name, the disk has rest."""

    roots: Sequence[Path]
    _found: dict[tuple[str, str, str], Model] = field(default_factory=dict)
    _listed: tuple[Model, ...] = ()
    _listed_at: float = -math.inf

    def of(self, source: Source, now: float) -> Model | None:
        """The model of a source, None where there is none, or more than one that it could be."""
        key = (source.digest, source.service, source.version)
        if key in self._found:
            return self._found[key]
        if now >= self._listed_at + AGAIN_S:
            self._listed, self._listed_at = tuple(self._all()), now
        fitting = {model.digest: model for model in self._listed if _fits(model, source)}
        # A service need not be called as its model is; where it is, that tells models of one version apart.
        named = {digest: model for digest, model in fitting.items() if model.spec.name == source.service}
        chosen = fitting if len(fitting) == 1 else named
        if len(chosen) != 1:
            return None
        (self._found[key],) = chosen.values()
        return self._found[key]

    def _all(self) -> Iterator[Model]:
        for root in self.roots:
            for depth in range(_DEEPEST + 1):
                # Unlike Path.glob it passes by folders that go meanwhile, and by hidden ones: copies being made.
                for path in sorted(glob.glob("*/" * depth + SPEC, root_dir=root)):
                    folder = (root / path).parent
                    try:
                        spec = modelspec.verify(folder)
                    except KanaryError:  # half copied, or altered: no model to compare with
                        continue
                    yield Model(folder, spec, spec.digest())


def _fits(model: Model, source: Source) -> bool:
    if source.digest:
        return model.digest == source.digest
    return bool(source.version) and model.spec.version == source.version
