"""`kanary info`: every setting with its source, every path, what each server says, and the sandbox of itself."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kanary import __version__
from kanary.commands.connections import connections, connections_text
from kanary.commands.sandbox import ask
from kanary.config import Config, config_file, state_folder
from kanary.errors import MissingExtra
from kanary.settings import SETTINGS, Setting
from kanary.text import plain, table

if TYPE_CHECKING:
    from kanary.cli import Action


def info(parser: argparse.ArgumentParser) -> Action:
    """Print every setting with its value and where it came from, every path, each server and how it is reached,
    and the state of the sandbox."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return _info


def _info(given: argparse.Namespace, config: Config) -> int:
    settings = {
        setting.key: {
            "value": _shown(setting, getattr(config, setting.key)),
            "source": str(config.sources[setting.key]),
        }
        for setting in SETTINGS
    }
    paths = _paths(config)
    if given.json:
        document = {"version": __version__, "settings": settings, "paths": paths, "connections": connections(config)}
        document["sandbox"] = _sandbox_json(config)
        print(json.dumps(document, indent=2))
        return 0
    rows = [(key, str(entry["value"]) or "-", entry["source"]) for key, entry in settings.items()]
    print(f"kanary {__version__}, python {sys.version.split()[0]}\n")
    print(table(("SETTING", "VALUE", "SOURCE"), rows))
    print()
    print(
        table(("PATH", "", ""), [(name, p["path"], "" if p["exists"] else "(not there)") for name, p in paths.items()])
    )
    print("\nCONNECTIONS")
    print(connections_text(connections(config)))
    print("\nSANDBOX")
    print(_sandbox_text(config))
    return 0


def _shown(setting: Setting, value: Any) -> Any:
    if setting.secret:
        return "(a secret)" if value else ""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={entry}" for key, entry in value.items())
    return str(value) if isinstance(value, Path) else "" if value is None else value


def _paths(config: Config) -> Mapping[str, Mapping[str, Any]]:
    found = {
        "configuration": config_file(os.environ),
        "home": config.home,
        "sandbox endpoints": config.home / "endpoints.json",
        "sandbox logs": config.home / "logs",
        "monitor state": state_folder(os.environ),
    }
    return {name: {"path": str(path), "exists": path.exists()} for name, path in found.items()}


def _sandbox_text(config: Config) -> str:
    try:
        answer = ask(config, ["info"])
    except MissingExtra as error:
        return f"not installed: {error.hint}"
    except subprocess.TimeoutExpired:
        return f"it does not answer: see {config.home / 'logs'}"
    return plain(f"{answer.stdout}{answer.stderr}").rstrip() or "(it says nothing of itself)"


def _sandbox_json(config: Config) -> Any:
    """What the sandbox says, or None where it is not installed, does not answer, or says no JSON."""
    try:
        return json.loads(ask(config, ["info", "--json"]).stdout)
    except (MissingExtra, subprocess.TimeoutExpired, ValueError):
        return None
