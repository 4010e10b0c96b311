"""`python -P -m sandbox up | down | info | logs`: Kubeflow's APIs on this machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from sandbox import lifecycle, printlogs, report
from sandbox.errors import SandboxError
from sandbox.home import Home, find_home


def main(arguments: list[str]) -> int:
    """Runs one command; the exit status."""
    given = _parser().parse_args(arguments)
    home = find_home(given.home, os.environ, Path.cwd())
    try:
        if sys.platform != "linux":
            raise SandboxError("The sandbox needs Linux, or WSL2.", "The monitor and the other commands run here.")
        return _run(given, home)
    except SandboxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # no space, no permission
        print(f"error: {error.filename or 'the sandbox'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(given: argparse.Namespace, home: Home) -> int:
    if given.command == "up":
        lifecycle.up(home, given.foreground, sys.stdout, given.drift)
    elif given.command == "down":
        lifecycle.down(home, sys.stdout)
    elif given.command == "info":
        report.info(home, given.json, sys.stdout)
    elif given.command == "logs":
        printlogs.logs(home, given.part, given.follow, sys.stdout)
    else:
        return _supervise(home, given.lock, given.report, given.drift)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -P -m sandbox", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    home = argparse.ArgumentParser(add_help=False)
    home.add_argument("--home", help="home folder (default: KANARY_HOME, else the nearest .kanary)")
    up = commands.add_parser("up", parents=[home], help="start the sandbox; a second one finds the first")
    up.add_argument("--foreground", action="store_true", help="stay, and stop the sandbox on ctrl-c")
    up.add_argument("--drift", action="store_true", help="run the drift detector, too (needs kanary[drift])")
    commands.add_parser("down", parents=[home], help="stop it, and whatever a killed one has left")
    info = commands.add_parser(
        "info", parents=[home], help="parts and model servers: URLs, processes, memory, CPU; paths"
    )
    info.add_argument("--json", action="store_true", help="as one JSON object")
    logs = commands.add_parser("logs", parents=[home], help="print the logs of parts and model servers")
    logs.add_argument("part", nargs="?", help="a part, an InferenceService, NAMESPACE/REVISION (default: all parts)")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as they grow")
    supervise = commands.add_parser("supervise", parents=[home])  # what `up` starts; takes over its lock and a pipe
    supervise.add_argument("--lock", type=int, required=True)
    supervise.add_argument("--report", type=int, required=True)
    supervise.add_argument("--drift", action="store_true")
    return parser


def _supervise(home: Home, lock: int, pipe: int, drift: bool) -> int:
    """The supervisor's process: tells `up` how the start goes, then runs on by itself."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for descriptor in (lock, pipe):
        os.set_inheritable(descriptor, False)

    def tell(message: Mapping[str, object]) -> None:
        with contextlib.suppress(OSError):  # `up` was interrupted, or has heard all it waited for
            os.write(pipe, json.dumps(message).encode() + b"\n")
            if "up" in message:
                os.close(pipe)

    try:
        failure = lifecycle.supervise(home, lock, tell, drift)
    except Exception as error:  # the outermost loop of this process: logged whole, and told in one line
        logging.exception("the supervisor failed")
        failure = f"the supervisor failed: {type(error).__name__}: {error}"
    if failure:
        logging.error("%s", failure)
        tell({"failed": failure})
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
