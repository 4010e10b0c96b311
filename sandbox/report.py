"""The commands `info` and `logs`: what a sandbox is doing, read from its files and from /proc. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from sandbox.errors import NotFound
from sandbox.health import answers
from sandbox.home import Home, read_json
from sandbox.parts import parts, urls
from sandbox.processes import marked, recorded, usage
from sandbox.rotation import lines


def describe(home: Home) -> dict[str, Any]:
    """The sandbox as JSON: `running`, its supervisor, each part (state, pid, URLs, restarts, memory, log), paths."""
    state = read_json(home.state)
    supervisor = recorded(state.get("supervisor"))
    return {
        "home": str(home.path),
        "running": supervisor is not None,
        "pid": supervisor.pid if supervisor else None,
        "started": state.get("started") if supervisor else None,
        "parts": [_describe_part(home, name, entry) for name, entry in state.get("parts", {}).items()],
        "paths": {
            "endpoints": str(home.endpoints),
            "store": str(home.path / "kfp" / "kfp.sqlite"),
            "artifacts": str(home.artifacts),
            "logs": str(home.logs),
        },
    }


def _describe_part(home: Home, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    process = recorded(entry)
    ports = entry.get("ports", {})
    part = next((part for part in parts() if part.name == name), None)
    state = entry.get("state", "")
    if process is None and state in ("healthy", "starting"):
        state = "dead"
    elif state == "healthy" and part is not None and not answers(part, ports):
        state = "not answering"
    return {
        "name": name,
        "state": state,
        "pid": process.pid if process else None,
        **(urls(part, ports) if part else {}),
        "restarts": entry.get("restarts", 0),
        "memory_bytes": sum(usage(process).memory_bytes for process in marked(home.path, name)),
        "log": str(home.log(name)),
    }


def info(home: Home, as_json: bool, out: TextIO) -> None:
    """Prints what `describe` gives, for a person or as JSON."""
    found = describe(home)
    if as_json:
        print(json.dumps(found, indent=2), file=out)
        return
    if found["running"]:
        print(f"The sandbox in {found['home']} is up since {found['started']} (pid {found['pid']}).", file=out)
    else:
        print(f"No sandbox is running in {found['home']}.", file=out)
    if found["parts"]:
        row = "  {:<12} {:<14} {:>8} {:>9} {:>9}  {}"
        print(row.format("PART", "STATE", "PID", "RESTARTS", "MEMORY", "URL"), file=out)
        for part in found["parts"]:
            memory = f"{part['memory_bytes'] / 2**20:.0f} MiB"
            columns = (part["name"], part["state"], part["pid"] or "-", part["restarts"], memory, part.get("url", ""))
            print(row.format(*columns), file=out)
    for name, path in found["paths"].items():
        print(f"  {name:<12} {path}", file=out)


def logs(home: Home, part: str | None, follow: bool, out: TextIO) -> None:
    """Prints one part's log, or all of them with each line's origin; with `follow` it goes on until interrupted.

    Raises NotFound, naming the logs there are.
    """
    known = {path.stem: path for path in sorted(home.logs.glob("*.log"))}
    if part is not None and part not in known:
        raise NotFound(f"There is no log of {part!r} in {home.logs}.", f"There are: {', '.join(known) or 'none'}.")
    chosen: list[Path] = [known[part]] if part is not None else list(known.values())
    for path, line in lines(chosen, lambda: follow):
        print(line if part is not None else f"{path.stem:<12} {line}", file=out, flush=follow)
