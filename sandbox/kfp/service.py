"""What every request handler works with: the store, the catalog and the engine that runs what is submitted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from threading import Event
from typing import Protocol

from sandbox.kfp.wire import Release
from sandbox.runstore.catalog import Catalog
from sandbox.runstore.pruning import Keep
from sandbox.runstore.recurring import RecurringRuns
from sandbox.runstore.store import Store


class Engine(Protocol):
    """What the API asks of the engine; it reads and writes runs through the same store."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def submit(self, run_id: str) -> None: ...

    async def terminate(self, run_id: str) -> None: ...

    async def retry(self, run_id: str) -> None: ...

    def log_path(self, run_id: str, task_id: str) -> Path: ...


@dataclass(frozen=True)
class Service:
    """One sandbox's pipelines.

    `artifacts` is where runs that name no pipeline root put their outputs; `closing` is set when the server has been
    told to end, for whoever would otherwise go on answering. `clock` gives seconds since the epoch, `zone` is that of
    cron schedules, and `schedule_changed` is set when the scheduler has to look again.
    """

    store: Store
    catalog: Catalog
    recurring: RecurringRuns
    engine: Engine
    artifacts: Path
    release: Release = Release.BOTH
    keep: Keep = field(default_factory=Keep)
    zone: tzinfo = UTC
    clock: Callable[[], float] = time.time
    closing: Event = field(default_factory=Event)
    schedule_changed: asyncio.Event = field(default_factory=asyncio.Event)
