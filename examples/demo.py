"""`make demo`: the whole path on real data in the sandbox, through the tools that people use.

Starts the sandbox, compiles the pipelines and submits them with the stock `kfp` CLI; shows every step, then what came
out and where it lies. Figures go to HOME/demo.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kanary import config, kfp
from kanary.api import Client
from kanary.commands.watch import watch
from kanary.errors import KanaryError
from kanary.kfp_types import Run, TaskDetail

EXAMPLE = Path(__file__).resolve().parent / "breast_cancer"
MODEL = "breast-cancer"


def main() -> int:
    """Run the demo; 0 where everything went as it should, the refusal of the broken data included."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the sandbox running at the end")
    parser.add_argument("--stop", action="store_true", help="stop the sandbox at the end, on a terminal too")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        raise KanaryError(f"The sandbox needs Linux (or WSL2); this is {sys.platform}.", "The monitor runs here.")
    settings = config.load()
    began = time.monotonic()
    with sandbox(settings.home, stop=options.stop or not (options.keep or sys.stdout.isatty())):
        figures = train_and_refuse(settings.home)
        figures["seconds"] = round(time.monotonic() - began, 2)
        write_figures(settings.home / "demo.json", figures)
    return 0


@contextmanager
def sandbox(home: Path, stop: bool) -> Iterator[None]:
    """The sandbox of `home`, up; stopped at the end if asked, unless it ran before the demo."""
    step("Start the sandbox: Kubeflow's APIs on this machine")
    before = subprocess.run(kanary("info", "--json", home=home), capture_output=True, text=True, check=False)
    ran = before.returncode == 0 and bool(json.loads(before.stdout).get("sandbox", {}).get("running"))
    subprocess.run(kanary("up", home=home), check=True)
    try:
        yield
    finally:
        if stop and not ran:
            step("Stop the sandbox")
            subprocess.run(kanary("down", home=home), check=True)
        else:
            print("\nThe sandbox is left running. Look at it with:  kanary runs   kanary monitor   kanary info")
            print("Stop it with:  make down")


def train_and_refuse(home: Path) -> dict[str, Any]:
    """A training run on good data, then one on broken data; gives the figures of both."""
    data, broken = home / "demo" / "data", home / "demo" / "broken"
    run_python(EXAMPLE / "make_data.py", data)
    run_python(EXAMPLE / "make_data.py", broken, "--broken")
    step("Compile the pipelines")
    folder = home / "demo" / "pipelines"
    subprocess.run([sys.executable, "-P", "-m", "pipelines.compile", "--out", str(folder)], check=True)
    with Client(kfp.server(config.load())) as api:
        good = train(api, home, folder, data / "breast_cancer.csv", "train-v1")
        report(api, good, home)
        step("The same pipeline on data that break their schema")
        refused = train(api, home, folder, broken / "breast_cancer_broken.csv", "train-on-broken-data")
    if good.state != "SUCCEEDED" or task(good, "package").state != "SUCCEEDED":
        raise KanaryError(f"The training run did not give a release: {good.state}.", f"kanary run {good.run_id}")
    if refused.state != "FAILED" or task(refused, "validate").state != "FAILED":
        raise KanaryError("The broken data were not refused.", f"kanary run {refused.run_id}")
    print("\nRefused, as it should be: nothing was trained on it.")
    return {
        "training": {"run_id": good.run_id, "seconds": seconds(good), **results(good)},
        "refusal": {"run_id": refused.run_id, "seconds": seconds(refused), "reason": task(refused, "validate").error},
    }


def train(api: Client, home: Path, pipelines: Path, data: Path, name: str) -> Run:
    """Submit the training pipeline through the stock kfp CLI and follow it to its end."""
    parameters = {
        "name": MODEL,
        "data_uri": data,
        "schema_uri": data.parent / "schema.json",
        "gates": (EXAMPLE / "gates.json").read_text(encoding="utf-8"),
        "releases_uri": home / "releases",
    }
    step(f"kfp run create -e demo -r {name} -f training.yaml data_uri={data.name} ...")
    command = [str(Path(sys.executable).parent / "kfp"), "--output", "json", "run", "create", "-e", "demo", "-r", name]
    command += ["-f", str(pipelines / "training.yaml"), *(f"{key}={value}" for key, value in parameters.items())]
    environment = os.environ | {"KFP_ENDPOINT": api.server.url, "PYTHONWARNINGS": "ignore"}
    submitted = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if submitted.returncode:
        raise KanaryError(f"kfp run create failed: {submitted.stderr.strip()[-2000:]}")
    run_id = json.loads(submitted.stdout[submitted.stdout.index("{") :])["run_id"]
    return watch(api, run_id, deadline=300)


def report(api: Client, run: Run, home: Path) -> None:
    """What came out: metrics, the gates' verdicts with their reasons, and where everything lies."""
    found = results(run)
    step("What came out")
    for name, value in found["metrics"].items():
        print(f"  {name:<18} {value:.4f}" if isinstance(value, float) else f"  {name:<18} {value}")
    print()
    for verdict in found["verdicts"]:
        print(f"  gate {'passed' if verdict['passed'] else 'FAILED'}: {verdict['reason']}")
    print()
    print(f"  model    {found['release']}   version {found['version']}")
    print(f"  digest   {found['digest']}")
    print(f"  report   {task(run, 'evaluate').outputs.artifacts['report'][0].uri}")
    print(f"  logs     kanary run {run.run_id[:8]} --log train")


def results(run: Run) -> dict[str, Any]:
    """Metrics, verdicts and release of a training run."""
    evaluated, packaged = task(run, "evaluate"), task(run, "package")
    metrics = [artifact.metadata for artifact in evaluated.outputs.artifacts.get("metrics", ())]
    return {
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


def kanary(*arguments: str, home: Path) -> list[str]:
    """The command line of a `kanary` verb on this home."""
    return [sys.executable, "-P", "-m", "kanary", arguments[0], "--home", str(home), *arguments[1:]]


def run_python(script: Path, *arguments: object) -> None:
    subprocess.run([sys.executable, "-P", str(script), *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def write_figures(path: Path, figures: dict[str, Any]) -> None:
    """Write the figures beside their place, then rename, so that no half of them is ever read."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)
    print(f"\nFigures: {path}  ({figures['seconds']} s)")


def step(title: str) -> None:
    """A heading on the terminal."""
    print(f"\n== {title}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KanaryError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
