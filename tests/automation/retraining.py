"""Looks of the `monitoring` pipeline at a service, run after run, and what they have started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanary import config, kfp, kfp_wait
from kanary.api import Client
from kanary.kfp_spec import read_pipeline
from kanary.kfp_types import Run
from pipelines import compile as compilation
from tests.rollout.rig import NAMESPACE, Sandbox

EXPERIMENT = "retraining"


@dataclass(frozen=True)
class Monitoring:
    """The compiled pipelines in `folder`, and what each look at the service is given."""

    sandbox: Sandbox
    folder: Path
    service: str
    training: Mapping[str, Any]
    policy: Mapping[str, Any]

    def look(self) -> tuple[str, str]:
        """One run of the pipeline: its action, and what was told."""
        given = {
            "service": self.service,
            "namespace": NAMESPACE,
            "training_uri": str(self.folder / "training.yaml"),
            "training_parameters": dict(self.training),
            "policy": dict(self.policy),
            "experiment": f"{EXPERIMENT}-{self.service}",
        }
        run = self.run("monitoring", given)
        assert run.state == "SUCCEEDED", run.error
        (looked,) = (task for task in run.tasks if task.name == "retrain")
        return looked.outputs.parameters["action"], looked.outputs.parameters["told"]

    def run(self, pipeline: str, parameters: Mapping[str, Any]) -> Run:
        """A run of one of the compiled pipelines, ended."""
        path = self.folder / f"{pipeline}.yaml"
        compiled = read_pipeline(path.read_text(encoding="utf-8"), str(path))
        with self.api() as api:
            begun = api.call(kfp.create_run(compiled.spec, name=pipeline, parameters=parameters))
            return kfp_wait.wait(api, begun.run_id, deadline=900)

    def retrainings(self) -> tuple[Run, ...]:
        """All that were ever started for the service, the newest first."""
        with self.api() as api:
            group = api.call(kfp.ensure_experiment(f"{EXPERIMENT}-{self.service}"))
            return api.call(kfp.newest_runs(100, predicates=(), experiment_id=group.experiment_id)).runs

    def ended(self, run: Run, deadline: float = 900) -> Run:
        """The run in its final state."""
        with self.api() as api:
            return kfp_wait.wait(api, run.run_id, deadline=deadline)

    def api(self) -> Client:
        """The sandbox's Kubeflow Pipelines."""
        return Client(kfp.server(config.load({"home": str(self.sandbox.home)}, environ={})))


def compiled(folder: Path) -> Path:
    """The folder, with the pipelines compiled into it."""
    assert compilation.main(["--out", str(folder)]) == 0
    return folder
