"""The command `info`: what a sandbox is doing, read from its files and from /proc. Changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from sandbox.health import answers
from sandbox.home import Home, put_aside, read_json
from sandbox.modelserver.spec import Status
from sandbox.modelserver.stored import stored
from sandbox.parts import parts, urls
from sandbox.processes import Process, Usage, group_of, parts_of, recorded, usage

_SAMPLE_S = 0.2

# Memory, CPU seconds and CPU percent of the processes given.
Measure = Callable[[list[Process]], dict[str, int | float]]


def describe(home: Home) -> dict[str, Any]:
    """The sandbox as JSON: `running`, its supervisor, each part and each model server, paths, damaged files put aside.

    Of each: state, pid, restarts, `memory_bytes` (shared pages in proportion), `cpu_seconds` so far, `cpu_percent` of
    one core over a fifth of a second, log. A model server's processes do not count as those of the part.
    """
    state = read_json(home.state)
    supervisor = recorded(state.get("supervisor"))
    owners = parts_of(home.path)
    measure = _measure([*owners, *([supervisor] if supervisor else [])])
    servers = stored(home.path)
    leaders = {process.pid for _, process in servers if process is not None}
    by_leader: dict[int, list[Process]] = {}
    by_part: dict[str, list[Process]] = {}
    for process, part in owners.items():
        leader = group_of(process)
        if leader in leaders:
            by_leader.setdefault(leader, []).append(process)
        else:
            by_part.setdefault(part, []).append(process)
    return {
        "home": str(home.path),
        "running": supervisor is not None,
        "pid": supervisor.pid if supervisor else None,
        "started": state.get("started") if supervisor else None,
        **measure([supervisor] if supervisor else []),
        "parts": [
            _describe_part(home, name, entry) | measure(by_part.get(name, []))
            for name, entry in state.get("parts", {}).items()
        ],
        "servers": [
            _describe_server(status, process) | measure(by_leader.get(process.pid, []) if process else [])
            for status, process in servers
        ],
        "paths": {
            "endpoints": str(home.endpoints),
            "store": str(home.path / "kfp" / "kfp.sqlite"),
            "artifacts": str(home.artifacts),
            "logs": str(home.logs),
        },
        "put_aside": [str(path) for path in put_aside(home)],
    }


def _measure(processes: list[Process]) -> Measure:
    """Looks at all processes twice; what it gives adds up those that are asked for."""
    before = {process: usage(process) for process in processes}
    began = time.monotonic()
    time.sleep(_SAMPLE_S if processes else 0)
    after = {process: usage(process) for process in processes}
    seconds = time.monotonic() - began

    def measure(asked: list[Process]) -> dict[str, int | float]:
        total = sum((after[process] for process in asked), Usage())
        spent = total.cpu_seconds - sum(before[process].cpu_seconds for process in asked)
        return {**total.as_json(), "cpu_percent": round(100 * max(spent, 0.0) / seconds, 1) if asked else 0.0}

    return measure


def _describe_part(home: Home, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    process = recorded(entry)
    ports = entry.get("ports", {})
    part = next((part for part in parts(drift=True) if part.name == name), None)
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
        "log": str(home.log(name)),
    }


def _describe_server(status: Status, process: Process | None) -> dict[str, Any]:
    return {
        "name": status.id,
        "state": status.state if process is not None or not status.pid else "dead",
        "ready": status.ready and process is not None,
        "pid": process.pid if process else None,
        "url": f"http://127.0.0.1:{status.port}" if status.port else "",
        "restarts": status.restarts,
        "log": status.log,
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
    for title, rows in (("PART", found["parts"]), ("MODEL SERVER", found["servers"])):
        if rows:
            _print_rows(title, rows, out)
    for name, path in found["paths"].items():
        print(f"  {name:<12} {path}", file=out)
    for path in found["put_aside"]:
        print(f"  put aside    {path}  (damaged; delete it when nothing of it is needed)", file=out)


def _print_rows(title: str, rows: list[dict[str, Any]], out: TextIO) -> None:
    width = max(12, *(len(row["name"]) for row in rows))
    line = f"  {{:<{width}}} {{:<14}} {{:>8}} {{:>9}} {{:>9}} {{:>6}}  {{}}"
    print(line.format(title, "STATE", "PID", "RESTARTS", "MEMORY", "CPU", "URL"), file=out)
    for row in rows:
        memory, cpu = f"{row['memory_bytes'] / 2**20:.0f} MiB", f"{row['cpu_percent']:.0f} %"
        columns = (row["name"], row["state"], row["pid"] or "-", row["restarts"], memory, cpu, row.get("url", ""))
        print(line.format(*columns), file=out)
