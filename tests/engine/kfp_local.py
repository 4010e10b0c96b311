"""Runs a compiled pipeline by kfp.local's SubprocessRunner, in a process of its own, and compares what came out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

_PROGRAM = """
import json, sys
from kfp import components, local
text, parameters, root = sys.argv[1:]
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=False)
components.load_component_from_text(open(text).read())(**json.loads(parameters))
"""
_ENDED = re.compile(r"Pipeline .* finished with status\W+(?:\d+m)?(SUCCESS|FAILURE)")


def assert_agrees(spec: dict[str, Any], parameters: dict[str, Any], state: str, outputs: dict[str, Any]) -> None:
    """Fail where kfp.local ends otherwise, or its steps give other values than ours, names and order apart."""
    theirs, given = run(spec, parameters)
    assert theirs == state
    ours = [value if isinstance(value, dict) else {"Output": value} for value in outputs.values()]
    assert _counted(given) == _counted(ours)


def run(spec: dict[str, Any], parameters: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """How the pipeline ended, SUCCEEDED or FAILED, and the output parameters of each step that wrote some."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "pipeline.json"
        text.write_text(json.dumps(spec), encoding="utf-8")
        root = Path(folder) / "outputs"
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(text), json.dumps(parameters), str(root)],
            capture_output=True,
            text=True,
            timeout=240,
        )
        ended = _ENDED.findall(done.stdout + done.stderr)
        assert ended, done.stderr[-2000:]
        written = [json.loads(path.read_text(encoding="utf-8")) for path in root.rglob("executor_output.json")]
    given = [one["parameterValues"] for one in written if one.get("parameterValues")]
    return {"SUCCESS": "SUCCEEDED", "FAILURE": "FAILED"}[ended[-1]], given


def _counted(values: list[dict[str, Any]]) -> Counter[str]:
    return Counter(json.dumps(value, sort_keys=True) for value in values)
