"""When a model is trained again: from what is known of a service to nothing, an alert or a retraining. Pure.

Whatever is decided is decided with its reasons. What has been done about a model before is told by the runs themselves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from kanary.errors import InputError

Action = Literal["nothing", "alert", "retrain"]
Trigger = Literal["drift", "accuracy", "time", "data"]
Outcome = Literal["running", "succeeded", "failed"]

DAY_S = 24 * 3600.0


@dataclass(frozen=True)
class Policy:
    """What asks for a retraining, and what holds it back. None: not asked for.

    `drift_features`: so many features must drift. `accuracy_drop`: the accuracy's upper bound lies so far below that
    of the first labelled rows; `accuracy_below`: below this; both with `labelled_rows` at least. `every_days`: the
    model is so old. `new_rows`: so many came since it was trained. `minimum_rows`: with fewer than these there is
    nothing to train on. `cooldown_hours`: between two retrainings. `per_month`: retrainings in 30 days. After so many
    `failures` in a row the breaker is open for `breaker_hours`, then one more is tried. `alert_only`: a person decides.
    """

    drift_features: int | None = 1
    accuracy_drop: float | None = 0.05
    accuracy_below: float | None = None
    labelled_rows: int = 200
    every_days: float | None = None
    new_rows: int | None = None
    minimum_rows: int = 0
    cooldown_hours: float = 24.0
    per_month: int = 4
    failures: int = 2
    breaker_hours: float = 72.0
    alert_only: bool = False


@dataclass(frozen=True)
class Evidence:
    """What is known of a service. None: not known, which is no reason to retrain, and none to be at ease.

    `verdict` is the drift detector's (drift, no drift, unknown), `drifting` the features it names. `new_rows` came
    since the model was trained, at `trained_at`. `canary` is the revision that is being tried, if any. Times are
    seconds since the epoch.
    """

    namespace: str
    service: str
    version: str
    verdict: str = "unknown"
    drifting: tuple[str, ...] = ()
    accuracy: float | None = None
    accuracy_high: float | None = None
    accuracy_rows: int = 0
    baseline: float | None = None
    trained_at: float | None = None
    new_rows: int | None = None
    canary: str = ""


@dataclass(frozen=True)
class Attempt:
    """A retraining of the past: when it began, for what key, how it went."""

    at: float
    key: str
    outcome: Outcome


@dataclass(frozen=True)
class Decision:
    """What to do and why. `key` is the same for the same model: one retraining answers whatever is wrong with it."""

    action: Action
    key: str
    triggers: tuple[Trigger, ...]
    reasons: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """As it is recorded."""
        return {
            "action": self.action,
            "key": self.key,
            "triggers": list(self.triggers),
            "reasons": list(self.reasons),
        }


def policy(given: Mapping[str, Any]) -> Policy:
    """The policy that these words and values say. InputError for an unknown word or a value that makes no sense."""
    known = {field.name: field for field in fields(Policy)}
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise InputError(f"the retraining policy has no {unknown[0]!r}", f"it has {', '.join(known)}")
    exact = {name: _value(name, str(known[name].type), value) for name, value in given.items()}
    made = replace(Policy(), **exact)
    if made.failures < 1:
        raise InputError("the retraining policy's failures is 0", "the breaker opens after 1 at least")
    return made


def _value(name: str, kind: str, value: Any) -> Any:
    """A value of the policy, as its field's type wants it: KFP hands whole numbers on as floats."""
    if kind == "bool" or isinstance(value, bool):
        sound = kind == "bool" and isinstance(value, bool)
    elif value is None:
        sound = "None" in kind
    else:
        sound = isinstance(value, int | float) and 0 <= value < float("inf")
        sound = sound and ("int" not in kind or float(value).is_integer())
    if not sound:
        raise InputError(f"the retraining policy's {name} is {value!r}", f"it takes {kind}, from 0 on")
    return int(value) if "int" in kind and isinstance(value, float) else value


