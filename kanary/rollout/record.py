"""What is remembered of a rollout, in the ConfigMap kanary-<service> under the key `rollout`. Pure, and bounded.

The automation writes all of it but `acts`, which belongs to people: pause, resume, approve. So neither loses the
other's words, and whoever starts the automation again goes on from here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from kanary.errors import KanaryError
from kanary.judge.counters import Arm
from kanary.release import State

T = TypeVar("T")
KEY = "rollout"
FORMAT = "kanary-rollout/1"
ACTS, LOG, POINTS = 60, 120, 160  # the newest that are kept; points are merged in pairs instead
SENTENCE = 1000  # characters

# Phases: what it is at. Each is written down before it is begun.
STARTING, MOVING, BAKING, PROMOTING, WATCHING, ROLLING_BACK, OVER = (
    *("starting", "moving", "baking", "promoting", "watching"),
    *("rolling back", "over"),
)
# Outcomes, once it is over.
PROMOTED, ROLLED_BACK, HELD = "promoted", "rolled back", "held"
PAUSE, RESUME, APPROVE = "pause", "resume", "approve"
FINDING = -1  # what an approval may be of, besides the step (percent) before which it is asked


@dataclass(frozen=True)
class Act:
    """What a person said to a rollout. `step` of an approval: the percentage it lets pass, or FINDING."""

    what: str
    who: str
    when: str
    why: str = ""
    step: int = 0


@dataclass(frozen=True)
class Event:
    """What the automation did or found, at a moment in ISO 8601."""

    when: str
    text: str


@dataclass(frozen=True)
class Step:
    """One step's numbers: the share in percent, from when to when (seconds since the epoch), and what was counted."""

    percent: int
    since: float
    until: float = 0.0
    canary: Arm = field(default_factory=Arm)
    stable: Arm = field(default_factory=Arm)
    verdict: str = ""
    sentence: str = ""


@dataclass(frozen=True)
class Point:
    """One stretch of time for the charts: its end, the share, and both arms' requests and failures in it."""

    at: float
    percent: int
    canary: int
    canary_errors: int
    stable: int
    stable_errors: int


@dataclass(frozen=True)
class Record:
    """A rollout. Times ending in nothing are seconds since the epoch, `started` and `ended` are ISO 8601.

    `step` is the index of the policy's step that is in force or being moved to, -1 before the first. `asked` is the
    percentage that the automation last found or wrote in the spec. `waits` says what it waits for.
    """

    id: str
    version: str
    digest: str
    canary: str
    stable: str
    policy: Mapping[str, Any]
    stable_version: str = ""
    run_id: str = ""
    who: str = ""
    started: str = ""
    ended: str = ""
    epoch: int = 0
    phase: str = STARTING
    step: int = -1
    asked: int | None = None
    since: float = 0.0  # the step's, whatever it waited for: its deadline counts from here
    in_force: float = 0.0  # when its share was in force; 0: not yet
    looked: float = 0.0
    failing: float = 0.0  # since when the canary is not ready
    profile: str = ""
    tally: Mapping[str, Any] = field(default_factory=dict)
    counting: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    points: tuple[Point, ...] = ()
    verdict: str = ""
    sentence: str = ""
    findings: Mapping[str, Any] = field(default_factory=dict)  # the last verdict's reasons, tests, notes, needs
    told: float = 0.0  # when the verdict was last put in words
    found: str = ""  # when the judge's finding was made for which a person is asked, in ISO 8601
    waits: str = ""
    problem: str = ""  # why there were no numbers at the last look
    acts: tuple[Act, ...] = ()
    log: tuple[Event, ...] = ()
    outcome: str = ""
    why: str = ""
    evidence_uri: str = ""  # where the evidence bundle lies
    sha256: str = ""  # of the evidence bundle

    @property
    def paused(self) -> Act | None:
        """The pause that holds now; None where there is none."""
        last = next((act for act in reversed(self.acts) if act.what in (PAUSE, RESUME)), None)
        return last if last is not None and last.what == PAUSE else None

    def approval(self, step: int) -> Act | None:
        """Who let this step, or the finding that the judge pauses for now, pass."""
        given = (act for act in self.acts if act.what == APPROVE and act.step == step)
        return next((act for act in given if step != FINDING or act.when >= self.found), None)

    @property
    def percent(self) -> int:
        """The share that the rollout is at, in percent; 0 before its first step."""
        return self.steps[-1].percent if self.steps else 0


