"""What the detector tells Prometheus, made anew at each scrape: nothing of a forgotten stream stays."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from serving.drift import budget
from serving.drift.events import REASONS, Source
from serving.drift.findings import CAUSES, VERDICTS
from serving.drift.watch import Watch

STREAM = ("namespace", "service", "revision", "version")
REFUSALS = (*REASONS, "unknown_model", "too_many_streams", "busy", "disk", "feedback")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(watch: Watch, deaths: int) -> bytes:
    """The metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collector(watch, deaths))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, watch: Watch, deaths: int) -> None:
        self.watch, self.deaths = watch, deaths

    def collect(self) -> Iterator[Any]:
        """prometheus_client's."""
        yield from _findings(self.watch)
        yield from _shapes(self.watch)
        yield from _streams(self.watch)
        yield from _truth(self.watch)
        yield from _budget(self.watch)
        yield from _service(self.watch, self.deaths)


def _gauge(name: str, text: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"kanary_drift_{name}", text, labels=labels)


def _counter(name: str, text: str, labels: tuple[str, ...]) -> CounterMetricFamily:
    return CounterMetricFamily(f"kanary_drift_{name}", text, labels=labels)


def _named(source: Source) -> tuple[str, ...]:
    return (source.namespace, source.service, source.revision, source.version)


def _findings(watch: Watch) -> Iterator[Any]:
    labels = (*STREAM, "feature", "kind", "test")
    score = _gauge("score", "Distance of the newest checked window from the reference", labels)
    p_value = _gauge("p_value", "P-value of the newest checked window", labels)
    threshold = _gauge("threshold", "What the p-value must not exceed to be drift", labels)
    detected = _gauge("detected", "1 where the newest checked window drifts", labels)
    alarms = _counter("alarms", "Alarms: windows that drift after one that does not", (*STREAM, "feature"))
    for source, stream in watch.streams.items():
        for one in stream.result.findings if stream.result else ():
            named = [*_named(source), one.score.name, one.score.kind, one.score.test]
            score.add_metric(named, one.score.distance)
            threshold.add_metric(named, one.threshold)
            unknown = stream.result is not None and stream.result.verdict == "unknown"
            detected.add_metric(named, float(one.detected and not unknown))
            if one.score.p_value is not None:
                p_value.add_metric(named, one.score.p_value)
        for name, number in stream.alarms.items():
            alarms.add_metric([*_named(source), name], number)
    yield from (score, p_value, threshold, detected, alarms)


def _shapes(watch: Watch) -> Iterator[Any]:
    labels = (*STREAM, "feature", "kind", "side", "bin", "values")
    share = _gauge("distribution", "Share of the rows in a bin: of the reference, and of the newest window", labels)
    for source, stream in watch.streams.items():
        for shape in stream.shapes:
            for side, shares in (("reference", shape.reference), ("current", shape.current)):
                for at, (values, part) in enumerate(zip(shape.bins, shares, strict=True)):
                    share.add_metric([*_named(source), shape.name, shape.kind, side, f"{at:02d}", values], part)
    yield share


