"""One attempt at one lightweight step: its files, its worker, how that ended. Knows nothing of the DAG around it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.engine import fetch
from sandbox.engine.lightweight import PLAIN, Lightweight
from sandbox.engine.placeholders import TaskFailed
from sandbox.forkserver import Exit, ForkServer, Job, Worker

BARE_PRELOAD = ("kfp.dsl.executor_main",)
LIGHT_PRELOAD = (*BARE_PRELOAD, "pandas", "pyarrow.parquet", "fsspec", "jinja2")
# torch._dynamo: the first optimizer imports it, which takes a second.
TORCH_PRELOAD = (*LIGHT_PRELOAD, "torch", "torch._dynamo", "safetensors.torch")
_TORCH_EXTRAS = frozenset({"train", "serve", "drift"})
_CALL = "kfp.dsl.executor_main:executor_main"
_REHEARSAL = "sandbox.engine.rehearsal:rehearse"
SPARES = 6
"""Workers that wait ready, of each parent that is in use."""
_VMSTAT = Path("/proc/vmstat")


@dataclass(frozen=True)
class Parents:
    """The processes that workers fork from: one for plain Python images, one with pandas, one with torch besides.

    A worker costs the less the less its parent has loaded, and hiding what an image lacks costs more than the rest.
    """

    bare: ForkServer
    light: ForkServer
    torch: ForkServer

    def of(self, step: Lightweight) -> ForkServer:
        """The parent whose modules suit the step's image; an unknown image gets everything."""
        if step.extras is None or _TORCH_EXTRAS & set(step.extras):
            return self.torch
        return self.bare if step.extras == PLAIN else self.light

    def all(self) -> tuple[ForkServer, ...]:
        """Every one of them."""
        return self.bare, self.light, self.torch


def worker_env(threads: int) -> dict[str, str]:
    """What workers find in their environment; they use `threads` threads each for numeric work."""
    return {"_KFP_RUNTIME": "true", "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def parents(logs: Path, threads: int) -> Parents:
    """Parents for pipeline tasks."""
    log, env = logs / "workers.log", worker_env(threads)
    preloads = (BARE_PRELOAD, LIGHT_PRELOAD, TORCH_PRELOAD)
    return Parents(*(ForkServer(one, log, env, spares=SPARES, rehearsal=_REHEARSAL) for one in preloads))


async def begin(
    parent: ForkServer,
    step: Lightweight,
    extras: tuple[str, ...] | None,
    executor_input: Mapping[str, Any],
    folder: Path,
    env: Mapping[str, str],
) -> Worker:
    """Start a worker for `step` in `folder` (made fresh by the caller); its output goes to `folder/log`."""
    source = folder / "ephemeral_component.py"
    source.write_text(step.source, encoding="utf-8")
    (folder / "work").mkdir(exist_ok=True)
    job = Job(
        call=_CALL,
        argv=[
            *("--component_module_path", str(source)),
            *("--executor_input", json.dumps(executor_input)),
            *("--function_to_execute", step.function),
        ],
        cwd=folder / "work",
        log=folder / "log",
        env=env,
        extras=extras,
        image=step.image,
        report=folder / "reason",
    )
    return await parent.run(job)


async def begin_download(parent: ForkServer, uri: str, target: Path, folder: Path) -> Worker:
    """Start a worker that brings what is at `uri` to `target`; its output goes to `folder/log`."""
    (folder / "work").mkdir(exist_ok=True)
    job = Job(
        call=fetch.CALL,
        argv=[uri, str(target)],
        cwd=folder / "work",
        log=folder / "log",
        report=folder / "reason",
    )
    return await parent.run(job)


async def end(worker: Worker, folder: Path, oom_kills_before: int) -> None:
    """Wait for the worker; TaskFailed with the reason it left, else with how the process ended."""
    ended = await worker.wait()
    if ended.code == 0:
        return
    reason = folder / "reason"
    if ended.code is not None and ended.code > 0 and reason.exists() and reason.stat().st_size:
        raise TaskFailed(reason.read_text(encoding="utf-8", errors="replace"))
    raise TaskFailed(_cause(ended, oom_kills() > oom_kills_before))


def _cause(ended: Exit, kernel_killed: bool) -> str:
    if ended.code == -signal.SIGKILL and kernel_killed:
        return f"killed by the kernel for lack of memory (OOMKilled, {ended.max_rss_kib / 1024:.0f} MiB at its largest)"
    return ended.reason()


def oom_kills() -> int:
    """How many processes the kernel has killed so far for lack of memory."""
    try:
        lines = _VMSTAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))
