"""How drift looks: heat of a column over time, p-values, and what is known of a model, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from kanary.kfp_types import Run
from kanary.snapshot_course import DRIFT, NONE, UNKNOWN, Course, squeezed
from kanary.snapshot_drift import CALM, DRIFTS, Accuracy, Drift, Finding, Model, retrainings
from kanary.snapshot_home import counted
from kanary.text import one_line
from tui.look import Spans, state_sign

# A level has a character of its own: no colour is needed to read them.
_LEVELS = {
    NONE: (" ", ""),
    0: ("·", "dim"),
    1: ("░", "dim"),
    2: ("▒", "canary"),
    3: ("▓", "warn"),
    UNKNOWN: ("?", "dim"),
    DRIFT: ("█", "bad"),
}
LEGEND: Spans = (
    ("·", "dim"), ("░", "dim"), ("▒", "canary"), ("▓", "warn"), (" to the threshold  ", "dim"),
    ("█", "bad"), (" drift  ", "dim"), ("?", "bold"), (" unknown", "dim"),
)  # fmt: skip
_VERDICTS = {DRIFTS: ("✗", "bold bad"), CALM: ("✓", "good")}
_TESTS = {"ks": "Kolmogorov-Smirnov", "chi2": "chi-squared", "mmd": "MMD", "lsdd": "LSDD", "classifier": "classifier"}
_CAUSES = {
    "none": ("nothing tells them apart", "good"),
    "model": ("its answers differ on the same rows: it is the model", "bad"),
    "world": ("nothing tells them apart, both drift: it is the world", "warn"),
    "split": ("their rows differ: the split is not by chance", "warn"),
}


def heat(course: Course | None, width: int) -> tuple[tuple[str, str], ...]:
    """A course in `width` characters, the newest at the right; blank where the past is not known yet."""
    if course is None:
        return ((" " * width, ""),)
    return tuple((_LEVELS[level][0] * count, _LEVELS[level][1]) for level, count in squeezed(course.levels, width))


def verdict_sign(state: str) -> tuple[str, str]:
    """The sign of drift, no drift or unknown, and its style."""
    return _VERDICTS.get(state, ("?", "bold warn"))


def p_words(p_value: float | None) -> str:
    """A p-value or a threshold: `0.42`, `0.0031`, `3e-12`; `–` where there is none."""
    if p_value is None:
        return "–"
    if p_value >= 0.1:
        return f"{p_value:.2f}"
    return f"{p_value:.2g}" if p_value >= 0.001 or p_value == 0 else f"{p_value:.0e}".replace("e-0", "e-")


def test_name(test: str) -> str:
    """A test's name in full; one that nobody knows keeps its own."""
    return _TESTS.get(test, one_line(test))


def span_words(seconds: float) -> str:
    """`15 min`, `6 h`, `7 days`."""
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds <= 24 * 3600 else f"{seconds / 86400:.0f} days"


def since_words(course: Course | None, now: datetime) -> str:
    """How long it has been drifting, as far back as the course goes; empty where it does not."""
    if course is None or course.levels[-1] != DRIFT:
        return ""
    if course.since is None:
        return f">{span_words(course.past.span)}"
    return age_words(now.timestamp() - course.since)


def age_words(seconds: float) -> str:
    """An age without what changes from second to second: `40 s`, `12 min`, `3 h`, `2 days`."""
    if seconds < 60:
        return f"{max(0, round(seconds))} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def model_lines(model: Model, drift: Drift, runs: Iterable[Run] | None, role: str, now: datetime) -> list[Spans]:
    """All that is known of one model: always as many lines."""
    own = [finding for finding in drift.findings.values() if finding.model is model]
    return [
        _verdict(model, own, role),
        _window(model),
        _answers(own),
        _truth(model.accuracy, model),
        _canary(model),
        retraining_line(model, runs, now),
    ]


def _verdict(model: Model, own: Sequence[Finding], role: str) -> Spans:
    sign, style = verdict_sign(model.verdict)
    drifting = sum(finding.detected for finding in own)
    told = f": {drifting} of {len(own)}" if model.verdict == DRIFTS else f": {model.doubt}" if model.doubt else ""
    where = f"  {one_line(model.revision)}" if model.revision else ""
    return (
        (f"{one_line(model.service)} {one_line(model.version)}", "bold"),
        (f"{where}{f' ({role})' if role else ''}  ", "dim"),
        (f"{sign} {model.verdict}{told}", style),
    )


def _window(model: Model) -> Spans:
    parts = [
        f"coverage {100 * min(model.coverage, 1):.0f} %" if model.coverage is not None else "coverage –",
        f"{model.rows} rows" if model.rows is not None else "no window yet",
    ]
    if model.outliers is not None and model.rows:
        parts.append(f"{model.outliers} outliers ({100 * model.outliers / model.rows:.1f} %)")
    if model.silence is not None:
        parts.append(f"{age_words(model.silence)} ago")
    parts.append(f"{model.waiting} wait")
    return (("seen      ", "dim"), ("   ".join(parts), ""))


def _answers(own: Sequence[Finding]) -> Spans:
    spans: list[tuple[str, str]] = [("scores    ", "dim")]
    for finding in sorted(own, key=lambda one: (one.kind, one.name), reverse=True):
        if finding.kind in ("prediction", "multivariate"):
            sign, style = verdict_sign(finding.state)
            spans += [(f"{sign} {one_line(finding.name)} ", style), (f"p {p_words(finding.p_value)}   ", "")]
    return tuple(spans) if len(spans) > 1 else (*spans, ("no predictions were compared yet", "dim"))


def _truth(accuracy: Accuracy | None, model: Model) -> Spans:
    head = ("accuracy  ", "dim")
    if accuracy is None:
        return (head, ("no labels came" if not model.labelled else f"{model.labelled} labels, too few yet", "dim"))
    before = f", {100 * accuracy.baseline:.1f} % at first" if accuracy.baseline is not None else ""
    worse = accuracy.baseline is not None and accuracy.high < accuracy.baseline
    told = f"{100 * accuracy.value:.1f} % "
    interval = f"({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f} % of {accuracy.rows} labelled rows{before})"
    found = sum(model.online.values())
    online = f"  online tests: {counted(found, 'alarm')}" if found else ""
    return (head, (f"✗ {told}" if worse else told, "bold bad" if worse else "bold"), (interval, ""), (online, "warn"))


def _canary(model: Model) -> Spans:
    head = ("canary    ", "dim")
    if not model.stable:
        return (head, ("not compared with another revision", "dim"))
    told, style = _CAUSES.get(model.cause, (one_line(model.cause), ""))
    return (head, (f"against {one_line(model.stable)}: ", ""), (told, style))


def retraining_line(model: Model, runs: Iterable[Run] | None, now: datetime) -> Spans:
    """The newest retraining that this model has caused, with its reasons."""
    head = ("retrained ", "dim")
    found = retrainings(model, runs or ())
    if not found:
        return (head, ("no run for it among those read; o looks for older ones", "dim"))
    newest = found[0]
    sign, style = state_sign(newest.state)
    ago = age_words((now - newest.created_at).total_seconds()) if newest.created_at else "?"
    why = f": {one_line(newest.description)}" if newest.description else ""
    return (head, (f"{sign} {newest.state}", style), (f" {ago} ago{why}", ""))


def budget_words(drift: Drift) -> str:
    """How the promise about false alarms stands; empty where it is not told."""
    if drift.budget is None or drift.spent is None:
        return ""
    return f"false alarms: {drift.spent:.2g} of {drift.budget:g} a month spent"
