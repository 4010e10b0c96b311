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
class Next:
    """The page that follows another: the token that asks for it, and when the oldest run of the other began."""

    token: str
    below: datetime


@dataclass(frozen=True)
class Runs:
    """Runs by id. `older`: the first page that was not read yet, None where all were; `total`: how many in all."""

    by_id: Mapping[str, Run] = field(default_factory=dict)
    older: Next | None = None
    total: int = 0
    deep: bool = False  # older pages than the newest were read
    again: Next | None = None  # the older page that is read again next; None for the first of them
    rested: bool = False  # the refresh before read no older page


def refresh(known: Runs, *, namespace: str = "", archived: bool = False, more: bool = False) -> Operation[Runs]:
    """The newest page anew, and an older one: with `more` the first that is not known, else those that are, in turn.

    Those that are known are read with every second refresh: little happens to them, and a page of them costs as much as
    the rest. So the newest runs are as old as one refresh, the oldest as old as two for every 200 that are known.
    """
    predicates = () if archived else (kfp.NOT_ARCHIVED,)
    page = yield from kfp.list_runs(page_size=NEWEST, predicates=predicates, namespace=namespace, with_tasks=True)
    # Where it is the only page that is known, what has left it would never be read again.
    newest = with_page(known if known.deep else Runs(), page, None)
    runs = newest if known.deep else replace(newest, older=_after(page))
    fresh = more and runs.older is not None
    following = runs.older if fresh else (runs.again or _after(page)) if runs.deep and runs.rested else None
    if following is None:
        return replace(runs, rested=True)
    older = yield from kfp.list_runs(
        page_token=following.token, page_size=OLDER, predicates=predicates, namespace=namespace
    )
    runs = with_page(runs, older, following.below)
    if fresh:
        return replace(runs, older=_after(older), deep=True)
    return replace(runs, again=None if _reaches_the_oldest(older, known) else _after(older), rested=False)


def with_page(known: Runs, page: RunPage, below: datetime | None) -> Runs:
    """What is known after a page: it tells all there is from `below` (None: from the newest) down to its oldest run.

    A page without a token for the next one tells that nothing is older.
    """
    listed = {run.run_id: _with_tasks(run, known.by_id.get(run.run_id)) for run in page.runs}
    oldest = min((_begun(run) for run in page.runs), default=None)

    def gone(run: Run) -> bool:
        # Of runs that began together the server's own order is not known: those at an edge stay.
        inside = below is None or _begun(run) < below
        return inside and (not page.next_page_token or (oldest is not None and _begun(run) > oldest))

    kept = {key: run for key, run in known.by_id.items() if key not in listed and not gone(run)}
    found, total = kept | listed, max(page.total, len(kept | listed))
    if found == known.by_id and total == known.total:
        return known  # the very same: nothing has to be looked at again
    return replace(known, by_id=MappingProxyType(found), total=total)


def _after(page: RunPage) -> Next | None:
    if not page.next_page_token or not page.runs:
        return None
    return Next(page.next_page_token, min(map(_begun, page.runs)))


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
