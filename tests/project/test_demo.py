from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("terminals", "environ", "ends_in_the_monitor"),
    [
        ({0, 1}, {"TERM": "xterm-256color"}, True),
        ({1}, {"TERM": "xterm-256color"}, False),
        ({0}, {"TERM": "xterm-256color"}, False),
        ({0, 1}, {"TERM": "dumb"}, False),
        ({0, 1}, {}, False),
        ({0, 1}, {"TERM": "xterm", "CI": "true"}, False),
    ],
)
def test_the_demo_ends_in_the_monitor_where_somebody_can_see_and_leave_it(
    monkeypatch: pytest.MonkeyPatch, terminals: set[int], environ: dict[str, str], ends_in_the_monitor: bool
) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples"), *sys.path])
    watching = importlib.import_module("demo.watching")
    monkeypatch.setattr(os, "isatty", lambda number: number in terminals)
    assert watching.possible(environ) is ends_in_the_monitor
