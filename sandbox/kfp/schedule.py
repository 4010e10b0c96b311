"""When the next run of a recurring run is due: pure functions of its record and the time.

Source: cron_schedule.go, periodic_schedule.go and scheduled_workflow.go of KFP's ScheduledWorkflow controller.
"""

from __future__ import annotations

from datetime import UTC, tzinfo

from sandbox.kfp import cron
from sandbox.runstore.recurring import RecurringRun, Trigger

# The clock was set back if what has been lies this far ahead. Less is a correction: nothing runs twice because of it.
SET_BACK_S = 3600.0


def was_set_back(record: RecurringRun, now: float) -> bool:
    """Whether the schedule has to begin anew with `now`: by the clock, what it has done lies in the future."""
    return (record.created_at if record.last_triggered is None else record.last_triggered) > now + SET_BACK_S


def next_scheduled(record: RecurringRun, now: float, zone: tzinfo = UTC) -> float | None:
    """The time for which the next run is scheduled: due where it is not after `now`; None where none is to come.

    With catch-up, the first one after the last that was triggered, however long ago that is. Without, of those that
    are due the newest alone: of a cron its own time, of an interval `now`.
    """
    last, since = record.last_triggered, record.created_at
    if record.trigger.cron:
        return _next_of_cron(record.trigger, last, since, now, record.no_catchup, zone)
    return _next_of_interval(record.trigger, last, since, now, record.no_catchup)


def _next_of_cron(
    trigger: Trigger, last: float | None, since: float, now: float, no_catchup: bool, zone: tzinfo
) -> float | None:
    schedule = cron.parse(trigger.cron)
    start = trigger.start_time
    after = last if last is not None else start if start is not None else since
    if start is not None:
        after = max(after, start)
    found = cron.next_time(schedule, after, zone)
    end = trigger.end_time
    if found is None or (end is not None and found > end):
        return None
    if not no_catchup or found > now:
        return found
    return cron.latest_time(schedule, after, now if end is None else min(now, end), zone) or found


def _next_of_interval(trigger: Trigger, last: float | None, since: float, now: float, no_catchup: bool) -> float | None:
    start, end, step = trigger.start_time, trigger.end_time, trigger.interval_second
    after = last if last is not None else start if start is not None else since
    found = start if start is not None and start > after else after + step
    if end is not None and found > end:
        return None
    if no_catchup and now >= found + step:
        return now if end is None else min(now, end)
    return found
