"""No file of the repository names a folder of the machine that it was written on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Written so that this file does not match itself.
FOLDERS = re.compile(r"(?<![\w./-])/(?:work|root|opt/wheels|opt/pypi|tmp/lab)(?=/|\b(?![\w-]))")


def tracked() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_folder_of_its_authors_machine() -> None:
    files = tracked()
    assert len(files) > 50
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in files
        for number, line in enumerate(path.read_bytes().decode("utf-8", errors="replace").splitlines(), 1)
        if FOLDERS.search(line) and path != Path(__file__).resolve()
    ]
    assert found == []
