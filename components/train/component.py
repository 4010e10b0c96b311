# ruff: noqa: B006 -- kfp wants defaults it can write down, and reads annotations as objects, not as text
"""The KFP interface of train."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def train(
    train_set: Input[Dataset],
    schema: Input[Artifact],
    model: Output[Model],
    history: Output[Metrics],
    curve: Output[HTML],
    name: str,
    version: str = "",
    seed: int = 0,
    epochs: int = 100,
    batch_size: int = 64,
    learning_rate: float = 0.001,
    hidden: list = [64, 32],  # type: ignore[type-arg]  # kfp knows the bare type only
    dropout: float = 0.1,
    patience: int = 15,
    validation_fraction: float = 0.15,
    balanced: bool = False,
) -> NamedTuple("Outputs", [("version", str), ("digest", str)]):  # type: ignore[valid-type]  # kfp wants it inline
    """Train a PyTorch classifier on the CPU or the GPU, by what is there, and write its model directory.

    Args:
        train_set: The training part, from split.
        schema: The table schema, from validate.
        name: The model's name: lower-case letters, digits and '-', a letter first.
        version: The model's version; empty: derived from its weights.
        seed: Seed of everything random; the same seed and data give the same digest on the same kind of device.
        epochs: Epochs at most.
        batch_size: Rows in a step.
        learning_rate: Step size of AdamW.
        hidden: Sizes of the hidden layers.
        dropout: Share of hidden units dropped while fitting.
        patience: Epochs without a better validation loss after which training stops.
        validation_fraction: Share of the training rows held out to stop by.
        balanced: Weigh classes inversely to their frequency.

    Returns:
        version: The model's version.
        digest: sha256 digest of the model directory.
    """
    from pathlib import Path

    from components.files import write_text
    from components.step import reporting
    from components.train.report import learning_curve
    from components.train.settings import Settings, layer_sizes
    from components.train.training import train
    from kanary.dataschema import load

    with reporting():
        settings = Settings(
            seed=seed,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            hidden=layer_sizes(hidden),
            dropout=dropout,
            patience=patience,
            validation_fraction=validation_fraction,
            balanced=balanced,
        )
        table_schema = load(Path(schema.path).read_text(encoding="utf-8"))
        trained = train(Path(train_set.path), table_schema, Path(model.path), name, version, settings)
        digest = trained.spec.digest()
        model.framework = "pytorch"
        model.metadata.update(name=name, version=trained.spec.version, digest=digest)
        for metric, value in trained.metrics().items():
            history.log_metric(metric, value)
        write_text(Path(curve.path), learning_curve(trained))
        return (trained.spec.version, digest)
