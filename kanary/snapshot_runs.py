"""The runs of a Kubeflow Pipelines server as far as they were read: one or two pages a refresh, however many there are.

Pure but for the operation, which asks for lists only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType

from kanary import kfp
from kanary.kfp_types import Run, RunPage
from kanary.operations import Operation

NEWEST = 50  # runs that are read anew each time, with their tasks
OLDER = kfp.PAGE_SIZE  # runs of an older page
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Runs:
    """Runs by id. `older`: the token of the first page that was not read yet, "" where all were; `total`: in all."""

    by_id: Mapping[str, Run] = field(default_factory=dict)
    older: str = ""
    total: int = 0
    deep: bool = False  # older pages than the newest were read
    again: str = ""  # the token of the older page that is read again next; "" for the first of them


def refresh(known: Runs, *, namespace: str = "", archived: bool = False, more: bool = False) -> Operation[Runs]:
    """The newest page anew, and one older one: with `more` the first that is not known, else those that are, in turn.

    So the newest runs are as old as one refresh, the oldest as old as one for every 200 that are known.
    """
    predicates = () if archived else (kfp.NOT_ARCHIVED,)
    page = yield from kfp.list_runs(page_size=NEWEST, predicates=predicates, namespace=namespace, with_tasks=True)
    if known.deep:
        runs = with_page(known, page, first=True)
    else:
        # What has left the newest page would never be read again.
        runs = replace(with_page(Runs(), page, first=True), older=page.next_page_token)
    fresh = more and bool(runs.older)
    token = runs.older if fresh else (runs.again or page.next_page_token) if runs.deep else ""
    if not token:
        return runs
    older = yield from kfp.list_runs(page_token=token, page_size=OLDER, predicates=predicates, namespace=namespace)
    runs = with_page(runs, older, first=False)
    if fresh:
        return replace(runs, older=older.next_page_token, deep=True)
    ended = not older.next_page_token or _reaches_the_oldest(older, known)
    return replace(runs, again="" if ended else older.next_page_token)


def with_page(known: Runs, page: RunPage, *, first: bool) -> Runs:
    """What is known after a page: it tells all there is between its newest and its oldest run.

    A first page also tells that nothing is newer, one without a token that nothing is older.
    """
    listed = {run.run_id: _with_tasks(run, known.by_id.get(run.run_id)) for run in page.runs}
    newest = max((_begun(run) for run in page.runs), default=None)
    oldest = min((_begun(run) for run in page.runs), default=None)

    def gone(run: Run) -> bool:
        if newest is None or oldest is None:
            return first and not page.next_page_token
        # Of runs that began together the server's own order is not known: those at the edge stay.
        below = _begun(run) < newest or first
        above = _begun(run) > oldest or not page.next_page_token
        return below and above

    kept = {key: run for key, run in known.by_id.items() if key not in listed and not gone(run)}
    found = MappingProxyType(kept | listed)
    return replace(known, by_id=found, total=max(page.total, len(found)))


def _begun(run: Run) -> datetime:
    return run.created_at or _NEVER


def _with_tasks(run: Run, before: Run | None) -> Run:
    """Lists may leave the tasks out: what was known of a run that has not changed since still holds."""
    if run.tasks or before is None or before.state != run.state:
        return run
    return replace(run, tasks=before.tasks)


def _reaches_the_oldest(page: RunPage, known: Runs) -> bool:
    oldest = min(map(_begun, known.by_id.values()), default=None)
    return oldest is None or any(_begun(run) <= oldest for run in page.runs)
