"""Training runs through the stock `kfp` CLI: submitted, followed step by step, and what came out of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.terminal import COMMAND, step
from kanary import config, kfp
from kanary.api import Client
from kanary.commands.watch import watch
from kanary.errors import KanaryError
from kanary.kfp_types import Run, TaskDetail

EXAMPLE = Path(__file__).resolve().parents[1] / "breast_cancer"
MODEL = "breast-cancer"


@dataclass(frozen=True)
class Prepared:
    """Where the demo's data, good and broken, its schema and its compiled pipelines lie."""

    home: Path
    data: Path
    broken: Path
    schema: Path
    pipeline: Path


def prepare(home: Path) -> Prepared:
    """Write the example's data and compile the pipelines."""
    places = prepared(home)
    make = [sys.executable, "-P", str(EXAMPLE / "make_data.py"), str(places.data.parent), "--broken"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    step("Compile the pipelines")
    compile_ = [sys.executable, "-P", "-m", "pipelines.compile", "--out", str(places.pipeline.parent)]
    subprocess.run(compile_, check=True)
    return places


def prepared(home: Path) -> Prepared:
    """Where that lies."""
    data, compiled = home / "demo" / "data", home / "demo" / "pipelines"
    return Prepared(
        home,
        data / "breast_cancer.csv",
        data / "breast_cancer_broken.csv",
        data / "schema.json",
        compiled / "training.yaml",
    )


def train(prepared: Prepared, name: str, data: Path, **parameters: object) -> Run:
    """Submit the training pipeline through the stock kfp CLI and follow it to its end."""
    given = {
        "name": MODEL,
        "data_uri": data,
        "schema_uri": prepared.schema,
        "gates": (EXAMPLE / "gates.json").read_text(encoding="utf-8"),
        "releases_uri": prepared.home / "releases",
        "split_seed": 1,
        **parameters,
    }
    shown = " ".join(f"{key}={value}" for key, value in parameters.items())
    step(f"kfp run create -e demo -r {name} -f training.yaml data_uri={data.name} {shown} ...")
    command = [str(Path(sys.executable).parent / "kfp"), "--output", "json", "run", "create", "-e", "demo", "-r", name]
    command += ["-f", str(prepared.pipeline), *(f"{key}={value}" for key, value in given.items())]
    with Client(kfp.server(config.load({"home": str(prepared.home)}))) as api:
        environment = os.environ | {"KFP_ENDPOINT": api.server.url, "PYTHONWARNINGS": "ignore"}
        submitted = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if submitted.returncode:
            raise KanaryError(f"kfp run create failed: {submitted.stderr.strip()[-2000:]}")
        run_id = json.loads(submitted.stdout[submitted.stdout.index("{") :])["run_id"]
        return watch(api, run_id, deadline=300)


def must_release(run: Run) -> None:
    """KanaryError unless the run packaged and deployed its model."""
    if run.state != "SUCCEEDED" or any(task(run, name).state != "SUCCEEDED" for name in ("package", "deploy")):
        raise KanaryError(f"The training run {run.name} did not deploy a release.", f"{COMMAND} run {run.run_id[:8]}")


def must_be_refused(run: Run) -> None:
    """KanaryError unless validation refused the run's data and nothing was trained on them."""
    if task(run, "validate").state != "FAILED" or task(run, "train").state != "SKIPPED":
        raise KanaryError("The broken data were not refused.", f"{COMMAND} run {run.run_id[:8]}")
    print("\nRefused, as it should be: nothing was trained on it.")


def report(run: Run) -> None:
    """What came out: metrics, the gates' verdicts with their reasons, and where everything lies."""
    found = results(run)
    print()
    print("  " + "   ".join(f"{name} {value:.4g}" for name, value in found["metrics"].items()))
    for verdict in found["verdicts"]:
        print(f"  gate {'passed' if verdict['passed'] else 'FAILED'}: {verdict['reason']}")
    print(f"  model    {found['release']}   version {found['version']}")
    print(f"  digest   {found['digest']}")
    print(f"  report   {task(run, 'evaluate').outputs.artifacts['report'][0].uri}")
    print(f"  logs     {COMMAND} run {run.run_id[:8]} --log train")


def results(run: Run) -> dict[str, Any]:
    """Metrics, verdicts and release of a training run."""
    evaluated, packaged = task(run, "evaluate"), task(run, "package")
    metrics = [artifact.metadata for artifact in evaluated.outputs.artifacts.get("metrics", ())]
    return {
        "run_id": run.run_id,
        "seconds": seconds(run),
        "metrics": {name: value for each in metrics for name, value in each.items()},
        "verdicts": evaluated.outputs.parameters.get("verdicts", []),
        "version": packaged.outputs.parameters.get("version", ""),
        "digest": packaged.outputs.parameters.get("digest", ""),
        "release": packaged.outputs.parameters.get("uri", ""),
    }


def task(run: Run, name: str) -> TaskDetail:
    """The task of that name; KanaryError where the run has none."""
    for found in run.tasks:
        if found.name == name:
            return found
    raise KanaryError(f"Run {run.run_id} has no task {name!r}.")


def seconds(run: Run) -> float:
    """How long a finished run took."""
    assert run.created_at is not None
    assert run.finished_at is not None
    return round((run.finished_at - run.created_at).total_seconds(), 2)
