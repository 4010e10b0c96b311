"""The rollback as the monitor does it: kanary.kserve's own, each step told, and when the last request is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from kanary.errors import KanaryError
from kanary.kserve import decide
from kanary.kserve.status import ServiceStatus
from kanary.snapshot_hub import Hub
from kanary.snapshot_services import Service
from kanary.text import one_line
from tui.service_words import short

Say = Callable[[str, str], None]
_QUIET = 60.0  # seconds that the end of the canary's requests is waited for


async def roll_back(hub: Hub, service: Service, reason: str, to: str, bad: Sequence[str], say: Say) -> str:
    """Rolls back, tells each step and when the last request has gone to what it is taken from. Gives the last word."""
    from kanary.kserve import rollback as brake

    api = await hub.connections.kubernetes()
    status, started = service.status, time.time()
    quiet: asyncio.Task[None] | None = None

    def tell(step: brake.Progress) -> None:
        nonlocal quiet
        if step.kind != brake.PLAN:  # the dialog has said it already
            text = one_line(step.text).replace(f"{status.name}-predictor-", "")
            say(f"{max(0.0, step.at - started) * 1000:6.0f} ms  {text}", _STEP.get(step.kind, ""))
        if step.kind == brake.EFFECTIVE and bad and quiet is None:
            quiet = asyncio.create_task(tell_last_request(hub, status, bad, say))

    try:
        done = await api.call(brake.rollback(status.name, status.namespace, reason, to=to, on_progress=tell))
        if quiet is not None:
            await quiet
    finally:
        if quiet is not None:
            quiet.cancel()
    if done.outcome == "held":
        raise KanaryError(f"Unfinished: {one_line(done.why)}.", "R goes on with it.")
    if done.outcome == "already":
        return f"nothing to do: {one_line(done.why)}"
    return f"{status.name} is rolled back to {done.target_version or 'the stable content'}"


_STEP = {decide.WAIT: "dim", "effective": "good", decide.COMPLETE: "good"}


async def tell_last_request(hub: Hub, status: ServiceStatus, bad: Sequence[str], say: Say) -> None:
    """Tells when the callers' proxy has counted the last request to revisions that get no traffic any more."""
    from kanary import snapshot_metrics
    from kanary.rollout.profiles import Where

    names = ", ".join(short(status, name) for name in bad)
    metrics = hub.metrics.value
    if metrics is None or metrics.profile is None:
        why = one_line(hub.metrics.error or (metrics.note if metrics else "") or "no metrics yet")
        say(f"whether requests still reach {names} cannot be seen: {why}", "warn")
        return
    where = Where(status.namespace, status.name, tuple(bad), hub.connections.config.prometheus_selectors)
    before: snapshot_metrics.Count | None = None
    ends = time.monotonic() + max(_QUIET, 4 * metrics.interval)
    try:
        client = await hub.connections.prometheus()
        while time.monotonic() < ends:
            found = await client.call(snapshot_metrics.count(metrics.profile, where))
            if found.total is None:
                say(f"the proxy has no route to {names} any more: its last request is gone", "good")
                return
            if (
                before is not None
                and before.total == found.total
                and before.scraped < found.scraped
                and not found.active
            ):
                at = datetime.fromtimestamp(before.scraped).astimezone()
                say(f"the last request to {names} is gone: none since {at:%H:%M:%S}, {found.total:.0f} in all", "good")
                return
            if before is None or before.total != found.total:
                before = found
            await asyncio.sleep(min(1.0, metrics.interval / 2))
        say(f"requests still reach {names} after {_QUIET:.0f} s", "bold bad")
    except KanaryError as error:
        say(f"whether requests still reach {names} cannot be seen: {one_line(error.message)}", "warn")
