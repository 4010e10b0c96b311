"""A verdict in words: one sentence for a person, and notes on what is not judged. Decides nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kanary.judge.bets import Array
from kanary.judge.decide import PAUSE, PROMOTE, ROLLBACK, acting
from kanary.judge.evidence import CLASSES, ERRORS, LATENCY, LIMITS, SILENT, SPLIT, Evidence, stream_of
from kanary.judge.forecast import MOST, Needs
from kanary.judge.reasons import Test, Worst, unresolved, worst
from kanary.text import duration

_WORDS = {ERRORS: "failures", LATENCY: "latency", CLASSES: "predicted classes"}


def sentence(evidence: Evidence, kind: str, share: float, tests: Sequence[Test], needs: Needs | None) -> str:
    """Why the verdict is `kind`, at this `share` (0..1) of the traffic."""
    if kind in (ROLLBACK, PAUSE):
        acts = acting(evidence)[kind]
        stopping = [test for test, act in zip(tests, acts, strict=True) if act]
        # Silence says it all; of the others the one that is surest.
        test = min(stopping, key=lambda test: (test.family != SILENT, test.p_value))
        start = "Roll back" if kind == ROLLBACK else "Pause for a person"
        return f"{start}: {_against(evidence, test.family)}; {_seldom(test)}."
    if kind == PROMOTE:
        return f"Promote: {_within(evidence)}."
    return f"Need data: {_lacking(evidence, share, needs)}."


def notes(evidence: Evidence, share: float) -> tuple[str, ...]:
    """What the verdict does not cover, a sentence each."""
    found, margins = [], evidence.margins
    if evidence.sticky:
        found.append(
            "Requests of one user stay with one arm: the split is not random per request, failures come in clumps, "
            "and the promised error rates do not hold."
        )
    if margins.latency is not None and not evidence.edges:
        found.append("Latency is not judged: there is no histogram of it.")
    bucket = unresolved(evidence)
    if bucket is not None:
        low, high, part = bucket
        found.append(
            f"Latency is not resolvable with these buckets: {_percent(part)} of stable's requests lie between "
            f"{low:g} and {high:g} ms, and a canary that is slower within them looks the same."
        )
    if margins.classes is not None and not evidence.classes:
        found.append("Predictions are not judged: they are not counted by class.")
    if share >= 1:
        limits = margins.limits
        given = (
            "no absolute limit is set" if limits.errors is None and not limits.slower else "only absolute limits act"
        )
        found.append(f"The canary has all of the traffic: there is nothing to compare it with, and {given}.")
    return tuple(found)


def _against(evidence: Evidence, family: str) -> str:
    if family == SPLIT:
        return _split(evidence)
    if family == LIMITS:
        return _limits(evidence)
    if family == SILENT:
        return _silent(evidence)
    found = worst(evidence, family)
    where = "" if found.share is None else f" at {_percent(found.share)} of the traffic"
    (x_c, n_c), (x_s, n_s) = found.canary, found.stable
    counts = f"{x_c:,} of {n_c:,} and {x_s:,} of {n_s:,} requests{where}"
    margin = f"{100 * found.stream.margin:g} points"
    late = "lately, " if found.excess <= 0 else ""
    canary, stable = _rate(x_c, n_c), _rate(x_s, n_s)
    if family == ERRORS:
        return (
            f"{late}the canary fails {canary} of its requests, stable {stable} ({counts}); {margin} more are tolerated"
        )
    if family == LATENCY:
        edge = f"slower than {found.stream.what} ms"
        slow = f"{late}{canary} of the canary's requests are {edge}, {stable} of stable's"
        return f"{slow} ({counts}); {margin} more are tolerated"
    return late + _class(found, margin)


def _silent(evidence: Evidence) -> str:
    """At the share at which the canary's part of the successes is furthest below its share."""
    rows = [
        (share, row)
        for share, row in zip(evidence.shares, evidence.tallies[:, 0], strict=True)
        if 0 < share < 1 and row[0] + row[2]
    ]
    share, (n_c, x_c, n_s, x_s) = min(rows, key=lambda r: _owed(*r))
    where = f"at {_percent(share)} of the traffic"
    if n_c > x_c:
        return f"{where} the canary has answered {int(n_c - x_c):,} requests, stable {int(n_s - x_s):,}: most are lost"
    had = f"has failed all of its {int(n_c):,} requests" if n_c else "has answered no request"
    return f"{where} the canary {had}, while stable has answered {int(n_s - x_s):,}"


def _owed(share: float, row: Array) -> float:
    """Standard errors between the canary's successes and its share of all."""
    canary, both = row[0] - row[1], row[0] - row[1] + row[2] - row[3]
    return float((canary - share * both) / math.sqrt(max(both, 1) * share * (1 - share)))


def _class(found: Worst, margin: str) -> str:
    (x_c, n_c), (x_s, n_s) = found.canary, found.stable
    if found.stream.fewer:
        x_c, x_s = n_c - x_c, n_s - x_s
    return (
        f"the canary predicts {found.stream.what!r} for {_rate(x_c, n_c)} of {n_c:,} requests, stable for "
        f"{_rate(x_s, n_s)} of {n_s:,}; a difference of {margin} is tolerated"
    )


