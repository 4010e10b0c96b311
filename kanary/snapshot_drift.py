"""What the drift detector has told Prometheus: models, their columns the worst first, and how those came there.

Asks for nothing but queries. Of thousands of columns the worst are read; the past of them only once it is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from kanary import policy
from kanary.kfp_types import Run
from kanary.operations import Operation
from kanary.promql import Labels, instant, matchers, number, ranged
from kanary.snapshot_course import DRIFT, POINTS, Course, Grid, Past, grid, quarter, severity
from kanary.snapshot_course import UNKNOWN as DOUBT
from kanary.snapshot_services import Service

LIMIT = 500  # columns that are read, the worst
SPANS = (900.0, 3600.0, 6 * 3600.0, 24 * 3600.0, 7 * 24 * 3600.0)  # seconds that can be looked at
AUTOMATIC = 0.0  # a span: the shortest that holds all there is
_PART = 20  # moments of one answer
CALM, DRIFTS, UNKNOWN = "no drift", "drift", "unknown"
_MODEL = ("namespace", "service", "revision", "version")
_BY = ", ".join(_MODEL)
_OF_MODELS = (
    "verdict", "coverage_ratio", "window_rows", "open_window_rows", "windows_total", "seconds_since_last_event",
    "window_outliers", "outliers_total", "canary", "accuracy", "accuracy_rows", "accuracy_baseline",
    "labelled_rows_total", "online_detections",
)  # fmt: skip
_OF_DETECTORS = ("coverage_least", "false_alarm_budget", "false_alarm_spent")


@dataclass(frozen=True)
class Accuracy:
    """The share of `rows` labelled rows that was right, Wilson's 95 % interval, and that of the first such rows."""

    value: float
    low: float
    high: float
    rows: int
    baseline: float | None = None


@dataclass(frozen=True)
class Model:
    """One model in one revision of one service. Numbers are of its newest checked window; None: not told.

    `doubt` says why the verdict is unknown; empty where it is not. `silence`: seconds since its last event.
    """

    namespace: str
    service: str
    revision: str
    version: str
    verdict: str = UNKNOWN
    doubt: str = ""
    threshold: float | None = None
    coverage: float | None = None
    rows: int | None = None
    waiting: int = 0
    windows: int = 0
    silence: float | None = None
    outliers: int | None = None
    accuracy: Accuracy | None = None
    labelled: int = 0
    stable: str = ""  # the revision that a canary was compared with
    cause: str = ""  # none, model, world, split
    online: Mapping[str, int] = field(default_factory=dict)  # detections by online test

    @property
    def key(self) -> str:
        return "/".join((self.namespace, self.service, self.revision, self.version))

    @property
    def service_key(self) -> str:
        return f"{self.namespace}/{self.service}"


@dataclass(frozen=True)
class Finding:
    """One column (or all together) of a model in its newest checked window. Without a name: nothing was checked yet."""

    model: Model
    name: str = ""
    kind: str = ""  # feature, prediction, multivariate
    test: str = ""
    p_value: float | None = None
    score: float | None = None
    detected: bool = False
    course: Course | None = None  # where the past was asked for

    @property
    def key(self) -> str:
        return f"{self.model.key}/{self.kind}/{self.name}"

    @property
    def state(self) -> str:
        """drift, no drift, unknown: calm only where the model's verdict is more than a guess."""
        if self.detected:
            return DRIFTS
        return CALM if self.name and self.model.verdict != UNKNOWN else UNKNOWN

    @property
    def severity(self) -> float | None:
        """How far its p-value is on the way to the threshold; 1 and more is drift."""
        return severity(self.p_value, self.model.threshold)


@dataclass(frozen=True)
class Drift:
    """Models and findings by key; `total` findings there are. `detectors`: whether one is there at all."""

    models: Mapping[str, Model] = field(default_factory=dict)
    findings: Mapping[str, Finding] = field(default_factory=dict)
    total: int = 0
    detectors: bool = False
    budget: float | None = None  # false alarms a month
    spent: float | None = None
    past: Past | None = None


def refresh(
    known: Drift, namespace: str = "", span: float | None = None, selectors: Labels = MappingProxyType({})
) -> Operation[Drift]:
    """What is there now, and, with a `span` of seconds, how it came there: read anew once a step of it has passed.

    `namespace`: "" for all. Raises ApiError where Prometheus does not answer as it should.
    """
    where = dict(selectors) | ({"namespace": namespace} if namespace else {})
    told = yield from instant(_named(_OF_DETECTORS, selectors))
    samples = yield from instant(_named(_OF_MODELS, where))
    own = {_name(labels): value for labels, value in told}
    models: dict[str, Model] = {}
    findings: dict[str, Finding] = {}
    total, past = 0, known.past
    if samples:
        found, total = yield from _findings(where)
        models = _models(samples, found.thresholds, own.get("coverage_least", 0.0))
        if span is not None:
            past = yield from _past(past, where, span, total)
        findings = _joined(found, models, past)
    return Drift(
        MappingProxyType(models),
        MappingProxyType(findings),
        total,
        bool(told or samples),
        own.get("false_alarm_budget"),
        own.get("false_alarm_spent"),
        past,
    )