def find(state: State) -> Record | None:
    """The rollout in a service's state; None where there never was one. Raises KanaryError where it is damaged."""
    text = state.other.get(KEY)
    if not text:
        return None
    try:
        document = json.loads(text)
        return _record(document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise KanaryError(
            f"What is remembered of the rollout is damaged: {error}",
            f"Take the key `{KEY}` out of the ConfigMap kanary-<service>, then start the rollout again.",
        ) from error


def put(state: State, record: Record | None) -> State:
    """`state` with this rollout in it, or with none."""
    other = {key: value for key, value in state.other.items() if key != KEY}
    return replace(state, other=other if record is None else other | {KEY: written(record)})


def written(record: Record) -> str:
    """The record as compact JSON."""
    return json.dumps(as_json(record), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def as_json(record: Record) -> dict[str, Any]:
    """The record as plain JSON types."""
    # By hand: dataclasses.asdict copies every counter of the evidence, several times as slow as all else of a look.
    steps = [
        {**vars(step), "canary": dict(vars(step.canary)), "stable": dict(vars(step.stable))} for step in record.steps
    ]
    lists = {name: [dict(vars(entry)) for entry in getattr(record, name)] for name in ("points", "acts", "log")}
    return {"format": FORMAT, **vars(record), **lists, "steps": steps}


def act(record: Record, entry: Act) -> Record:
    """`record` with what a person said. The oldest approvals stay, of everything else the newest."""
    acts = (*record.acts, entry)
    while len(acts) > ACTS:
        dropped = next((i for i, one in enumerate(acts) if one.what != APPROVE), 0)
        acts = (*acts[:dropped], *acts[dropped + 1 :])
    return replace(record, acts=acts)


def told(record: Record, when: str, text: str) -> Record:
    """`record` with one more event in its log."""
    return replace(record, log=(*record.log, Event(when, text[:SENTENCE]))[-LOG:])


def counted(record: Record, canary: Arm, stable: Arm, at: float) -> Record:
    """`record` with one window's counts added to its newest step and its chart."""
    if not record.steps:
        return record
    last = record.steps[-1]
    step = replace(last, canary=added(last.canary, canary), stable=added(last.stable, stable))
    point = Point(at, last.percent, canary.requests, canary.errors, stable.requests, stable.errors)
    return replace(record, steps=(*record.steps[:-1], step), points=_thinned((*record.points, point)))


def added(one: Arm, other: Arm) -> Arm:
    """Both windows of an arm together. Where they have other latency edges, the later's are kept."""
    same = len(one.slower) == len(other.slower)
    slower = tuple(a + b for a, b in zip(one.slower, other.slower, strict=True)) if same else other.slower
    names = one.classes.keys() | other.classes.keys()
    classes = {name: one.classes.get(name, 0) + other.classes.get(name, 0) for name in sorted(names)}
    measured = one.measured + other.measured if same else other.measured
    return Arm(one.requests + other.requests, one.errors + other.errors, slower, measured, classes)


def _thinned(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Neighbours of the same share merged in pairs, once there are too many."""
    if len(points) <= POINTS:
        return points
    kept: list[Point] = []
    merged = False
    for point in points:
        before = kept[-1] if kept else None
        if before is not None and not merged and before.percent == point.percent:
            sums = (getattr(before, name) + getattr(point, name) for name in _SUMS)
            kept[-1] = Point(point.at, point.percent, *sums)
            merged = True
        else:
            kept.append(point)
            merged = False
    return tuple(kept)


_SUMS = ("canary", "canary_errors", "stable", "stable_errors")


def _record(document: Mapping[str, Any]) -> Record:
    found = _made(Record, document)
    return replace(
        found,
        steps=tuple(
            replace(_made(Step, step), canary=_arm(step["canary"]), stable=_arm(step["stable"]))
            for step in document["steps"]
        ),
        points=tuple(_made(Point, point) for point in document["points"]),
        acts=tuple(_made(Act, entry) for entry in document["acts"]),
        log=tuple(_made(Event, entry) for entry in document["log"]),
    )


def _arm(document: Mapping[str, Any]) -> Arm:
    return replace(_made(Arm, document), slower=tuple(document["slower"]))


def _made(kind: type[T], values: Mapping[str, Any]) -> T:
    # A newer Kanary may have written more than this one knows.
    known = {entry.name for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in values.items() if key in known})
