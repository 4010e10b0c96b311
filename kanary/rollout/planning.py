"""What a rollout could find on this service: its traffic of the last minutes, and the judge's forecast from it."""

from __future__ import annotations

from dataclasses import dataclass

from kanary.errors import InputError
from kanary.judge.planning import Baseline, StepPlan
from kanary.judge.planning import plan as judged
from kanary.rollout import observe, tally
from kanary.rollout.observe import Arms, Reading, Source, Unobservable
from kanary.rollout.policy import PROMOTION, Policy
from kanary.rollout.profiles import Where
from kanary.rollout.tally import Tally


@dataclass(frozen=True)
class Traffic:
    """What stable, or all that serves, has answered in `seconds`; `rate` is in requests a second of all arms."""

    profile: str
    seconds: float
    requests: int
    rate: float
    baseline: Baseline


def traffic(source: Source, where: Where, arms: Arms, policy: Policy, now: float, window: float) -> Traffic:
    """The traffic of the last `window` seconds.

    Raises InputError where there was none, or it was counted only once yet; Unobservable besides.
    """
    settings = policy.prometheus
    after = observe.read(source, where, arms, settings, "", now)
    before = _earlier(source, where, arms, policy, after, window)
    seconds = after.newest - before.newest
    counted = tally.add(tally.add(Tally(), before.raw), after.raw)
    edges = tally.edges(counted)
    names = dict.fromkeys(arm for arm in (arms.stable, arms.canary) if arm)
    stable, *others = (tally.counters(counted, arm, edges) for arm in names)
    requests = stable.requests + sum(other.requests for other in others)
    if not stable.requests or seconds <= 0:
        raise InputError(
            f"{where.namespace}/{where.service} has had no request for {window:g} s: there is nothing to plan from.",
            "Say what traffic it will have with --rate.",
        )
    measured = stable.buckets[-1] if stable.buckets else 0
    slower = tuple((measured - bucket) / measured for bucket in stable.buckets[:-1]) if measured else ()
    predicted = sum(stable.classes.values())
    baseline = Baseline(
        stable.errors / stable.requests,
        tuple(map(float, edges)) if slower else (),
        slower,
        tuple((name, count / predicted) for name, count in sorted(stable.classes.items())) if predicted else (),
    )
    return Traffic(after.profile, seconds, requests, requests / seconds, baseline)


def _earlier(source: Source, where: Where, arms: Arms, policy: Policy, after: Reading, window: float) -> Reading:
    """The reading before `after`: so long before it, or, where the service is younger, half as long, and so on."""
    while True:
        try:
            return observe.read(source, where, arms, policy.prometheus, after.profile, after.newest - window)
        except Unobservable as error:
            if window < 2:
                raise InputError(
                    f"Prometheus has counted the requests to {where.namespace}/{where.service} only once yet: "
                    "there is nothing to plan from.",
                    "Ask again when it has scraped the proxy once more, or say what traffic there will be with --rate.",
                ) from error
            window /= 2


def plan(policy: Policy, rate: float, baseline: Baseline, size: float) -> tuple[StepPlan, ...]:
    """One plan for each step below the promotion: what it finds, and in how many requests of both arms."""
    steps = [step / 100 for step in policy.steps if step != PROMOTION]
    bakes = [max(policy.bake.seconds, policy.bake.requests / (rate * share)) for share in steps]
    return judged(rate, steps, bakes, policy.margins, baseline, size, policy.interval, policy.warm_up)
