"""`kanary up`, `down` and `logs`: they start the sandbox's own program and know nothing of its inside."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kanary.config import Config
from kanary.errors import MissingExtra

if TYPE_CHECKING:
    from kanary.cli import Action


def up(parser: argparse.ArgumentParser) -> Action:
    """Start the sandbox: Kubeflow Pipelines on this machine. A second `up` finds the first.

    Options that are not listed here go to the sandbox: `python -m sandbox up --help`.
    """
    parser.add_argument("--foreground", action="store_true", help="stay in the foreground until interrupted")

    def act(given: argparse.Namespace, config: Config) -> int:
        return _become(config, ["up", *(["--foreground"] if given.foreground else []), *given.passed_on])

    return act


def down(parser: argparse.ArgumentParser) -> Action:
    """Stop the sandbox and every process that it started.

    Options that are not listed here go to the sandbox: `python -m sandbox down --help`.
    """
    return lambda given, config: _become(config, ["down", *given.passed_on])


def logs(parser: argparse.ArgumentParser) -> Action:
    """Show the logs of the sandbox's parts and model servers. A run's: `kanary run RUN --log TASK`."""
    parser.add_argument("part", nargs="?", help="a part, an InferenceService, NAMESPACE/REVISION; all parts if none")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as they grow")

    def act(given: argparse.Namespace, config: Config) -> int:
        part = [given.part] if given.part else []
        return _become(config, ["logs", *part, *(["-f"] if given.follow else [])])

    return act


def ask(config: Config, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs the sandbox's program to its end and gives what it printed. Raises MissingExtra, TimeoutExpired."""
    return subprocess.run(
        _command(config, arguments), text=True, capture_output=True, encoding="utf-8", check=False, timeout=30
    )


def _become(config: Config, arguments: Sequence[str]) -> int:
    """This process becomes the sandbox's program: its signals and exit code need nobody to pass them on."""
    command = _command(config, arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)


def _command(config: Config, arguments: Sequence[str]) -> list[str]:
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(f"The sandbox needs {package}, which is not installed.", 'pip install "kanary[sandbox]"')
    # -P: the folder we are in may hold a `sandbox` of the user's own.
    return [sys.executable, "-P", "-m", "sandbox", arguments[0], "--home", str(config.home), *arguments[1:]]
