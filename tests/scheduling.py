"""Which xdist worker runs which tests: those that share a server, a sandbox or a model run in one, and start one.

xdist's own `--dist loadgroup` groups nothing with pytest 9.2 (pytest-dev/pytest-xdist#1386), and says nothing about it.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Folders whose modules share what a session starts; elsewhere only the tests of a module share anything.
# The longest come first, so that what is left at the end is short.
TOGETHER = ("tests/automation/", "tests/rollout/", "tests/kubernetes/", "tests/engine/")


class Together(LoadScopeScheduling):  # type: ignore[misc]  # it comes without types
    """Hands out a module at a time, or a whole folder of `TOGETHER`."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)


def scope(nodeid: str) -> str:
    """What a test stays together with."""
    module = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if module.startswith(folder)), module)


def in_order(items: list[pytest.Item]) -> None:
    """Put what takes longest first, and leave the rest as it is."""
    place = {folder: number for number, folder in enumerate(TOGETHER)}
    items.sort(key=lambda item: place.get(scope(item.nodeid), len(place)))


def scheduler(config: pytest.Config, log: Any) -> Together | None:
    """Ours for `--dist loadscope`; None leaves the choice to xdist."""
    return Together(config, log) if config.getvalue("dist") == "loadscope" else None
