"""What a spare worker does while it waits: the way of every lightweight step, once, with a component that does nothing.

It touches the memory that the step will need. Nothing of it stays: what a step finds is what a fresh process has.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import sys
import tempfile
from pathlib import Path

_COMPONENT = "def rehearsed(value: float) -> float:\n    return value\n"


def rehearse() -> None:
    """Run kfp's executor and take back what it changes in this process."""
    # What the parent has preloaded; the sandbox itself does without kfp.
    executor_main = importlib.import_module("kfp.dsl.executor_main").executor_main
    argv, path, level = sys.argv, list(sys.path), logging.root.level
    handlers = list(logging.root.handlers)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        place = Path(folder)
        component = place / "ephemeral_component.py"
        component.write_text(_COMPONENT, encoding="utf-8")
        outputs = {"Output": {"outputFile": str(place / "Output")}}
        entered = {
            "inputs": {"parameterValues": {"value": 1.0}},
            "outputs": {"parameters": outputs, "outputFile": str(place / "executor_output.json")},
        }
        given = {"component_module_path": component, "executor_input": json.dumps(entered)}
        given["function_to_execute"] = "rehearsed"
        sys.argv = ["rehearsal", *(word for name, value in given.items() for word in (f"--{name}", str(value)))]
        try:
            executor_main()
        finally:
            sys.argv, sys.path[:] = argv, path
            logging.root.handlers[:] = handlers
            logging.root.setLevel(level)
            sys.modules.pop("ephemeral_component", None)