def key_of(evidence: Evidence) -> str:
    """The deduplication key of a service's model."""
    text = "\n".join((evidence.namespace, evidence.service, evidence.version))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def decide(rules: Policy, evidence: Evidence, history: Sequence[Attempt], now: float) -> Decision:
    """What to do about a service, `history` being its retrainings in any order."""
    key = key_of(evidence)
    triggers, reasons = _triggers(rules, evidence, now)
    doubts = _doubts(rules, evidence)
    if not triggers:
        # What is unknown for long must not look like peace.
        return Decision("alert" if doubts else "nothing", key, (), (*doubts, *(reasons or ("nothing asks for it",))))
    held = _held(rules, evidence, key, history, now)
    if held:
        return Decision("alert", key, triggers, (*reasons, *held, *doubts))
    return Decision("retrain", key, triggers, (*reasons, *doubts))


def _triggers(rules: Policy, evidence: Evidence, now: float) -> tuple[tuple[Trigger, ...], tuple[str, ...]]:
    found: list[tuple[Trigger, str]] = []
    drifting = len(evidence.drifting)
    if rules.drift_features is not None and evidence.verdict == "drift" and drifting >= rules.drift_features:
        found.append(("drift", f"{drifting} drift: {', '.join(evidence.drifting[:10])}"))
    if evidence.accuracy_high is not None and evidence.accuracy_rows >= rules.labelled_rows:
        high, rows = evidence.accuracy_high, evidence.accuracy_rows
        if rules.accuracy_below is not None and high < rules.accuracy_below:
            found.append(("accuracy", f"accuracy at most {high:.3f} on {rows} rows, below {rules.accuracy_below:.3f}"))
        elif rules.accuracy_drop is not None and evidence.baseline is not None:
            least = evidence.baseline - rules.accuracy_drop
            if high < least:
                found.append(("accuracy", f"accuracy at most {high:.3f} on {rows} rows, was {evidence.baseline:.3f}"))
    if rules.every_days is not None and evidence.trained_at is not None:
        days = (now - evidence.trained_at) / DAY_S
        if days >= rules.every_days:
            found.append(("time", f"trained {days:.1f} days ago, every {rules.every_days:g} wanted"))
    if rules.new_rows is not None and evidence.new_rows is not None and evidence.new_rows >= rules.new_rows:
        found.append(("data", f"{evidence.new_rows} new rows, {rules.new_rows} wanted"))
    return tuple(trigger for trigger, _ in found), tuple(reason for _, reason in found)


def _doubts(rules: Policy, evidence: Evidence) -> tuple[str, ...]:
    if rules.drift_features is not None and evidence.verdict == "unknown":
        return ("whether it drifts is unknown",)
    return ()


def _held(rules: Policy, evidence: Evidence, key: str, history: Sequence[Attempt], now: float) -> tuple[str, ...]:
    """All that holds a retraining back."""
    found = []
    newest_first = sorted(history, key=lambda attempt: -attempt.at)
    if rules.alert_only:
        found.append("the policy leaves it to a person")
    if evidence.canary:
        found.append(f"the canary {evidence.canary} is not judged yet")
    if any(attempt.outcome == "running" for attempt in history):
        found.append("a retraining is running")
    if any(attempt.key == key and attempt.outcome == "succeeded" for attempt in history):
        found.append("this model has been retrained already, and still serves: look at its canary")
    if evidence.new_rows is not None and evidence.new_rows < rules.minimum_rows:
        found.append(f"{evidence.new_rows} new rows, {rules.minimum_rows} needed to train on")
    month = [attempt for attempt in history if now - attempt.at < 30 * DAY_S]
    if len(month) >= rules.per_month:
        found.append(f"{len(month)} retrainings in 30 days, {rules.per_month} allowed")
    if newest_first and (ago := (now - newest_first[0].at) / 3600) < rules.cooldown_hours:
        found.append(f"the last one began {ago:.1f} h ago, {rules.cooldown_hours:g} h must pass")
    failed = 0
    for attempt in newest_first:
        if attempt.outcome == "succeeded":
            break
        failed += attempt.outcome == "failed"
    if failed >= rules.failures and (now - newest_first[0].at) / 3600 < rules.breaker_hours:
        found.append(f"{failed} failed in a row: no more for {rules.breaker_hours:g} h after the last")
    return tuple(found)


_RUN = re.compile(r"retrain (?P<service>\S+) (?P<key>[0-9a-f]{12})")


def run_name(service: str, key: str) -> str:
    """What a retraining's run is called: how its past is found again."""
    return f"retrain {service} {key}"


def key_in(name: str, service: str) -> str:
    """The key in a run's name; empty where it is no retraining of this service."""
    found = _RUN.fullmatch(name)
    return found["key"] if found and found["service"] == service else ""
