"""Training: from a typed Parquet table and its schema to a model directory. `train` reads from top to bottom.

Everything random comes from the seed, so the same data, settings and versions give the same digest on the
same kind of device. Never sees the test set, and never writes a model whose loss was not a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from components.train.data import columns_of, fit_feature, read, reference_rows, stratified
from components.train.fitting import Fit, Say, class_weights, few_threads, fit_network, on_device, reproducible, tell
from components.train.settings import Settings, check_identity
from kanary import __version__
from kanary.dataschema import TableSchema
from kanary.modelspec import FORMAT, Architecture, CategoricalFeature, Lineage, ModelSpec, Training
from serving.model import store
from serving.model.network import TabularMLP, embedding_size, silence_unseen
from serving.model.preprocess import category_text, class_indices, transform


@dataclass(frozen=True)
class Trained:
    """The model that was written and how its training went; `device` is its name for people."""

    spec: ModelSpec
    fit: Fit
    device: str

    def metrics(self) -> dict[str, float]:
        """Final figures, all finite: losses of the epoch that was kept, epochs run, rows fitted a second."""
        return {
            "loss": self.fit.best.loss,
            "validation_loss": self.fit.best.validation_loss,
            "epochs": len(self.fit.history),
            "best_epoch": self.fit.best.number,
            "rows_per_second": round(self.fit.rows_per_second),
        }


def train(
    data: Path,
    schema: TableSchema,
    directory: Path,
    name: str,
    version: str = "",
    settings: Settings | None = None,
    say: Say = tell,
) -> Trained:
    """Train a classifier on the Parquet file `data` and write its model directory.

    Without a `version` it gets one from its weights. Progress goes to `say`, some dozen lines.
    InputError for a name that cannot be and for a loss that stops being a number, DataError for unusable data.
    """
    settings = settings or Settings()
    check_identity(name, version)
    table, data_sha256 = read(data, schema)
    columns = columns_of(table)
    classes = tuple(category_text(value) for value in schema.classes)
    target = class_indices(schema.target, schema.target_field.type, classes, columns[schema.target])

    # Features are fitted without the rows held out, so that these stay a fair measure of when to stop.
    kept, held = stratified(target, len(classes), settings.validation_fraction, np.random.default_rng(settings.seed))
    features = tuple(fit_feature(field, columns[field.name][kept]) for field in schema.features)
    arrays = transform(features, columns)
    embeddings = tuple(embedding_size(len(f.categories)) for f in features if isinstance(f, CategoricalFeature))
    architecture = Architecture("mlp", settings.hidden, settings.dropout, embeddings)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device_name = f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "cpu"
    counts = np.bincount(target, minlength=len(classes))
    absent = [label for label, count in zip(classes, counts, strict=True) if not count]
    say(f"{name}: {len(kept)} rows to fit, {len(held)} to stop by, {len(features)} features, {len(classes)} classes")
    if absent:
        say(f"no row is of {', '.join(absent)}: the model cannot learn what tells them apart")
    say(f"device {device_name}, seed {settings.seed}, at most {settings.epochs} epochs")
    with reproducible(settings.seed, device):
        network = TabularMLP(features, len(classes), architecture)
        silence_unseen(network, torch.from_numpy(arrays.categorical[kept]))
        fit_batch = on_device(device, arrays.take(kept), target[kept])
        held_batch = on_device(device, arrays.take(held), target[held])
        weight = class_weights(fit_batch.target, len(classes)) if settings.balanced else None
        with few_threads(network, settings.batch_size):
            fit = fit_network(network.to(device), fit_batch, held_batch, weight, settings, say)

    draft = ModelSpec(
        format=FORMAT,
        name=name,
        version=version,
        target=schema.target,
        target_type=cast(Any, schema.target_field.type),
        classes=classes,
        features=features,
        sensitive=tuple(field.name for field in schema.sensitive),
        architecture=architecture,
        lineage=_lineage(data_sha256, schema, len(target), settings),
        training=_training(fit, settings, len(held), device),
        files={},
    )
    spec = store.save(directory, draft, fit.state, reference_rows(table, settings.seed))
    say(f"kept epoch {fit.best.number}, validation loss {fit.best.validation_loss:.4f}: version {spec.version}")
    return Trained(spec, fit, device_name)


def _lineage(data_sha256: str, schema: TableSchema, rows: int, settings: Settings) -> Lineage:
    return Lineage(
        data_sha256=data_sha256,
        schema_sha256=schema.digest(),
        rows=rows,
        seed=settings.seed,
        code_version=__version__,
        torch=str(torch.__version__),
    )


def _training(fit: Fit, settings: Settings, held: int, device: torch.device) -> Training:
    return Training(
        epochs=len(fit.history),
        best_epoch=fit.best.number,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        validation_rows=held,
        validation_loss=fit.best.validation_loss,
        balanced=settings.balanced,
        device=device.type,
    )
