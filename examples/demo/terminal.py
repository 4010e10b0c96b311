"""What the demo does to a terminal and to processes: headings, `kanary` verbs, the figures file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# As a person would type it here: the environment's folder is on nobody's PATH.
COMMAND = os.path.relpath(Path(sys.executable).with_name("kanary"))


def step(title: str) -> None:
    """A heading."""
    print(f"\n== {title}", flush=True)


def kanary(*arguments: str, home: Path) -> list[str]:
    """The command line of a `kanary` verb on this home."""
    return [sys.executable, "-P", "-m", "kanary", arguments[0], "--home", str(home), *arguments[1:]]


def answer(*arguments: str, home: Path) -> Any:
    """What a `kanary` verb prints with --json. Raises CalledProcessError where it fails."""
    done = subprocess.run(kanary(*arguments, "--json", home=home), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def write_figures(path: Path, figures: dict[str, Any]) -> None:
    """Write the figures beside their place, then rename, so that no half of them is ever read."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)
    print(f"\nFigures: {path}  ({figures['seconds']} s)")
