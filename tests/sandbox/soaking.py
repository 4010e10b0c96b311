"""What the soak measures: each part's memory and open files, the files of the home, and whether any of it grows."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.processes import Process, Usage, marked, usage

PARTS = ("kfp", "kubernetes", "gateway", "modelserver", "kserve", "prometheus")
# The model servers come and go with the revisions: what counts is one server's share.
_PER_PROCESS = ("modelserver",)
# Growth over the second half that is no leak: a share of what there was, and a little of anything. Prometheus keeps
# two hours in memory before it writes them out, so it grows for longer than a soak lasts.
_SHARE = {"prometheus": 1.0}
_LITTLE = {"memory": 8.0, "files": 8.0}  # MiB; descriptors
MEMORY, FILES = "memory", "files"


@dataclass(frozen=True)
class Sample:
    """One part at one moment: MiB of memory (what processes share counted once), open files, processes."""

    at: float
    memory: float
    files: int
    processes: int

    def value(self, kind: str, *, each: bool) -> float:
        found = self.memory if kind == MEMORY else float(self.files)
        return found / max(1, self.processes) if each else found


def sample(home: Path) -> dict[str, Sample]:
    """Every part, now."""
    found = {}
    for part in PARTS:
        processes = marked(home, part)
        files = sum(_files(process) for process in processes)
        memory = sum(map(usage, processes), Usage()).memory_bytes / 2**20
        found[part] = Sample(time.monotonic(), memory, files, len(processes))
    return found


def growth(samples: Sequence[Sample], kind: str, *, each: bool) -> tuple[float, float]:
    """How much the second half of the samples grew, by the straight line through them, and their mean."""
    half = samples[len(samples) // 2 :]
    values = [one.value(kind, each=each) for one in half]
    slope, _ = statistics.linear_regression([one.at for one in half], values)
    return slope * (half[-1].at - half[0].at), statistics.fmean(values)


def growing(samples: dict[str, list[Sample]]) -> list[str]:
    """The parts that grow, each with how much."""
    found = []
    for part, taken in samples.items():
        for kind in (MEMORY, FILES):
            grown, mean = growth(taken, kind, each=part in _PER_PROCESS)
            if grown > _LITTLE[kind] + _SHARE.get(part, 0.1) * mean:
                found.append(f"{part}: {kind} grew by {grown:.1f} from about {mean:.1f} in the second half")
    return found


def told(taken: dict[str, Sample]) -> str:
    """A line: memory and open files of each part."""
    return "  ".join(f"{part} {one.memory:.0f} MiB {one.files} fd" for part, one in taken.items())


def sizes(home: Path) -> dict[str, float]:
    """MiB of the logs, of the databases and of Prometheus' blocks."""
    found = {"logs": 0.0, "databases": 0.0, "metrics": 0.0}
    for path in home.rglob("*"):
        with suppress(OSError):
            if not path.is_file() or path.is_symlink():
                continue
            size = path.stat().st_size / 2**20
            if ".sqlite" in path.name:
                found["databases"] += size
            elif path.is_relative_to(home / "prometheus"):
                found["metrics"] += size
            elif ".log" in path.name:
                found["logs"] += size
    return found


def _files(process: Process) -> int:
    try:
        return len(os.listdir(f"/proc/{process.pid}/fd"))
    except OSError:
        return 0
