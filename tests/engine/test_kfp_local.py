"""Where kfp.local is right the engine agrees with it: on one pipeline always, on all of conformance in the soak."""

# ruff: noqa: I002 -- kfp reads the types of components and pipelines from live annotations
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from tests.engine import kfp_local, steps

CONFORMANCE = ("test_loops.py", "test_branches.py", "test_endings.py", "test_values.py")


def test_kfp_local_agrees_on_a_loop_a_branch_and_what_is_collected(engine: Any, compiled: Any) -> None:
    @dsl.pipeline(name="agreed")
    def pipeline(threshold: int = 4) -> None:
        with dsl.ParallelFor(["a", "b"]) as item:
            given = steps.text(value=item)
        steps.joined(values=dsl.Collected(given.output))
        with dsl.If(threshold > 3):
            steps.double(value=threshold)
        with dsl.Else():
            steps.text(value="never")

    spec = compiled(pipeline)
    outcome = engine.run(spec)
    assert outcome.run.state == "SUCCEEDED"
    kfp_local.assert_agrees(spec, {}, outcome.run.state, outcome.outputs())


@pytest.mark.soak
def test_kfp_local_agrees_on_every_conformance_pipeline_that_does_not_say_otherwise() -> None:
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(here / name) for name in CONFORMANCE)],
        env=os.environ | {"KANARY_KFP_LOCAL": "1"},
        cwd=here.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