@dataclass(frozen=True)
class _Now:
    """The newest numbers: by finding's key, and thresholds by model's."""

    p_values: Sequence[tuple[Labels, float]]
    scores: Mapping[str, float]
    detected: frozenset[str]
    thresholds: Mapping[str, float]


def _findings(where: Labels) -> Operation[tuple[_Now, int]]:
    everything = _p_values(where)
    worst = f"bottomk({LIMIT}, {everything})"
    p_values = yield from instant(worst)
    total = len(p_values)
    if total >= LIMIT:
        counted = yield from instant(f"count({everything})")
        total = int(counted[0][1]) if counted else total
    scores = yield from instant(f"kanary_drift_score{matchers(where)} and {worst}")
    detected = yield from instant(f"kanary_drift_detected{matchers(where)} == 1")
    thresholds = yield from instant(_thresholds(where))
    return _Now(
        p_values,
        {_finding_key(labels): value for labels, value in scores},
        frozenset(_finding_key(labels) for labels, _ in detected),
        {_model_key(labels): value for labels, value in thresholds},
    ), total


def _joined(now: _Now, models: Mapping[str, Model], past: Past | None) -> dict[str, Finding]:
    found = {}
    for labels, p_value in now.p_values:
        model = models.get(_model_key(labels))
        if model is None or math.isnan(p_value):
            continue
        key, detected = _finding_key(labels), _finding_key(labels) in now.detected
        course = course_of(past, key, model, p_value, detected) if past is not None else None
        name, kind, test = (labels.get(label, "") for label in ("feature", "kind", "test"))
        found[key] = Finding(model, name, kind, test, p_value, now.scores.get(key), detected, course)
    return found


def course_of(past: Past, finding: str, model: Model, p_value: float | None, detected: bool) -> Course:
    """A column's way until now, from the past of all."""
    near = severity(p_value, model.threshold)
    level = DRIFT if detected else DOUBT if model.verdict == UNKNOWN else quarter(near)
    return Course(past, finding, model.key, near, level)


def _past(known: Past | None, where: Labels, asked: float, total: int) -> Operation[Past]:
    """The past of these columns, as it is known while it holds."""
    clock = yield from instant("time()")
    now = clock[0][1] if clock else 0.0
    if asked == AUTOMATIC and known is not None:
        asked = known.span
    elif asked == AUTOMATIC:
        asked = yield from _fitting(where, now)
    if known is not None and known.span == asked and known.grid.start < now < known.grid.end:
        return known
    at = grid(now, asked)
    p_values = _p_values(where)
    if total > LIMIT:
        p_values = f"{p_values} and bottomk({LIMIT}, {p_values} @ {at.end - at.step:.3f})"
    step = f"{max(1, round(at.step))}s"
    drifted = f"max_over_time(kanary_drift_detected{matchers(where)}[{step}]) > 0"
    doubts = f"kanary_drift_verdict{matchers(dict(where) | {'verdict': UNKNOWN})} == 1"
    of_findings = []
    for query in (p_values, drifted):
        of_findings.append((yield from _in_parts(query, at)))
    of_models = []
    for query in (_thresholds(where), doubts):
        answer = yield from ranged(query, at.start, at.end - at.step, at.step)
        of_models.append({_model_key(labels): pairs for labels, pairs in answer})
    return Past(at, asked, *of_findings, *of_models)


def _in_parts(query: str, at: Grid) -> Operation[dict[str, list[Any]]]:
    """The courses of many findings, some moments at a time: no answer takes long to read."""
    found: dict[str, list[Any]] = {}
    for first in range(0, POINTS - 1, _PART):
        last = min(first + _PART, POINTS - 1) - 1
        for labels, pairs in (yield from ranged(query, at.moment(first), at.moment(last), at.step)):
            found.setdefault(_finding_key(labels), []).extend(pairs)
    return found


def _fitting(where: Labels, now: float) -> Operation[float]:
    """The shortest span that holds all there is, a day at most."""
    longest = SPANS[3]
    found = yield from ranged(f"max(kanary_drift_windows_total{matchers(where)})", now - longest, now, 300.0)
    first = min((number(pairs[0][0]) for _, pairs in found if pairs), default=now)
    return next((span for span in SPANS if span >= min(longest, now - first)), longest)


def _models(samples: Iterable[tuple[Labels, float]], thresholds: Mapping[str, float], least: float) -> dict[str, Model]:
    by_model: dict[str, list[tuple[Labels, float]]] = {}
    for labels, value in samples:
        by_model.setdefault(_model_key(labels), []).append((labels, value))
    return {key: _model(of, thresholds.get(key), least) for key, of in sorted(by_model.items())}


