"""Which old runs may go. Never one that has not ended, and none that was archived: that is how a run is kept."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.runstore.database import Database
from sandbox.runstore.store import FINAL_STATES

_DAY_S = 86400.0


@dataclass(frozen=True)
class Keep:
    """How many ended runs to keep, and for how many days after their end; None keeps all."""

    runs: int | None = None
    days: float | None = None

    @property
    def everything(self) -> bool:
        return self.runs is None and self.days is None


def prunable(database: Database, keep: Keep, most: int) -> list[str]:
    """Up to `most` runs that go, oldest first.

    Days are counted back from the newest run, not from now: a sandbox that nobody used for a while loses nothing, and
    neither does one whose clock was set ahead.
    """
    states = ", ".join("?" * len(FINAL_STATES))
    ended = f"storage_state = 'AVAILABLE' AND state IN ({states})"
    found: dict[str, None] = {}
    if keep.days is not None:
        newest = database.row("SELECT max(created_at) AS moment FROM runs")
        until = (newest["moment"] or 0.0) - keep.days * _DAY_S if newest else 0.0
        rows = database.rows(
            f"SELECT run_id FROM runs WHERE {ended} AND ifnull(finished_at, 0) < ?"
            " ORDER BY ifnull(finished_at, 0), run_id LIMIT ?",
            (*FINAL_STATES, until, most),
        )
        found.update((row["run_id"], None) for row in rows)
    if keep.runs is not None:
        count = database.row(f"SELECT count(*) AS number FROM runs WHERE {ended}", tuple(FINAL_STATES))
        over = (count["number"] if count else 0) - keep.runs
        rows = database.rows(
            f"SELECT run_id FROM runs WHERE {ended} ORDER BY created_at, run_id LIMIT ?",
            (*FINAL_STATES, max(0, min(over, most))),
        )
        found.update((row["run_id"], None) for row in rows)
    return list(found)[:most]
