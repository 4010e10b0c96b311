"""Makes the virtual environment for the Makefile's targets: `python3 -E -s -m deploy.setup --extras train,sandbox`.

Standard library only, for any Python from 3.8 on: it looks for a Python that Kanary runs on. A second run with nothing
to do takes milliseconds; one that was interrupted goes on where it stopped. Never touches what lies outside the folder
of the environment (.venv, or KANARY_VENV), but for pip's own cache.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from deploy.environment import ROOT, Environment, Failure, is_ready, make_environment, read_stamp, write_stamp
from deploy.installing import duration, install


def main() -> int:
    """Set up what is asked for, unless it is there; the exit status."""
    parser = argparse.ArgumentParser(prog="deploy/setup.py", description="Set up Kanary's virtual environment.")
    parser.add_argument("--extras", default="", help="extras of pyproject.toml, with commas between them")
    wanted = {extra for extra in parser.parse_args().extras.split(",") if extra}
    environment = Environment(Path(os.path.abspath(ROOT / (os.environ.get("KANARY_VENV") or ".venv"))))
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if not is_ready(environment, wanted):
            set_up(environment, wanted)
    except Failure as failure:
        print(f"setup: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    return 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def set_up(environment: Environment, wanted: set[str]) -> None:
    """Make the environment, or complete it. Raises Failure with what a person can do about it."""
    refuse_platform(wanted)
    folder = environment.folder
    known = (environment.lock, environment.stamp, folder / "pyvenv.cfg")
    if folder.exists() and not (folder.is_dir() and (_is_empty(folder) or any(path.exists() for path in known))):
        raise Failure(f"{folder} is there and is no virtual environment: remove it, or set KANARY_VENV to another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(environment)
    except OSError as error:
        raise Failure(f"cannot write to {folder}: {error.strerror}") from error
    with lock:
        if is_ready(environment, wanted):
            return
        began = time.monotonic()
        made = make_environment(environment)
        had = set(read_stamp(environment).get("extras", ()))
        write_stamp(environment, "unfinished", had, made)
        install(environment, had | wanted, had, lock.fileno())
        write_stamp(environment, "ready", had | wanted, made)
        print(f"setup: ready in {duration(time.monotonic() - began)}: {folder}", flush=True)


def _is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def refuse_platform(wanted: set[str]) -> None:
    """Raise Failure where what is wanted cannot run."""
    if os.name != "posix":
        raise Failure("Kanary runs on Linux and macOS; on Windows use WSL2, which counts as Linux")
    if "sandbox" in wanted and not sys.platform.startswith("linux"):
        raise Failure("the sandbox (demo, up, test) needs Linux or WSL2; the monitor and `kanary` run here too")


def take_lock(environment: Environment) -> Any:
    """The lock file, open and locked; says so while another set-up holds it."""
    import fcntl

    lock = open(environment.lock, "a+", encoding="utf-8")  # noqa: SIM115 - closed by the caller
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"setup: another set-up of {environment.folder} is under way; waiting for it", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


if __name__ == "__main__":
    sys.exit(main())