def _model(samples: Sequence[tuple[Labels, float]], threshold: float | None, least: float) -> Model:
    def value(metric: str, **wanted: str) -> float | None:
        """The number of that metric; NaN is none."""
        for labels, found in samples:
            if _name(labels) == metric and wanted.items() <= labels.items() and not math.isnan(found):
                return found
        return None

    def whole(metric: str) -> int | None:
        found = value(metric)
        return None if found is None or math.isinf(found) else int(found)

    verdict = next((name for name in (DRIFTS, CALM) if value("verdict", verdict=name) == 1), UNKNOWN)
    said = {name: value("accuracy", bound=name) for name in ("value", "low", "high")}
    accuracy = None
    if said["value"] is not None and said["low"] is not None and said["high"] is not None:
        rows, baseline = whole("accuracy_rows") or 0, value("accuracy_baseline")
        accuracy = Accuracy(said["value"], said["low"], said["high"], rows, baseline)
    compared = [labels for labels, found in samples if _name(labels) == "canary" and found == 1]
    namespace, service, revision, version = (samples[0][0].get(name, "") for name in _MODEL)
    model = Model(
        namespace,
        service,
        revision,
        version,
        verdict=verdict,
        threshold=threshold,
        coverage=value("coverage_ratio"),
        rows=whole("window_rows"),
        waiting=whole("open_window_rows") or 0,
        windows=whole("windows_total") or 0,
        silence=value("seconds_since_last_event"),
        outliers=whole("window_outliers"),
        accuracy=accuracy,
        labelled=whole("labelled_rows_total") or 0,
        stable=compared[0].get("stable", "") if compared else "",
        cause=compared[0].get("cause", "") if compared else "",
        online={
            labels.get("test", ""): int(found) for labels, found in samples if _name(labels) == "online_detections"
        },
    )
    return replace(model, doubt=_doubt(model, least))


def _doubt(model: Model, least: float) -> str:
    """Why its verdict is unknown, as far as the metrics tell."""
    if model.verdict != UNKNOWN:
        return ""
    if not model.windows:
        return f"no window was checked yet, {model.waiting} rows wait"
    if least and model.coverage is None:
        return "coverage cannot be told, nothing counts the requests"
    if least and model.coverage is not None and model.coverage < least:
        return f"{100 * model.coverage:.0f} % of the traffic seen, {100 * least:.0f} % needed"
    return "the check failed, see the detector's log"


def served(model: Model, services: Mapping[str, Service] | None) -> bool:
    """Whether its revision still has a part in the service; True where that cannot be told."""
    service = (services or {}).get(model.service_key)
    if service is None or not model.revision:
        return True
    status = service.status
    return model.revision in (status.stable, status.canary, status.created)


def retrainings(model: Model, runs: Iterable[Run]) -> list[Run]:
    """The runs that the monitoring pipeline started because of this model, the newest first."""
    wanted = retraining_name(model)
    found = [run for run in runs if run.name == wanted and run.created_at is not None]
    return sorted(found, key=lambda run: str(run.created_at), reverse=True)


def retraining_name(model: Model) -> str:
    """What a run is called that retrains this model."""
    evidence = policy.Evidence(model.namespace, model.service, model.version)
    return policy.run_name(model.service, policy.key_of(evidence))


@dataclass(frozen=True)
class Bin:
    """A part of a column's values, and the shares of the rows in it: in the reference, and in the newest window."""

    values: str
    reference: float
    current: float


def distribution(finding: Finding, selectors: Labels = MappingProxyType({})) -> Operation[tuple[Bin, ...]]:
    """How a column is spread, in the order of its bins; empty where the detector does not tell. Raises ApiError."""
    model = finding.model
    labels = dict(zip(_MODEL, (model.namespace, model.service, model.revision, model.version), strict=True))
    where = dict(selectors) | labels | {"feature": finding.name, "kind": finding.kind}
    samples = yield from instant(f"kanary_drift_distribution{matchers(where)}")
    sides: dict[tuple[str, str], dict[str, float]] = {}
    for told, share in samples:
        if math.isfinite(share):
            sides.setdefault((told.get("bin", ""), told.get("values", "")), {})[told.get("side", "")] = share
    return tuple(
        Bin(values, shares.get("reference", 0.0), shares.get("current", 0.0))
        for (_, values), shares in sorted(sides.items())
    )


def _named(names: Sequence[str], where: Labels) -> str:
    name = f'__name__=~"kanary_drift_({"|".join(names)})"'
    return "{" + ",".join(filter(None, (name, matchers(where)[1:-1]))) + "}"


def _p_values(where: Labels) -> str:
    return f"kanary_drift_p_value{matchers(where)}"


def _thresholds(where: Labels) -> str:
    return f"max by ({_BY}) (kanary_drift_threshold{matchers(where)})"


def _name(labels: Labels) -> str:
    return labels.get("__name__", "").removeprefix("kanary_drift_")


def _model_key(labels: Labels) -> str:
    return "/".join(labels.get(name, "") for name in _MODEL)


def _finding_key(labels: Labels) -> str:
    return f"{_model_key(labels)}/{labels.get('kind', '')}/{labels.get('feature', '')}"
