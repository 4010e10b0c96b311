"""One attempt at one executor: its folder, its worker, its outputs. Knows nothing of the DAG around it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.engine.lightweight import Lightweight
from sandbox.engine.values import TaskFailed
from sandbox.forkserver import ForkServer, Job, Worker

LIGHT_PRELOAD = ("kfp.dsl.executor_main", "pandas", "pyarrow.parquet", "fsspec", "jinja2")
# torch._dynamo: the first optimizer imports it, which takes a second.
TORCH_PRELOAD = (*LIGHT_PRELOAD, "torch", "torch._dynamo", "safetensors.torch")
_TORCH_EXTRAS = frozenset({"train", "serve", "drift"})
_CALL = "kfp.dsl.executor_main:executor_main"


@dataclass(frozen=True)
class Parents:
    """The two processes that workers fork from."""

    light: ForkServer
    torch: ForkServer

    def of(self, step: Lightweight) -> ForkServer:
        """The parent whose modules suit the step's image; an unknown image gets everything."""
        return self.light if step.extras is not None and not _TORCH_EXTRAS & set(step.extras) else self.torch


def parents(logs: Path, threads: int) -> Parents:
    """Parents for pipeline tasks; their workers use `threads` threads each for numeric work."""
    env = {"_KFP_RUNTIME": "true", "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    log = logs / "workers.log"
    return Parents(ForkServer(LIGHT_PRELOAD, log, env), ForkServer(TORCH_PRELOAD, log, env))


async def begin(
    parent: ForkServer, step: Lightweight, executor_input: Mapping[str, Any], folder: Path, env: Mapping[str, str]
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
        env={**env, **dict(step.env)},
        extras=step.extras,
        image=step.image,
        report=folder / "reason",
    )
    return await parent.run(job)


async def end(worker: Worker, folder: Path) -> None:
    """Wait for the worker; TaskFailed with the reason it left, else with how the process ended."""
    ended = await worker.wait()
    if ended.code == 0:
        return
    reason = folder / "reason"
    if ended.code is not None and ended.code > 0 and reason.exists():
        raise TaskFailed(reason.read_text(encoding="utf-8", errors="replace"))
    raise TaskFailed(ended.reason())


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))
