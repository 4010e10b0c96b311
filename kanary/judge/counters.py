"""From a proxy's raw counters to counts of both arms in one window: resets, missed scrapes, gaps and warm-up.

Counters of both arms come from one scrape of one proxy, and a window counts for both arms or for none: the split is
random only within the same stretch of time. Never `rate` or `increase`, which guess across resets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kanary.errors import InputError

# The gateway tries a request that never reached its server again up to so often, and counts each attempt.
MOST_RETRIES = 32


@dataclass(frozen=True)
class Counters:
    """What the proxy has counted for one arm since it started. A series that a proxy does not know is 0, not None.

    requests  answered or given up (`upstream_rq_completed`)
    errors    of these, what the policy calls failures, usually 5xx (`upstream_rq_xx`)
    retried   requests that succeeded only at a later attempt (`upstream_rq_retry_success`): once per request
    retries   attempts beyond the first (`upstream_rq_retry`): up to MOST_RETRIES per request
    buckets   of the latency histogram, cumulative: one per edge, then all (`le="+Inf"`); empty without a histogram
    classes   predictions by class, where the service counts them
    start     what changes when the proxy starts anew (its start time); "" where nobody knows
    """

    requests: int = 0
    errors: int = 0
    retried: int = 0
    retries: int = 0
    buckets: tuple[int, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    start: str = ""


@dataclass(frozen=True)
class Scrape:
    """Both arms' counters, read at once from one proxy, `at` seconds. None: this arm could not be read."""

    at: float
    canary: Counters | None
    stable: Counters | None


@dataclass(frozen=True)
class Arm:
    """What one arm did in a window. `slower`: requests above each edge, of `measured`; `errors` <= `requests`."""

    requests: int = 0
    errors: int = 0
    slower: tuple[int, ...] = ()
    measured: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Counts:
    """What both arms did in the same `seconds`."""

    canary: Arm
    stable: Arm
    seconds: float = 0.0


@dataclass(frozen=True)
class Warmup:
    """What of a new revision is not judged: until it has had so many seconds *and* so many requests."""

    seconds: float = 30.0
    requests: int = 0


@dataclass(frozen=True)
class Counting:
    """Where counting stands between two scrapes: small, and made to be written down. Start with `Counting()`.

    last      the last scrape in which both arms could be read, the beginning of the next window
    share     the canary's share of the traffic in force since then
    revision  the canary that is counted; `since`, `seen`: when it was first counted, and its requests since
    lost      windows given up so far: a reset that hit one arm, or a change of the split in their middle
    """

    last: Scrape | None = None
    share: float = 0.0
    revision: str = ""
    since: float = 0.0
    seen: int = 0
    lost: int = 0

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Counting:
        """From what `to_json` gave. Raises InputError where it is something else."""
        try:
            last = document["last"]
            scrape = None if last is None else Scrape(last["at"], _counters(last["canary"]), _counters(last["stable"]))
            return Counting(**{**document, "last": scrape})
        except (KeyError, TypeError) as error:
            raise InputError(f"the stored counting of a rollout is incomplete or of another format: {error}") from error


def observe(
    counting: Counting, scrape: Scrape, share: float, revision: str, warmup: Warmup | None = None
) -> tuple[Counting, Counts | None]:
    """One more scrape: where counting stands now, and what to give to the judge, None where that is nothing.

    `share` (0..1) is the effective split that has been in force since the last scrape or longer; at the scrape that
    first tells another one the window is given up, as nobody knows when in it the split changed. A scrape that misses
    an arm is passed over: the next complete one closes the window for both arms.
    """
    if scrape.canary is None or scrape.stable is None:
        return counting, None
    fresh = replace(counting, last=scrape, share=share)
    if counting.last is None or counting.revision != revision:
        return replace(fresh, revision=revision, since=scrape.at, seen=0), None
    if scrape.at <= counting.last.at:
        return counting, None
    counts = difference(counting.last, scrape)
    if counts is None or share != counting.share:
        return replace(fresh, lost=counting.lost + 1), None
    after = replace(fresh, seen=counting.seen + counts.canary.requests)
    warm = warmup or Warmup()
    cold = counting.last.at < counting.since + warm.seconds or counting.seen < warm.requests
    return after, None if cold else counts


def difference(before: Scrape, after: Scrape) -> Counts | None:
    """What happened between two scrapes; None where it cannot be told for both arms alike.

    Where the proxy says that it started anew, for both arms, all that it now shows happened since: that window is
    shorter and counts. A counter that went down with no such word, or a new start told for one arm only, leaves the
    arms with windows of different length: nothing is counted.
    """
    if before.canary is None or before.stable is None or after.canary is None or after.stable is None:
        return None
    old, new = (before.canary, before.stable), (after.canary, after.stable)
    anew = [a.start != b.start for b, a in zip(old, new, strict=True)]
    if any(anew) and not all(anew):
        return None
    if all(anew):
        old = (Counters(), Counters())
    arms = [_arm(b, a) for b, a in zip(old, new, strict=True)]
    if arms[0] is None or arms[1] is None:
        return None
    return Counts(arms[0], arms[1], max(0.0, after.at - before.at))


def _arm(before: Counters, after: Counters) -> Arm | None:
    """What one arm did in between; None where a counter went down or the histogram has other edges."""
    if before.buckets and len(before.buckets) != len(after.buckets):
        return None
    buckets = [a - b for b, a in zip(before.buckets or (0,) * len(after.buckets), after.buckets, strict=True)]
    classes = {name: count - before.classes.get(name, 0) for name, count in after.classes.items()}
    requests, errors = after.requests - before.requests, after.errors - before.errors
    retried, retries = after.retried - before.retried, after.retries - before.retries
    lowest = min(requests, errors, retried, retries, *buckets, *classes.values())
    if lowest < 0 or set(before.classes) - set(after.classes):
        return None
    measured = buckets[-1] if buckets else 0
    # A scrape is not one instant: a bucket may be read before the total that it belongs to.
    slower = tuple(max(0, measured - bucket) for bucket in buckets[:-1])
    return Arm(requests, failures(requests, errors, retried, retries), slower, measured, classes)


def failures(requests: int, errors: int, retried: int, retries: int) -> int:
    """Requests that failed, each counted once, those that a retry saved included.

    A request to a dead revision is tried up to 33 times and ends as one error: its retries say nothing more. What was
    retried and then succeeded is counted by the proxy once per request; where it does not count that, so many retries
    need at least retries / 32 requests. The bound errs towards fewer: a burst of 32 attempts is no 32 failures.
    """
    return min(requests, max(errors + retried, -(-retries // MOST_RETRIES)))


def _counters(document: Mapping[str, Any] | None) -> Counters | None:
    if document is None:
        return None
    return Counters(**{**document, "buckets": tuple(document["buckets"]), "classes": dict(document["classes"])})
