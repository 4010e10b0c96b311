"""How many steps run at a time, from which parent they are forked, and what no parent has done."""

# ruff: noqa: I002 -- kfp reads the types of components and pipelines from live annotations
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from sandbox.engine import lightweight, step
from sandbox.engine.step import cores
from tests.engine import steps


@steps.component
def stays(item: int) -> list:  # type: ignore[type-arg]
    import time

    began = time.monotonic()
    time.sleep(0.3)
    return [began, time.monotonic()]


def test_as_many_independent_steps_run_at_a_time_as_there_are_cores(
    engine: Any, compiled: Callable[[Any], dict[str, Any]]
) -> None:
    number = 2 * cores() + 1

    @dsl.pipeline(name="side-by-side")
    def pipeline() -> None:
        for item in range(number):
            stays(item=item).set_caching_options(False)

    spans = list(engine.run(compiled(pipeline)).outputs().values())
    assert len(spans) == number
    at_once = [sum(began <= moment < ended for began, ended in spans) for moment, _ in spans]
    assert max(at_once) <= cores()
    assert max(at_once) > 1 or cores() == 1


@pytest.mark.parametrize(
    ("image", "parent"),
    [
        ("python:3.11", "bare"),
        ("ghcr.io/x/kanary/pipeline:1", "light"),
        ("ghcr.io/x/kanary/train:1", "torch"),
        ("ghcr.io/x/kanary/drift@sha256:00", "torch"),
        ("someone/elses:1", "torch"),
    ],
)
def test_a_step_is_forked_from_the_parent_that_suits_its_image(tmp_path: Path, image: str, parent: str) -> None:
    parents = step.parents(tmp_path, threads=1)
    light = lightweight.Lightweight("f", "", image, (), 0, lightweight.extras_of(image, {}))
    assert parents.of(light) is getattr(parents, parent)


def test_no_parent_has_touched_a_gpu_and_a_step_may(engine: Any, compiled: Callable[[Any], dict[str, Any]]) -> None:
    @dsl.component(base_image="localhost/kanary/train:1", install_kfp_package=False)
    def uses() -> list:  # type: ignore[type-arg]
        import os

        import torch

        parent = f"/proc/{os.getppid()}/fd"
        held = [os.readlink(f"{parent}/{number}") for number in os.listdir(parent)]
        spoilt = torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork()  # type: ignore[no-untyped-call]
        found = float(torch.ones(3, device="cuda" if torch.cuda.is_available() else "cpu").sum())
        return [any("nvidia" in name for name in held), spoilt, found]

    @dsl.pipeline(name="gpu")
    def pipeline() -> None:
        uses()

    outcome = engine.run(compiled(pipeline))
    assert outcome.output("uses") == [False, False, 3.0], outcome.run.error
