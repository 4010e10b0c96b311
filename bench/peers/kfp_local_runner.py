"""Runs a compiled pipeline by kfp.local's SubprocessRunner: prints the seconds it took and its output, as JSON."""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    """Arguments: the compiled pipeline, and a folder for outputs."""
    from kfp import components, local

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2])
    with open(sys.argv[1], encoding="utf-8") as file:
        pipeline = components.load_component_from_text(file.read())
    began = time.perf_counter()
    task = pipeline()
    took = time.perf_counter() - began
    print(json.dumps({"seconds": [took], "output": task.outputs["Output"]}))


if __name__ == "__main__":
    main()
