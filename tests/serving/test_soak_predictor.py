"""A predictor at 80 % of what it can do, for as long as KANARY_SOAK_MINUTES says (20): no good request fails, and
neither memory nor open files grow.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from bench.httpload import Job, put_load
from tests.serving.predictor_rig import ROWS, V1_GOOD, serving, write_model

pytestmark = pytest.mark.soak

CONNECTIONS = 16
SLICE_S = 20.0
GOOD = [json.dumps({"instances": [row]}) for row in ROWS] + [json.dumps(V1_GOOD)] * 4
BAD = json.dumps({"instances": [{"height": "tall"}]})  # one in eight


@dataclass(frozen=True)
class Sample:
    """What the process held at a moment: MiB that are no file's (those of libraries move with whoever maps them, too),
    open files, threads.
    """

    memory: float
    files: int
    threads: int


def sample(process: psutil.Process) -> Sample:
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    anonymous = int(status.partition("RssAnon:")[2].split()[0]) / 1024
    return Sample(anonymous, process.num_fds(), process.num_threads())


def test_memory_stays_flat_under_load(tmp_path: Path) -> None:
    minutes = float(os.environ.get("KANARY_SOAK_MINUTES", "20"))
    write_model(tmp_path / "model")
    with serving(tmp_path / "model", tmp_path / "log") as server:
        url = f"http://127.0.0.1:{server.port}/v1/models/plants:predict"
        process = psutil.Process(server.process.pid)
        most = put_load(Job(url, GOOD, CONNECTIONS, 10.0)).rate
        rate = 0.8 * most
        samples: list[Sample] = []
        answered, failed = 0, Counter[str]()
        end = time.monotonic() + minutes * 60
        while time.monotonic() < end:
            load = put_load(Job(url, [*GOOD, BAD], CONNECTIONS, SLICE_S, rate=rate))
            answered += load.total
            failed.update(load.failed)
            samples.append(sample(process))
            print(
                f"{(end - time.monotonic()) / 60:5.1f} min left: {load.rate:.0f}/s of {rate:.0f}, p99 {load.p99} ms, "
                f"{samples[-1].memory:.1f} MiB, {samples[-1].files} files, {dict(failed)}",
                flush=True,
            )
    # The load was held; on a machine that does other things besides it is not.
    assert answered > 0.75 * rate * len(GOOD) / (len(GOOD) + 1) * SLICE_S * len(samples)
    assert set(failed) == {"400"}
    assert failed["400"] == pytest.approx(answered / len(GOOD), rel=0.01)
    # The first quarter warms up: allocators' arenas, the interpreter's free lists.
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    assert max(one.memory for one in late) < max(one.memory for one in early) * 1.02 + 2
    assert max(one.files for one in late) <= max(one.files for one in early)
    assert max(one.threads for one in late) <= max(one.threads for one in early)
