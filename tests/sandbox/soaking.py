"""What the soak measures: each part's memory and open files, the files of the home, and whether any of it grows."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sandbox.processes import Process, Usage, marked, usage

PARTS = ("kfp", "kubernetes", "gateway", "modelserver", "kserve", "prometheus")
# The model servers come and go with the revisions: what counts is one server's share.
_PER_PROCESS = ("modelserver",)
# Growth over the second half that is no leak: a share of what there was, and a little of anything. Prometheus keeps
# two hours in memory before it writes them out, so it grows for longer than a soak lasts.
_SHARE = {"prometheus": 1.0}
# Envoy's allocator takes memory from the system in large pieces and seldom gives one back: one step of at most so many
# MiB is left out of what Envoy grew by. A second one counts, and so does what creeps up between.
_STEP = {"gateway": 40.0}
_WINDOWS = 12  # the second half, in pieces: a step is what lies between the medians of two neighbours
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


def growth(samples: Sequence[Sample], kind: str, *, each: bool, step: float = 0.0) -> tuple[float, float]:
    """How much the second half of the samples grew, by the straight line through them, and their mean.

    The largest step up is left out where it is at most `step`.
    """
    half = samples[len(samples) // 2 :]
    values = [one.value(kind, each=each) for one in half]
    if step:
        values = _without_step(values, step)
    slope, _ = statistics.linear_regression([one.at for one in half], values)
    return slope * (half[-1].at - half[0].at), statistics.fmean(values)


def growing(samples: dict[str, list[Sample]]) -> list[str]:
    """The parts that grow, each with how much."""
    found = []
    for part, taken in samples.items():
        for kind in (MEMORY, FILES):
            step = _STEP.get(part, 0.0) if kind == MEMORY else 0.0
            grown, mean = growth(taken, kind, each=part in _PER_PROCESS, step=step)
            if grown > _LITTLE[kind] + _SHARE.get(part, 0.1) * mean:
                found.append(f"{part}: {kind} grew by {grown:.1f} from about {mean:.1f} in the second half")
    return found


def _without_step(values: list[float], most: float) -> list[float]:
    """`values` with everything after the largest step up, if that is at most `most`, lowered by it."""
    edges = [len(values) * number // _WINDOWS for number in range(_WINDOWS + 1)]
    medians = [statistics.median(values[first:last]) for first, last in pairwise(edges) if first < last]
    steps = [after - before for before, after in pairwise(medians)]
    largest = max(steps, default=0.0)
    if len(medians) < _WINDOWS or not 0 < largest <= most:
        return values
    # The step lies within one of the two windows: half of the way up is where it is.
    at = steps.index(largest)
    middle = (medians[at] + medians[at + 1]) / 2
    begin = next(i for i in range(edges[at], edges[at + 2]) if values[i] > middle)
    return [value - largest if i >= begin else value for i, value in enumerate(values)]


def told(taken: dict[str, Sample]) -> str:
    """A line: memory and open files of each part."""
    return "  ".join(f"{part} {one.memory:.0f} MiB {one.files} fd" for part, one in taken.items())


def course(samples: dict[str, list[Sample]]) -> str:
    """Memory of each part in MiB at the start, in the middle and at the end: medians of a twentieth of the samples."""
    told = []
    for part, taken in samples.items():
        few = max(1, len(taken) // 20)
        pieces = (taken[:few], taken[(len(taken) - few) // 2 :][:few], taken[-few:])
        medians = [statistics.median(one.value(MEMORY, each=part in _PER_PROCESS) for one in piece) for piece in pieces]
        told.append(f"{part} " + " > ".join(f"{median:.1f}" for median in medians))
    return "MiB " + ", ".join(told)


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
