"""What a home's model server host has written down of its servers; there whether the host runs or not."""

from __future__ import annotations

from pathlib import Path

from sandbox.home import read_json
from sandbox.modelserver.spec import Status, status_from
from sandbox.processes import Process, recorded

FOLDER = Path("modelserver")
WANTED = FOLDER / "servers.json"
PROCESSES = FOLDER / "processes.json"


def stored(home: Path) -> list[tuple[Status, Process | None]]:
    """Every server that is wanted, by name, with its process if that lives."""
    running = read_json(home / PROCESSES)
    found = []
    for name, entry in sorted(read_json(home / WANTED).items()):
        try:
            found.append((status_from(entry["status"]), recorded(running.get(name))))
        except (KeyError, TypeError):  # written by another version, or damaged: the host puts it aside
            continue
    return found
