"""The `kanary` command: finds the verb's function when it is called, runs it, prints expected errors with their hints.

Imports nothing but the standard library before the verb is known, so that `--help` costs no more than python.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kanary import __version__
from kanary.config import Config, load
from kanary.errors import InputError, KanaryError, MissingExtra
from kanary.settings import SETTINGS

# What a verb's "module:function" is: it adds its arguments to the parser and gives what to run with them; its
# docstring is the verb's help. The result is the process's exit code.
Action = Callable[[argparse.Namespace, Config], int]
Command = Callable[[argparse.ArgumentParser], Action]

_SERVER = (
    *("kfp_endpoint", "namespace", "home", "token_file", "cookie_file", "token_account"),
    *("timeout", "kubeconfig", "context"),
)
_CHANGES = (*_SERVER, "readonly")
_PROMETHEUS = tuple(setting.key for setting in SETTINGS if setting.key.startswith("prometheus_"))
_MONITOR = (*_CHANGES, *_PROMETHEUS, "readonly_contexts", "protected_contexts")
_CLUSTER = ("kubeconfig", "context", "namespace", "home", "timeout")
_COUNTS = (*_CLUSTER, *_PROMETHEUS)


@dataclass(frozen=True)
class Verb:
    """One verb: where its function is, a line of help, the extra it needs ("" for none), the settings it heeds."""

    target: str
    help: str
    extra: str = ""
    settings: tuple[str, ...] = ()
    passes_on: bool = False  # arguments that it does not know go to the program that it starts


VERBS = {
    "monitor": Verb("tui.app:monitor", "watch and steer runs and services in the terminal (what plain `kanary` does)",
                    "", _MONITOR),
    "record": Verb("kanary.commands.record:record", "write what the monitor would show to a file", "",
                   (*_SERVER, *_PROMETHEUS)),
    "replay": Verb("tui.replay:replay", "show in the monitor what was recorded: pause, step, speed", "", ()),
    "web": Verb("kanary.commands.web:web", "serve the monitor to a browser on this machine, read-only unless told",
                "web", _MONITOR, passes_on=True),
    "up": Verb("kanary.commands.sandbox:up", "start the sandbox", "sandbox", ("home",), passes_on=True),
    "down": Verb("kanary.commands.sandbox:down", "stop the sandbox", "sandbox", ("home",), passes_on=True),
    "logs": Verb("kanary.commands.sandbox:logs", "show the sandbox's own logs", "sandbox", ("home",)),
    "info": Verb("kanary.commands.info:info", "print every setting and path, where it comes from, and the sandbox",
                 "", tuple(setting.key for setting in SETTINGS)),
    "runs": Verb("kanary.commands.runs:runs", "list pipeline runs", "", _SERVER),
    "run": Verb("kanary.commands.runs:run", "show or follow one run, its tasks and their logs", "", _SERVER),
    "submit": Verb("kanary.commands.submit:submit", "start a run of a compiled pipeline", "", _CHANGES),
    "retry": Verb("kanary.commands.runs:retry", "run again what failed in a run", "", _CHANGES),
    "terminate": Verb("kanary.commands.runs:terminate", "end a run", "", _CHANGES),
    "status": Verb("kanary.commands.status:status", "show where services' traffic really goes, or watch it",
                   "", tuple(dict.fromkeys((*_SERVER, *_PROMETHEUS)))),
    "rollback": Verb("kanary.commands.rollout:rollback", "take a service back to its stable release",
                     "", (*_CLUSTER, "readonly")),
    "set-traffic": Verb("kanary.commands.rollout:set_traffic", "give the canary a share of the traffic",
                        "", (*_CLUSTER, "readonly")),
    "promote": Verb("kanary.commands.rollout:promote", "make the canary the stable release",
                    "", (*_CLUSTER, "readonly")),
    "rollout": Verb("kanary.commands.automation:rollout", "take the canary through a policy's steps, judged at each",
                    "", (*_COUNTS, "readonly")),
    "plan": Verb("kanary.commands.automation:plan", "say what a rollout could find, in how many requests", "", _COUNTS),
    "pause": Verb("kanary.commands.automation:pause", "keep a rollout's split as it is", "", (*_CLUSTER, "readonly")),
    "resume": Verb("kanary.commands.automation:resume", "let a paused rollout go on", "", (*_CLUSTER, "readonly")),
    "approve": Verb("kanary.commands.automation:approve", "let a rollout take the step it waits with",
                    "", (*_CLUSTER, "readonly")),
    "history": Verb("kanary.commands.history:history", "list a service's releases, and how each ended", "", _CLUSTER),
    "traffic": Verb("kanary.commands.traffic:traffic", "send prediction requests made of a data set's rows",
                    "pipelines", _CLUSTER),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line. Its exit code: 0, 1 (failed), 2 (wrong use), 130 (interrupted), 141 (nobody reads)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _run(arguments)
        finally:
            # Where the reader of a pipe is gone, this is where it shows.
            sys.stdout.flush()
    except KanaryError as error:
        print(f"kanary: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The interpreter flushes stdout once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def resolve(verb: str) -> Command:
    """The verb's function. Raises MissingExtra where it needs a package that is not installed."""
    module, _, function = VERBS[verb].target.partition(":")
    try:
        command: Command = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise _missing(verb, error) from error
    return command


