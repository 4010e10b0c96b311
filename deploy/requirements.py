"""Prints the requirements of one of Kanary's extras, one a line, without Kanary itself: what an image's layer installs.

`python3 deploy/requirements.py train`. Reads pyproject.toml only, so that code changes leave the layer as it is.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def requirements(project: dict[str, object], extra: str) -> list[str]:
    """The base's and the extra's requirements, those of the extras that it names included. KeyError: no such extra."""
    extras = project["optional-dependencies"]
    base = project["dependencies"]
    assert isinstance(extras, dict)
    assert isinstance(base, list)
    found = dict.fromkeys(base)
    queue = [extra]
    while queue:
        for line in extras[queue.pop()]:
            if own := re.fullmatch(r"kanary\[(.+)\]", line):
                queue += own[1].split(",")
            else:
                found[line] = None
    return list(found)


if __name__ == "__main__":
    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    print("\n".join(requirements(tomllib.loads(text)["project"], sys.argv[1])))
