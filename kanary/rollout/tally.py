"""Raw counters by instance made into one arm's: as if one proxy had counted all of it and never started anew. Pure.

A gateway is several pods, and each starts anew on its own. What an instance shows when it is first seen is where it is
counted from; what goes down started at 0 since; what is gone for a while goes on from where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kanary.judge.counters import Counters

Values = Mapping[str, int]
INSTANCES = 200  # the newest that are remembered


@dataclass(frozen=True)
class Raw:
    """One reading: arm -> instance -> name of a counter -> its value. Names: requests, errors, le:EDGE, class:NAME."""

    arms: Mapping[str, Mapping[str, Values]] = field(default_factory=dict)

    @property
    def instances(self) -> tuple[str, ...]:
        """Who counts."""
        return tuple(dict.fromkeys(name for arm in self.arms.values() for name in arm))


@dataclass(frozen=True)
class Tally:
    """`last`: the newest values of each instance and arm; `totals`: what was counted since the first reading."""

    last: Mapping[str, Mapping[str, Values]] = field(default_factory=dict)  # instance -> arm -> values
    totals: Mapping[str, Values] = field(default_factory=dict)  # arm -> values

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Tally:
        """From what `to_json` gave; an empty one from {}."""
        return Tally(dict(document.get("last") or {}), dict(document.get("totals") or {}))


def add(tally: Tally, raw: Raw) -> Tally:
    """`tally` with one more reading."""
    last = {name: dict(arms) for name, arms in tally.last.items()}
    totals = {arm: dict(values) for arm, values in tally.totals.items()}
    for arm, instances in raw.arms.items():
        total = totals.setdefault(arm, {})
        for instance, values in instances.items():
            known = instance in tally.last
            before = tally.last.get(instance, {}).get(arm, {})
            for name, value in values.items():
                # A series that a known instance had not yet stood at 0; of a new instance nobody knows its past.
                grown = _grown(before.get(name, 0), value) if known else 0
                total[name] = total.get(name, 0) + grown
            # The newest last, for the bound below.
            arms = last.pop(instance, {})
            last[instance] = arms | {arm: dict(before) | dict(values)}
    kept = list(last.items())[-INSTANCES:]
    return replace(tally, last=dict(kept), totals=totals)


def counters(tally: Tally, arm: str, edges: Iterable[str]) -> Counters:
    """What the judge is given of an arm. `edges` as Prometheus writes them, ascending, without +Inf."""
    values = tally.totals.get(arm, {})
    named = [f"le:{edge}" for edge in (*edges, "+Inf")]
    buckets = tuple(values.get(name, 0) for name in named)
    return Counters(
        requests=values.get("requests", 0),
        errors=values.get("errors", 0),
        retried=values.get("retried", 0),
        retries=values.get("retries", 0),
        buckets=buckets if len(named) > 1 else (),
        classes={name[6:]: count for name, count in values.items() if name.startswith("class:")},
    )


def edges(tally: Tally) -> tuple[str, ...]:
    """The latency edges that any arm has, ascending, without +Inf."""
    names = {name[3:] for values in tally.totals.values() for name in values if name.startswith("le:")}
    return tuple(sorted(names - {"+Inf"}, key=float))


def _grown(before: int, now: int) -> int:
    return now - before if now >= before else now