def parser(verb: str, command: Command) -> tuple[argparse.ArgumentParser, Action]:
    """The verb's own parser, its settings included, and what to run with what it parses."""
    made = argparse.ArgumentParser(
        f"kanary {verb}", description=inspect.getdoc(command), formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    action = command(made)
    _add_settings(made, VERBS[verb].settings)
    return made, action


def _run(arguments: list[str]) -> int:
    top = _top_parser()
    given = top.parse_args(arguments)
    verb = given.verb or "monitor"
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        raise InputError(
            f"There is no verb {verb!r}.", f"Did you mean {close[0]}?" if close else "`kanary --help` lists them."
        )
    made, action = parser(verb, resolve(verb))
    parsed, unknown = made.parse_known_args(given.arguments)
    if unknown and not VERBS[verb].passes_on:
        made.error(f"unrecognized arguments: {' '.join(unknown)}")
    parsed.passed_on = unknown
    flags = {s.key: getattr(parsed, s.key, getattr(given, s.key, None)) for s in SETTINGS}
    try:
        return action(parsed, load(flags))
    except ModuleNotFoundError as error:
        raise _missing(verb, error) from error


def _missing(verb: str, error: ModuleNotFoundError) -> Exception:
    """MissingExtra for a package of the verb's extra; the error itself where one of our own modules is missing."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "kanary", "tui"):
        return error
    extra = VERBS[verb].extra
    return MissingExtra(
        f"`kanary {verb}` needs {package}, which is not installed.",
        f'pip install "kanary[{extra}]"' if extra else "pip install --force-reinstall kanary",
    )


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, VERBS))
    lines = "\n".join(f"  {name.ljust(width)}  {verb.help}" for name, verb in VERBS.items())
    made = argparse.ArgumentParser(
        "kanary",
        description=f"From raw data to canary traffic on Kubeflow, watched from one terminal.\n\nverbs:\n{lines}",
        epilog="`kanary VERB --help` says more of each. Settings may stand before or after the verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"kanary {__version__}")
    made.add_argument("verb", nargs="?", metavar="VERB", help="what to do; `monitor` if not given")
    made.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    _add_settings(made, tuple(setting.key for setting in SETTINGS))
    return made


def _add_settings(made: argparse.ArgumentParser, keys: Sequence[str]) -> None:
    group = made.add_argument_group("settings") if keys else made
    for setting in SETTINGS:
        if setting.key not in keys or setting.secret:
            continue
        text = f"{setting.help} [{setting.environment}]"
        common: dict[str, Any] = {"dest": setting.key, "default": argparse.SUPPRESS, "help": text}
        if isinstance(setting.default, bool):
            group.add_argument(setting.flag, action=argparse.BooleanOptionalAction, **common)
        else:
            group.add_argument(setting.flag, metavar=setting.flag.strip("-").upper().replace("-", "_"), **common)
