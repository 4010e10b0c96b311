"""Forgets old runs as the operator's policy says, a few at a time, their logs with them. Artifacts stay."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
from pathlib import Path

from sandbox.errors import NotFound
from sandbox.kfp.service import Service
from sandbox.runstore.pruning import prunable

_log = logging.getLogger(__name__)

_EVERY_S = 60.0
_BATCH = 20  # what is forgotten between two looks at requests: a few milliseconds


async def prune_now(service: Service) -> int:
    """Forgets every run that the policy lets go; gives their number."""
    forgotten = 0
    while run_ids := prunable(service.store.database, service.keep, _BATCH):
        for run_id in run_ids:
            try:
                service.store.delete_run(run_id)
            except NotFound:  # deleted by a request meanwhile
                continue
            forgotten += 1
            await asyncio.to_thread(shutil.rmtree, run_folder(service, run_id), True)
    return forgotten


def run_folder(service: Service, run_id: str) -> Path:
    """Where the run's logs and working files lie."""
    return service.engine.log_path(run_id, "task").parent.parent


async def prune(service: Service) -> None:
    """Works until it is cancelled; does nothing where everything is kept."""
    while not service.keep.everything:
        try:
            if number := await prune_now(service):
                _log.info("forgot %d old runs (%s)", number, service.keep)
        except sqlite3.Error as error:
            _log.warning("old runs cannot be forgotten now: %s", error)
        await asyncio.sleep(_EVERY_S)
