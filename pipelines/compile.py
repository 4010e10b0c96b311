"""Compiles every pipeline to YAML, checks what came out, and can tell whether the files on disk are still true.

`python -P -m pipelines.compile [--out FOLDER] [--check] [--train-gpus N] [--train-cpu Q] [--train-memory Q]`
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components.images import TARGETS, image
from kanary.errors import ConfigError, KanaryError

if TYPE_CHECKING:
    from pipelines.training import Resources

OUT = Path("build/pipelines")
NAMES = ("monitoring", "rollout", "training")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, or check; gives the exit status and prints a line a file."""
    parser = argparse.ArgumentParser(prog="pipelines.compile", description="Compile Kanary's pipelines to YAML.")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the YAML (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="compile afresh and compare with the files in --out")
    parser.add_argument("--train-gpus", type=int, default=0, help="GPUs the training step asks for (default: 0)")
    parser.add_argument("--train-cpu", default="", help='CPU of the training step, such as "4" or "500m"')
    parser.add_argument("--train-memory", default="", help='memory of the training step, such as "8G"')
    options = parser.parse_args(arguments)
    try:
        return check(options) if options.check else write_all(options)
    except KanaryError as error:
        print(f"pipelines.compile: {error}", file=sys.stderr)
        return error.exit_code


def write_all(options: argparse.Namespace) -> int:
    """Compile every pipeline into `options.out`; a file is replaced only by a whole one that passed `verify`."""
    from pipelines.training import Resources

    if options.train_gpus < 0:
        raise ConfigError(f"--train-gpus is {options.train_gpus}", "give 0 or a positive whole number")
    resources = Resources(gpus=options.train_gpus, cpu=options.train_cpu, memory=options.train_memory)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        path = options.out / f"{name}.yaml"
        write(name, resources, path)
        print(path)
    return 0


def check(options: argparse.Namespace) -> int:
    """Compile in two processes with hash seeds of their own; 1 unless both agree with the files in `options.out`."""
    differing = 0
    with tempfile.TemporaryDirectory() as scratch:
        fresh = [Path(scratch) / seed for seed in ("1", "2")]
        for folder in fresh:
            command = [sys.executable, "-P", "-m", "pipelines.compile", "--out", str(folder)]
            command += ["--train-gpus", str(options.train_gpus)]
            command += ["--train-cpu", options.train_cpu, "--train-memory", options.train_memory]
            subprocess.run(
                command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONHASHSEED": folder.name}
            )
        for name in NAMES:
            one, two = ((folder / f"{name}.yaml").read_bytes() for folder in fresh)
            path = options.out / f"{name}.yaml"
            if one != two:
                verdict = "compiles differently each time"
            elif not path.exists():
                verdict = "missing: run make compile"
            elif path.read_bytes() != one:
                verdict = "out of date: run make compile"
            else:
                verdict = "up to date"
            differing += verdict != "up to date"
            print(f"{path}: {verdict}")
    return int(differing > 0)


def write(name: str, resources: Resources, path: Path) -> None:
    """Compile one pipeline to `path`, beside it first. Raises ConfigError for what kfp refuses or `verify` finds."""
    from kfp import compiler

    from pipelines.monitoring import monitoring
    from pipelines.rollout import rolling_out
    from pipelines.training import training

    made: dict[str, Any] = {
        "monitoring": lambda: monitoring,
        "rollout": rolling_out,
        "training": lambda: training(resources),
    }
    beside = path.with_name(f".{name}.{os.getpid()}.yaml")
    try:
        compiler.Compiler().compile(made[name](), str(beside))
        verify(beside)
        os.replace(beside, path)
    except ValueError as error:
        raise ConfigError(
            f"pipeline {name!r} does not compile: {error}", "look at the resources you asked for"
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def verify(path: Path) -> None:
    """ConfigError unless kfp accepts the file, `make images` builds its images, and no path from here is in it."""
    from kfp import components

    text = path.read_text(encoding="utf-8")
    components.load_component_from_text(text)
    ours = {image(target) for target in TARGETS}
    foreign = sorted(set(images(next(iter(yaml.safe_load_all(text))))) - ours)
    if foreign:
        raise ConfigError(f"image {foreign[0]!r} is none that `make images` builds", "use components.images.image()")
    for local in {str(Path.cwd()), str(Path.home()), str(Path(__file__).resolve().parents[1]), "file://"} - {"/"}:
        if local in text:
            raise ConfigError(f"{local!r}, a path of this machine, stands in the compiled pipeline {path.name}")


def images(spec: dict[str, Any]) -> Iterator[str]:
    """The image of every executor in a PipelineSpec."""
    for executor in spec["deploymentSpec"]["executors"].values():
        yield executor["container"]["image"]


if __name__ == "__main__":
    sys.exit(main())
