"""Where the rollout meets the judge: readings become windows, windows evidence, evidence a verdict. Pure.

The only module here that loads kanary.judge's arithmetic (numpy).
"""

from __future__ import annotations

from dataclasses import replace

from kanary.judge import evidence as ledger
from kanary.judge import verdict as verdicts
from kanary.judge.counters import Counters, Counting, Counts, Scrape, observe
from kanary.judge.evidence import Evidence
from kanary.judge.verdict import NEED_DATA, PAUSE, PROMOTE, ROLLBACK, Verdict
from kanary.rollout import record as records
from kanary.rollout import tally as tallies
from kanary.rollout.observe import Reading
from kanary.rollout.policy import Policy
from kanary.rollout.record import Record
from kanary.rollout.tally import Tally

__all__ = ["NEED_DATA", "PAUSE", "PROMOTE", "ROLLBACK", "approved", "fold", "take"]

# Predictors are scraped on their own, and found later than the proxy: so long their classes are waited for.
CLASSES_GRACE = 15.0
# To say why, and how much is still needed, costs some tenths of a second: so often where the verdict is the same.
TOLD_EVERY = 30.0


def take(record: Record, reading: Reading) -> Record:
    """`record` with a reading's counters added to its tally. Nothing is judged yet."""
    tally = tallies.add(Tally.from_json(record.tally), reading.raw)
    return replace(record, tally=tally.to_json(), profile=record.profile or reading.profile)


def fold(record: Record, policy: Policy, reading: Reading, now: float) -> Record:
    """`record` after one more reading: the window it closes is counted and judged, if it closes one."""
    record = take(record, reading)
    share = _share(record, reading)
    if share is None:
        return record
    tally, counting = Tally.from_json(record.tally), _counting(record)
    edges = tallies.edges(tally)
    if record.evidence:
        edges = tuple(_text(edge) for edge in record.evidence["edges"])
    elif _wait_for_classes(record, policy, tally, counting, reading):
        return record
    scrape = Scrape(reading.oldest, *(tallies.counters(tally, arm, edges) for arm in (record.canary, record.stable)))
    scrape = replace(
        scrape, canary=_complete(scrape.canary, scrape.stable), stable=_complete(scrape.stable, scrape.canary)
    )
    counting, counts = observe(counting, scrape, share, record.canary, policy.warm_up)
    record = replace(record, counting=counting.to_json())
    silent = counts is None or not counts.canary.requests + counts.stable.requests
    return record if counts is None or silent else _judged(record, policy, edges, counts, share, reading.oldest, now)


def _judged(
    record: Record, policy: Policy, edges: tuple[str, ...], counts: Counts, share: float, at: float, now: float
) -> Record:
    if record.evidence:
        known = Evidence.from_json(record.evidence)
    else:
        classes = tuple(sorted(counts.canary.classes.keys() | counts.stable.classes.keys()))
        shares = [step / 100 for step in policy.steps]
        known = ledger.start(policy.margins, shares, tuple(map(float, edges)), classes, policy.sticky)
        record = _noted(record, known, now)
    known = ledger.update(known, counts, share)
    record = records.counted(record, counts.canary, counts.stable, at)
    record = replace(record, evidence=known.to_json())
    kind = verdicts.KINDS[int(verdicts.decide(known, share))]
    if kind == record.verdict and now < record.told + TOLD_EVERY:
        return record
    return _told(replace(record, told=now), verdicts.verdict(known, share, _rate(record, now)))


def _told(record: Record, told: Verdict) -> Record:
    step = replace(record.steps[-1], verdict=told.kind, sentence=told.sentence)
    findings = {name: value for name, value in told.to_json().items() if name not in ("kind", "sentence")}
    steps = (*record.steps[:-1], step)
    return replace(record, steps=steps, verdict=told.kind, sentence=told.sentence, findings=findings)


def approved(record: Record, share: float) -> Record:
    """`record` once a person has let the finding pass for which the judge paused: it is not judged any more."""
    if not record.evidence:
        return record
    known = verdicts.approved(Evidence.from_json(record.evidence))
    return _told(replace(record, evidence=known.to_json()), verdicts.verdict(known, share))


def _share(record: Record, reading: Reading) -> float | None:
    """The split (0..1) that was in force when the counters were read; None while it was on the move.

    A scrape tells of a moment before the look: what it tells of the time before the move is still the old split's.
    """
    if record.phase not in (records.BAKING, records.WATCHING):
        return None
    if reading.oldest >= record.in_force:
        return record.steps[-1].percent / 100
    if reading.oldest > record.since:
        return None
    return (record.steps[-2].percent if len(record.steps) > 1 else 0) / 100


def _wait_for_classes(record: Record, policy: Policy, tally: Tally, counting: Counting, reading: Reading) -> bool:
    """Whether the first window is left open a little longer, so that evidence of the classes begins with the rest."""
    if counting.last is None or policy.margins.classes is None or policy.margins.on_classes == "ignore":
        return False
    arms = (tallies.counters(tally, arm, ()) for arm in (record.canary, record.stable))
    known = all(arm.classes for arm in arms)
    return not known and reading.oldest < record.in_force + CLASSES_GRACE


def _complete(arm: Counters | None, other: Counters | None) -> Counters | None:
    """Every class that either arm has predicted: one that has not yet stands at 0."""
    if arm is None or other is None:
        return arm
    return replace(arm, classes=dict.fromkeys(other.classes, 0) | dict(arm.classes))


def _noted(record: Record, known: Evidence, now: float) -> Record:
    left = []
    if known.margins.latency is not None and not known.edges:
        left.append("latency (the proxy gives no histogram)")
    if known.margins.classes is not None and known.margins.on_classes != "ignore" and not known.classes:
        left.append("predictions by class (no predictor counts them)")
    if not left:
        return record
    from kanary.release import timestamp

    return records.told(record, timestamp(now), f"not judged, for want of numbers: {', '.join(left)}")


def _rate(record: Record, now: float) -> float | None:
    """Requests a second of both arms, over this step."""
    step = record.steps[-1]
    seconds = now - max(step.since, record.in_force)
    return (step.canary.requests + step.stable.requests) / seconds if seconds > 1 else None


def _counting(record: Record) -> Counting:
    return Counting.from_json(record.counting) if record.counting else Counting()


def _text(edge: float) -> str:
    return f"{edge:.6g}"