def _split(evidence: Evidence) -> str:
    """The share at which the parts of the two arms are furthest from what they should be."""
    rows = [
        (share, row[0], row[0] + row[2])
        for share, row in zip(evidence.shares, evidence.tallies[:, 0], strict=True)
        if 0 < share < 1 and row[0] + row[2]
    ]
    share, canary, both = max(rows, key=lambda r: abs(r[1] - r[0] * r[2]) / math.sqrt(r[0] * (1 - r[0]) * r[2]))
    return (
        f"the canary had {int(canary):,} of {int(both):,} requests ({_rate(canary, both)}) where {_percent(share)} of "
        "the traffic is said to be its: what is compared is not split as it should be"
    )


def _limits(evidence: Evidence) -> str:
    limits = evidence.margins.limits
    row = [i for i, share in enumerate(evidence.shares) if share >= 1]
    bounds = [] if limits.errors is None else [("fails {} of its requests", 0, limits.errors)]
    bounds += [
        ("answers {} of them slower than " + f"{e:g} ms", stream_of(evidence, e), v) for e, v in limits.slower.items()
    ]
    found = []
    for words, stream, limit in bounds:
        n, x = (evidence.tallies[row, stream, i].sum() for i in (0, 1))
        error = math.sqrt(limit * (1 - limit) / max(n, 1))
        found.append(((x / max(n, 1) - limit) / error, words.format(_rate(x, n)), limit, n))
    _, words, limit, n = max(found)
    return f"with all of the traffic ({int(n):,} requests) the canary {words}; the limit is {_percent(limit)}"


def _within(evidence: Evidence) -> str:
    row = evidence.tallies[:, 0].sum(axis=0)
    parts = [_margin(evidence, family) for family in _families(evidence)]
    return (
        f"{int(row[0]):,} requests of the canary against {int(row[2]):,} of stable show {_joined(parts)}, "
        f"each at {_percent(1 - evidence.margins.beta)}"
    )


def _margin(evidence: Evidence, family: str) -> str:
    stream = next(stream for stream in evidence.streams if stream.family == family)
    points = f"{100 * stream.margin:g} points"
    if family == ERRORS:
        x_c, n_c, x_s, n_s = (int(evidence.tallies[:, 0, i].sum()) for i in (1, 0, 3, 2))
        return f"failures ({_rate(x_c, n_c)}, stable {_rate(x_s, n_s)}) within {points}"
    return f"{'latency' if family == LATENCY else 'predicted classes'} within {points}"


def _lacking(evidence: Evidence, share: float, needs: Needs | None) -> str:
    n_c, n_s = (int(evidence.tallies[:, 0, i].sum()) for i in (0, 2))
    if share >= 1:
        return "the canary has all of the traffic, and nothing has gone beyond an absolute limit"
    if share <= 0:
        return "the canary has no traffic, so there is nothing to judge"
    if not n_c + n_s:
        return "no request has been counted yet" + _needed(needs)
    limit = math.log(1 / evidence.margins.beta)
    open_ = [
        family
        for family in _families(evidence)
        if any(s.family == family and log < limit for s, log in zip(evidence.streams, evidence.within.log, strict=True))
    ]
    if open_:
        what = f"not yet shown: {_joined([_margin(evidence, family) for family in open_])}"
        silent = [_WORDS[family] for family in open_ if not _counted(evidence, family)]
        what += f" (no {_joined(silent)} counted in both arms)" if silent else ""
        return what + _needed(needs)
    rows = [i for i, known in enumerate(evidence.shares) if abs(known - share) < 1e-9]
    here = int(evidence.tallies[rows, 0, 0].sum())
    return f"the canary has answered {here:,} requests at {_percent(share)}, {evidence.margins.least:,} are asked for"


def _needed(needs: Needs | None) -> str:
    if needs is None:
        return ""
    if math.isinf(needs.requests):
        return f"; with this traffic {MOST:,.0f} more requests would not do"
    times = ["" if s is None or math.isinf(s) else f" ({duration(s)})" for s in (needs.seconds, needs.seconds_90)]
    most = (
        f"with no verdict in sight in {_percent(needs.open)} of the cases"
        if math.isinf(needs.requests_90)
        else f"{_about(needs.requests_90)}{times[1]} in 9 of 10 cases"
    )
    return f"; about {_about(needs.requests)} more requests{times[0]}, {most}"


def _counted(evidence: Evidence, family: str) -> bool:
    index = [stream.family for stream in evidence.streams].index(family)
    return bool(evidence.tallies[:, index, 0].sum() and evidence.tallies[:, index, 2].sum())


def _families(evidence: Evidence) -> list[str]:
    return list(dict.fromkeys(stream.family for stream in evidence.streams))


def _seldom(test: Test) -> str:
    times = 1 / max(test.p_value, 1e-9)
    return f"by chance less than one rollout in {times:,.0f} shows this"


def _about(number: float) -> str:
    """Two digits: more would pretend to know."""
    digits = max(0, len(str(int(number))) - 2)
    return f"{int(round(number, -digits)):,}"


def _rate(x: float, n: float) -> str:
    return _percent(x / n) if n else "none"


def _percent(part: float) -> str:
    value = 100 * part
    return f"{value:.3g} %" if value < 99.95 or value >= 100 else f"{value:.4g} %"


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
