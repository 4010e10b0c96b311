"""The KFP interface of split."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from components.images import image


@dsl.component(base_image=image("pipeline"), install_kfp_package=False)
def split(
    dataset: Input[Dataset],
    schema: Input[Artifact],
    train_set: Output[Dataset],
    test_set: Output[Dataset],
    test_fraction: float = 0.2,
    seed: int = 0,
    by: str = "random",
) -> NamedTuple("Outputs", [("train_rows", int), ("test_rows", int)]):  # type: ignore[valid-type]  # kfp wants it inline
    """Split a validated dataset into a training and a test part.

    Args:
        dataset: What validate wrote.
        schema: The table schema, from validate.
        test_fraction: Share of the rows to test on, between 0 and 1.
        seed: Seed of the random split.
        by: random (stratified by the target) or time (the latest rows are tested).

    Returns:
        train_rows: Number of rows to train on.
        test_rows: Number of rows to test on.
    """
    from pathlib import Path

    from components.split.dataset import split_dataset
    from components.step import reporting
    from kanary.dataschema import load

    with reporting():
        train, test = split_dataset(
            Path(dataset.path),
            load(Path(schema.path).read_text(encoding="utf-8")),
            Path(train_set.path),
            Path(test_set.path),
            test_fraction=test_fraction,
            seed=seed,
            by=by,
        )
        drawn = {"by": by, "seed": seed, "test_fraction": test_fraction}
        train_set.metadata.update(part="train", **drawn, **train.metadata())
        test_set.metadata.update(part="test", **drawn, **test.metadata())
        print(f"{train.rows} rows to train on, {test.rows} to test on")
        return (train.rows, test.rows)
