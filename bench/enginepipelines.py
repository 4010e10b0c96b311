"""The pipelines that engines are measured with: five steps in a row, trivial or with torch and pandas; a fan-out."""

# ruff: noqa: I002 -- kfp reads the types of components and pipelines from live annotations
import functools
import tempfile
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler, dsl

STEPS = 5
IMAGE = "localhost/kanary/train:bench"
component = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
trivial_component = functools.partial(dsl.component, base_image="python:3.11", install_kfp_package=False)


@component
def heavy_step(value: float) -> float:
    import pandas
    import torch

    frame = pandas.DataFrame({"x": [value, 1.0]})
    return float(torch.tensor(frame["x"].to_numpy()).sum())


@trivial_component
def trivial_step(value: float) -> float:
    return value + 1.0


def compiled(name: str, fan_out: int = 0) -> dict[str, Any]:
    """The PipelineSpec of "heavy", "trivial" or "fan-out" (over `fan_out` items); no step is cached."""

    @dsl.pipeline(name="heavy")
    def heavy(value: float = 0.0) -> float:
        task = heavy_step(value=value).set_caching_options(False)
        for _ in range(STEPS - 1):
            task = heavy_step(value=task.output).set_caching_options(False)
        return task.output  # type: ignore[no-any-return]

    @dsl.pipeline(name="trivial")
    def trivial(value: float = 0.0) -> float:
        task = trivial_step(value=value).set_caching_options(False)
        for _ in range(STEPS - 1):
            task = trivial_step(value=task.output).set_caching_options(False)
        return task.output  # type: ignore[no-any-return]

    @dsl.pipeline(name="fan-out")
    def fan() -> None:
        with dsl.ParallelFor([float(number) for number in range(max(fan_out, 1))]) as item:
            trivial_step(value=item).set_caching_options(False)

    pipeline = {"heavy": heavy, "trivial": trivial, "fan-out": fan}[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        spec: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return spec
