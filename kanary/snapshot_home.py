"""What needs a person now, in one line. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kanary.kfp_types import Run
from kanary.snapshot_drift import DRIFTS, UNKNOWN, Drift, served
from kanary.snapshot_services import CANARY, FAILING, STARTING, UNREADABLE, Service

GOOD, WATCH, BAD = "good", "watch", "bad"


@dataclass(frozen=True)
class Item:
    """One thing to know: how bad, how many of what."""

    weight: str
    text: str


def home(
    runs: Iterable[Run] | None, services: Mapping[str, Service] | None, drift: Drift | None = None
) -> tuple[Item, ...]:
    """The items, the worst first; what is not known (None) is not spoken of."""
    found = []
    if runs is not None:
        newest = latest_ends(runs)
        failing = sum(run.state == "FAILED" for run in newest.values())
        going = sum(not run.final for run in runs)
        found += [Item(BAD, counted(failing, "pipeline") + " failing")] if failing else []
        found += [Item(WATCH, counted(going, "run") + " going")] if going else []
    if services is not None:
        by = {
            kind: sum(s.situation == kind for s in services.values())
            for kind in (FAILING, UNREADABLE, CANARY, STARTING)
        }
        bad = by[FAILING] + by[UNREADABLE]
        found += [Item(BAD, counted(bad, "service") + " failing")] if bad else []
        out = sum(bool(s.status.canary) for s in services.values())
        found += [Item(WATCH, ("1 canary" if out == 1 else f"{out} canaries") + " out")] if out else []
        found += [Item(WATCH, counted(by[STARTING], "service") + " starting")] if by[STARTING] else []
    found += _drifting(drift, services) if drift is not None else []
    if not found and (runs is not None or services is not None):
        return (Item(GOOD, "nothing needs you"),)
    return tuple(sorted(found, key=lambda item: (BAD, WATCH, GOOD).index(item.weight)))


def _drifting(drift: Drift, services: Mapping[str, Service] | None) -> list[Item]:
    """Of models that serve: which drift, and of how many nobody can tell."""
    serving = [model for model in drift.models.values() if served(model, services)]
    drifting = [model for model in serving if model.verdict == DRIFTS]
    unknown = sum(model.verdict == UNKNOWN for model in serving)
    found = []
    if len(drifting) == 1:
        found.append(Item(BAD, f"{drifting[0].service} drifts"))
    elif drifting:
        found.append(Item(BAD, f"{len(drifting)} models drift"))
    return found + ([Item(WATCH, f"drift of {counted(unknown, 'model')} unknown")] if unknown else [])


def latest_ends(runs: Iterable[Run]) -> dict[str, Run]:
    """The newest ended run of each pipeline, by the pipeline's name."""
    found: dict[str, Run] = {}
    for run in runs:
        if run.final and run.finished_at is not None:
            known = found.get(run.pipeline_name)
            if known is None or known.finished_at is None or known.finished_at < run.finished_at:
                found[run.pipeline_name] = run
    return found


def counted(number: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
