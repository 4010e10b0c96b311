"""From a folder to a service that has predicted once: found, verified, loaded, warmed up. Serves nothing itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from kanary.errors import ModelError
from kanary.modelspec import REFERENCE, RELEASE, SPEC
from serving.model import store
from serving.model.predict import Predictor
from serving.model.preprocess import Encoded
from serving.predictor.batcher import measure
from serving.predictor.contract import contract
from serving.predictor.metrics import Metrics
from serving.predictor.service import Service

_WARM_UP_ROWS = 8


def load(directory: Path, name: str = "", digest: str = "") -> Service:
    """The service of the model in `directory`, verified against `digest` and release.json, after a warm-up prediction.

    `name` defaults to the model's own. ModelError where the model is incomplete, altered, another, or predicts
    nonsense.
    """
    directory = locate(directory)
    predictor = Predictor.load(directory, expected_digest(directory, digest))
    spec = predictor.spec
    cost = measure(predictor.probabilities, warm_up(predictor, directory))
    name = name or spec.name
    return Service(name, predictor, contract(spec, predictor.preprocessor), Metrics(name, spec), cost)


def locate(directory: Path) -> Path:
    """`directory`, or the only folder in it where the model lies in that: so an unpacked archive leaves it."""
    if (directory / SPEC).is_file():
        return directory
    inside = [path for path in directory.glob(f"*/{SPEC}") if path.is_file()]
    if len(inside) == 1:
        return inside[0].parent
    raise ModelError(
        f"{directory} holds no model: there is no {SPEC}",
        "storageUri must name the folder that the package step wrote",
    )


def expected_digest(directory: Path, given: str) -> str | None:
    """The digest that the model must have: the one given, the one in release.json; None where there is neither.

    ModelError where release.json is not whole or says otherwise than what is given.
    """
    try:
        text = (directory / RELEASE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return given or None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{directory / RELEASE} cannot be read: {error}", "package the model again") from None
    try:
        released = json.loads(text)["digest"]
    except (ValueError, RecursionError, TypeError, KeyError):
        released = None
    if not isinstance(released, str):
        raise ModelError(f"{directory / RELEASE} holds no digest", "package the model again")
    if given and given != released:
        raise ModelError(
            f"{directory / RELEASE} is not the release expected: its digest is {released}, not {given}",
            "deploy the release whose digest was asked for, or ask for this one's",
        )
    return released


def warm_up(predictor: Predictor, directory: Path) -> Encoded:
    """Predict some of the model's own rows, and give them. ModelError where that gives no probabilities."""
    spec = predictor.spec
    rows = store.reference_rows(directory, spec).slice(0, _WARM_UP_ROWS)
    missing = [feature.name for feature in spec.features if feature.name not in rows.column_names]
    if missing or not len(rows):
        what = f"lacks the columns {', '.join(missing)}" if missing else "holds no row"
        raise ModelError(f"{directory / REFERENCE} {what}", "train the model again")
    encoded = predictor.preprocessor.encode({feature.name: rows[feature.name].to_pylist() for feature in spec.features})
    probabilities = predictor.probabilities(encoded)
    if probabilities.shape != (len(rows), len(spec.classes)) or not np.allclose(probabilities.sum(axis=1), 1.0):
        raise ModelError(f"{directory} gives no probabilities for its own reference rows", "train the model again")
    return encoded