def _streams(watch: Watch) -> Iterator[Any]:
    verdict = _gauge("verdict", "1 for the verdict on the newest checked window", (*STREAM, "verdict"))
    rows = _gauge("window_rows", "Rows of the newest checked window", STREAM)
    waiting = _gauge("open_window_rows", "Rows that are not checked yet", STREAM)
    windows = _counter("windows", "Windows checked", STREAM)
    coverage = _gauge("coverage_ratio", "Events by requests that the proxy answered, in the newest window", STREAM)
    silence = _gauge("seconds_since_last_event", "Seconds since an event came", STREAM)
    outliers = _counter("outliers", "Rows that are outliers by themselves", STREAM)
    wild = _gauge("window_outliers", "Of the rows of the newest checked window, outliers by themselves", STREAM)
    repeated = _counter("events_repeated", "Events that had come before", STREAM)
    received = _counter("events", "Events received and kept", (*STREAM, "type"))
    cause = _gauge("canary", "1 for what tells the canary from stable", (*STREAM, "stable", "cause"))
    now = time.time()
    for source, stream in watch.streams.items():
        named = list(_named(source))
        result = stream.result
        # Nothing is known of what has not been checked.
        found = result.verdict if result else "unknown"
        for one in VERDICTS:
            verdict.add_metric([*named, one], float(one == found))
        if result:
            rows.add_metric(named, result.rows)
            wild.add_metric(named, result.outliers)
        if result and result.coverage is not None:
            coverage.add_metric(named, result.coverage)
        waiting.add_metric(named, stream.window.size + sum(window.size for window in stream.waiting))
        windows.add_metric(named, stream.checked)
        if stream.last_event:
            silence.add_metric(named, max(0.0, now - stream.last_event))
        outliers.add_metric(named, stream.outliers)
        repeated.add_metric(named, stream.repeated)
        for kind, number in stream.events.items():
            received.add_metric([*named, kind], number)
        if compared := watch.comparisons.get(source):
            for name in CAUSES:
                cause.add_metric([*named, compared.stable, name], float(name == compared.cause))
    yield from (verdict, rows, waiting, windows, coverage, silence, outliers, wild, repeated, received, cause)


def _truth(watch: Watch) -> Iterator[Any]:
    accuracy = _gauge(
        "accuracy", "Share of labelled rows that was right: value, low and high of 95 %", (*STREAM, "bound")
    )
    baseline = _gauge("accuracy_baseline", "The same of the first labelled rows", STREAM)
    rows = _counter("labelled_rows", "Rows whose ground truth has come", STREAM)
    windows = _gauge("accuracy_rows", "Labelled rows that the accuracy is of", STREAM)
    online = _gauge(
        "online_detections", "Detections of online tests, by their own expected run time", (*STREAM, "test")
    )
    for source, truth in watch.truths.items():
        named = list(_named(source))
        rows.add_metric(named, truth.rows)
        if truth.baseline and len(truth.baseline) == truth.size:
            baseline.add_metric(named, sum(one.right for one in truth.baseline) / truth.size)
        if found := truth.accuracy():
            for bound, value in (("value", found.value), ("low", found.low), ("high", found.high)):
                accuracy.add_metric([*named, bound], value)
            windows.add_metric(named, found.rows)
    for (source, test), number in watch.online.items():
        online.add_metric([*_named(source), test], number)
    yield from (accuracy, baseline, rows, windows, online)


def _budget(watch: Watch) -> Iterator[Any]:
    account = budget.current(watch.account, time.time())
    promised = _gauge("false_alarm_budget", "False alarms to be expected in a month without drift, at most", ())
    promised.add_metric([], account.budget)
    spent = _gauge("false_alarm_spent", "Of it, the levels of this month's tests together", ())
    spent.add_metric([], account.spent)
    month = _gauge("alarms_this_month", "Alarms of this month, true or false", ())
    month.add_metric([], len(account.alarms))
    yield from (promised, spent, month)


def _service(watch: Watch, worker_deaths: int) -> Iterator[Any]:
    refused = _counter("events_refused", "Events refused, by reason", ("reason",))
    for reason in REFUSALS:
        refused.add_metric([reason], watch.tally.refused[reason])
    labels = _counter("labels", "Ground truth that came, by what became of it", ("outcome",))
    for outcome in ("judged", "waiting", "refused"):
        labels.add_metric([outcome], watch.tally.labels[outcome])
    seconds = SummaryMetricFamily("kanary_drift_check_duration_seconds", "What a check took, waiting included")
    seconds.add_metric([], watch.tally.checks, watch.tally.check_seconds)
    failed = _counter("checks_failed", "Checks that failed", ())
    failed.add_metric([], watch.tally.failed_checks)
    deaths = _counter("worker_deaths", "Times that the detectors' process had to be replaced", ())
    deaths.add_metric([], worker_deaths)
    held = _gauge("held_rows", "Rows in memory", ())
    held.add_metric([], watch.held)
    least = _gauge("coverage_least", "Coverage below which the verdict is unknown, 0 where none is asked for", ())
    least.add_metric([], watch.settings.coverage)
    yield from (refused, labels, seconds, failed, deaths, held, least)
