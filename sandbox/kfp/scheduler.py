"""Makes the runs of recurring runs when they are due. Asks the clock again and again: it may be set at any time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from dataclasses import replace

from sandbox.errors import NotFound, SandboxError
from sandbox.kfp.schedule import next_scheduled, was_set_back
from sandbox.kfp.service import Service
from sandbox.kfp.submission import scheduled_run
from sandbox.runstore.recurring import RecurringRun

_log = logging.getLogger(__name__)

_POLL_S = 1.0  # a step of the clock is noticed within that
_BLOCKED_S = 0.25  # how soon a run that waits for others to end is looked at again
_IDLE_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 300.0


class Scheduler:
    """The recurring runs of one service. A run and the note that it was made are stored together, or neither is."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._failures: dict[str, tuple[int, float]] = {}  # how often in a row, and when to try again

    async def run(self) -> None:
        """Works until it is cancelled."""
        changed = self._service.schedule_changed
        while True:
            changed.clear()
            pause = self.tick()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):  # wait_for of Python 3.11 can lose a cancellation
                    await changed.wait()

    def tick(self) -> float:
        """Makes every run that is due; gives the seconds after which to look again at the latest."""
        try:
            records = self._service.recurring.enabled()
        except sqlite3.Error as error:
            _log.warning("recurring runs cannot be read now: %s", error)
            return _POLL_S
        known = {record.recurring_run_id for record in records}
        self._failures = {key: value for key, value in self._failures.items() if key in known}
        return min((self._attend(record) for record in records), default=_IDLE_S)

    def _attend(self, record: RecurringRun) -> float:
        """The outermost frame of one recurring run: whatever goes wrong with it holds up no other."""
        try:
            return self._serve(record)
        except Exception:  # noqa: BLE001  # it is logged whole, and looked at again
            _log.exception("recurring run %s cannot be scheduled", record.recurring_run_id)
            return _POLL_S

    def _serve(self, record: RecurringRun) -> float:
        """Makes the runs of one recurring run that are due; gives the seconds until the next look at it."""
        service = self._service
        while True:
            now = service.clock()
            if was_set_back(record, now):
                _log.warning("recurring run %s: the clock was set back, its schedule begins anew", record.display_name)
                service.recurring.begin_anew(record.recurring_run_id, now)
                return 0.0
            due = next_scheduled(record, now, service.zone)
            if due is None:
                return _POLL_S
            if due > now:
                return min(max(due - now, 0.01), _POLL_S)
            _, again = self._failures.get(record.recurring_run_id, (0, 0.0))
            if now < again <= now + _LONGEST_PAUSE_S:
                return _POLL_S
            if service.store.active_runs_of(record.recurring_run_id) >= record.max_concurrency:
                return _BLOCKED_S
            if not self._trigger(record.recurring_run_id, due, now):
                return _POLL_S
            record = replace(record, last_triggered=due, last_index=record.last_index + 1)

    def _trigger(self, recurring_run_id: str, due: float, now: float) -> bool:
        """Makes and starts one run; False where that fails, which is then told in the recurring run."""
        service = self._service
        try:
            record = service.recurring.get(recurring_run_id)
            run = scheduled_run(service, record, due, now)
            with service.store.database.transaction():
                service.store.save_run(run)
                service.recurring.triggered(recurring_run_id, due, record.last_index + 1)
        except (SandboxError, sqlite3.Error) as error:
            self._fail(recurring_run_id, error, now)
            return False
        self._failures.pop(recurring_run_id, None)
        service.engine.submit(run.run_id)
        return True

    def _fail(self, recurring_run_id: str, error: SandboxError | sqlite3.Error, now: float) -> None:
        count, _ = self._failures.get(recurring_run_id, (0, 0.0))
        self._failures[recurring_run_id] = (count + 1, now + min(_FIRST_PAUSE_S * 2**count, _LONGEST_PAUSE_S))
        _log.warning("recurring run %s: the run that is due cannot be made: %s", recurring_run_id, error)
        message = error.message if isinstance(error, SandboxError) else f"The store refused: {error}"
        try:
            self._service.recurring.failed(recurring_run_id, message)
        except (NotFound, sqlite3.Error):
            return  # deleted meanwhile, or the store still refuses
