"""The virtual environment that set-up makes: where it lies, what is written down about it, which Python it is made of.

Standard library only, for any Python from 3.8 on. Never empties an environment that set-up did not make.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.11", "3.12")

HOW_TO_GET_PYTHON = """\
  Debian 12: apt install python3 python3-venv   Ubuntu 24.04: apt install python3.12 python3.12-venv
  Fedora: dnf install python3.12   macOS: brew install python@3.12   without root: uv python install 3.12
  One that lies elsewhere: make setup PYTHON=/path/to/python3.12"""


class Failure(Exception):
    """What a person is told instead of a traceback."""


class Environment(NamedTuple):
    """The virtual environment and this script's own files in it."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def stamp(self) -> Path:
        return self.folder / ".kanary-setup.json"

    @property
    def lock(self) -> Path:
        return self.folder / ".kanary-setup.lock"

    @property
    def log(self) -> Path:
        return self.folder / "kanary-setup.log"

    @property
    def scratch(self) -> Path:
        return self.folder / ".kanary-setup.tmp"


class Interpreter(NamedTuple):
    """A Python that runs: where it really is, "3.11", and whether it can make virtual environments."""

    path: str
    version: str
    has_venv: bool


def is_ready(environment: Environment, wanted: set[str]) -> bool:
    """Whether the environment holds all the extras wanted, made from the files as they are now."""
    stamp = read_stamp(environment)
    return (
        stamp.get("state") == "ready"
        and wanted <= set(stamp.get("extras", ()))
        and stamp.get("folder") == str(environment.folder)
        and stamp.get("project") == str(ROOT)
        and stamp.get("inputs") == inputs_digest()
        and environment.python.exists()
        and (environment.folder / "bin" / "kanary").exists()
    )


def read_stamp(environment: Environment) -> dict[str, Any]:
    """What the last run wrote down; empty where none did."""
    try:
        stamp = json.loads(environment.stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(environment: Environment, state: str, extras: set[str], made: bool) -> None:
    """Replace the stamp in one step; `made` says that the environment is this script's own and may be made anew."""
    stamp = {
        "state": state,
        "extras": sorted(extras),
        "folder": str(environment.folder),
        "project": str(ROOT),
        "inputs": inputs_digest(),
        "made": made,
    }
    beside = environment.stamp.with_suffix(".new")
    beside.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    os.replace(beside, environment.stamp)


def inputs_digest() -> str:
    """Changes when a requirement or a tested version does; what the tools are told changes nothing installed."""
    project = re.split(r"^\[tool\.(?!hatch)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return hashlib.sha256(f"{project[0]}\0{constraints()}".encode()).hexdigest()


def constraints() -> str:
    return (ROOT / "constraints.txt").read_text(encoding="utf-8")


def make_environment(environment: Environment) -> bool:
    """Leave a virtual environment with a working pip at `environment.folder`; True if this script made it."""
    stamp = read_stamp(environment)
    only_lock = all(path == environment.lock for path in environment.folder.iterdir())
    ours = only_lock or stamp.get("made") is True
    # Scripts in an environment name its path: one that was moved is made anew.
    moved = bool(stamp) and stamp.get("folder") != str(environment.folder)
    there = None if moved else examine(str(environment.python))
    if there and there.version in VERSIONS and _runs([str(environment.python), "-I", "-m", "pip", "--version"]):
        _forget_half_installed(environment)
        return ours
    if not ours:
        raise Failure(
            f"{environment.folder} is a virtual environment, but not one with pip and Python "
            f"{' or '.join(VERSIONS)}: remove it, or set KANARY_VENV to another"
        )
    python = find_python()
    write_stamp(environment, "unfinished", set(), made=True)
    _empty(environment)
    print(f"setup: Python {python.version} ({python.path})", flush=True)
    command = [python.path, "-I", "-m", "venv", str(environment.folder)]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise Failure(f"{python.path} could not make a virtual environment:\n{answer.stdout}{answer.stderr}".rstrip())
    return True


def find_python() -> Interpreter:
    """A Python 3.11 or 3.12 that runs and can make environments; $PYTHON if that is set. Raises Failure."""
    asked = os.environ.get("PYTHON", "").strip()
    names = [asked] if asked else ["python3", *(f"python{version}" for version in reversed(VERSIONS))]
    found = [there for path in _on_path(names) if (there := examine(path))]
    if not asked and (own := examine(sys.executable)):
        found.append(own)
    right = [there for there in found if there.version in VERSIONS]
    for there in right:
        if there.has_venv:
            return there
    if right:
        raise Failure(
            f"{right[0].path} cannot make virtual environments: its venv or ensurepip module is missing\n"
            f"  Debian, Ubuntu: apt install python{right[0].version}-venv"
        )
    seen = ", ".join(dict.fromkeys(f"{there.path} is {there.version}" for there in found)) or "no Python that runs"
    where = f"PYTHON={asked}" if asked else "found"
    raise Failure(f"Kanary needs Python {' or '.join(VERSIONS)}; {where}: {seen}\n{HOW_TO_GET_PYTHON}")


def _on_path(names: list[str]) -> list[str]:
    """Every file the names stand for, in order: a first hit may be a shim for a Python that is not there."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    paths = [os.path.join(folder, name) if os.sep not in name else name for name in names for folder in folders]
    return list(dict.fromkeys(path for path in paths if os.access(path, os.X_OK) and os.path.isfile(path)))


def examine(path: str) -> Interpreter | None:
    """What the interpreter at `path` is; None where it does not run or is no CPython."""
    code = (
        "import sys, platform, importlib.util as u\n"
        "has = all(u.find_spec(name) for name in ('venv', 'ensurepip'))\n"
        "print(platform.python_implementation(), '%d.%d' % sys.version_info[:2], has, sys.executable)"
    )
    try:
        answer = subprocess.run([path, "-I", "-c", code], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = answer.stdout.strip().split(" ", 3)
    if answer.returncode or len(words) != 4 or words[0] != "CPython":
        return None
    return Interpreter(words[3], words[1], words[2] == "True")


def _runs(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def _empty(environment: Environment) -> None:
    """Remove what a broken environment left, but for the lock that is being held and the stamp."""
    for path in environment.folder.iterdir():
        if path in (environment.lock, environment.stamp):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _forget_half_installed(environment: Environment) -> None:
    """pip writes RECORD last: a package without one was interrupted, and pip would take it for whole."""
    for info in environment.folder.glob("lib/python*/site-packages/*.dist-info"):
        if not (info / "RECORD").exists():
            shutil.rmtree(info)
