"""A rollout's evidence as a page for the Kubeflow UI: the outcome first, then what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from components.page import Cell, Line, heading, line_chart, number, page, paragraph, table


def report_page(bundle: Mapping[str, Any], sha256: str) -> str:
    """A self-contained HTML page of an evidence bundle (kanary.rollout.bundle)."""
    service = f"{bundle.get('namespace', '')}/{bundle.get('service', '')}"
    title = f"Rollout of {service}" if bundle.get("service") else "Rollout"
    parts = [paragraph(f"{bundle['outcome'].capitalize()}: {bundle['why']}")]
    if bundle.get("steps"):
        parts += [heading("Steps"), table(_STEP_HEAD, _step_rows(bundle["steps"]))]
        parts += _charts(bundle["points"])
    if bundle.get("verdict"):
        parts += [heading("Verdict"), paragraph(bundle["verdict"]["sentence"] or "There is none.")]
        parts += _finding_tables(bundle["verdict"]["findings"])
    if bundle.get("acts"):
        rows = [(act["when"], act["who"], _act(act), act["why"]) for act in bundle["acts"]]
        parts += [heading("What people said"), table(("When", "Who", "What", "Why"), rows)]
    if bundle.get("log"):
        told = [(entry["when"], entry["text"]) for entry in bundle["log"]]
        parts += [heading("What happened"), table(("When", "What"), told)]
    parts += [heading("Origin"), table(("", ""), _origin_rows(bundle, sha256))]
    return page(title, *parts)


_STEP_HEAD = ("Share", "From", "For", "Canary", "failed", "Stable", "failed", "Verdict", "Reason")


def _step_rows(steps: Sequence[Mapping[str, Any]]) -> list[list[str | Cell]]:
    rows: list[list[str | Cell]] = []
    for step in steps:
        verdict = step["verdict"] or "none"
        tone = {"promote": "good", "rollback": "bad"}.get(verdict)
        seconds = (step["until"] or step["since"]) - step["since"]
        rows.append(
            [
                f"{step['percent']} %",
                _moment(step["since"]),
                f"{number(round(seconds))} s",
                *(text for arm in ("canary", "stable") for text in (number(step[arm]["requests"]), _rate(step[arm]))),
                Cell(verdict, tone) if tone else verdict,
                step["sentence"],
            ]
        )
    return rows


def _charts(points: Sequence[Mapping[str, Any]]) -> list[str]:
    if len(points) < 2:
        return []
    begun = points[0]["at"]
    minutes = [(point["at"] - begun) / 60 for point in points]
    shares = [Line("asked for", list(zip(minutes, (float(point["percent"]) for point in points), strict=True)))]
    seen = [
        (minute, 100.0 * point["canary"] / (point["canary"] + point["stable"]))
        for minute, point in zip(minutes, points, strict=True)
        if point["canary"] + point["stable"]
    ]
    failures = [
        Line(
            arm,
            [
                (minute, 100.0 * point[f"{arm}_errors"] / point[arm])
                for minute, point in zip(minutes, points, strict=True)
                if point[arm]
            ],
        )
        for arm in ("canary", "stable")
    ]
    return [
        heading("Failed requests"),
        line_chart([line for line in failures if line.points], "minutes", "failed, %"),
        heading("The canary's share"),
        line_chart([*shares, Line("counted", seen)], "minutes", "share, %"),
    ]


def _finding_tables(findings: Mapping[str, Any]) -> list[str]:
    reasons, tests = findings.get("reasons", ()), findings.get("tests", ())
    made = [paragraph(note) for note in findings.get("notes", ())]
    if reasons:
        rows = [
            [
                found["name"],
                *(_events(*found[arm]) for arm in ("canary", "stable")),
                _share(found.get("difference")),
                _interval(found.get("interval")),
                _share(found.get("margin")),
            ]
            for found in reasons
        ]
        head = ("Outcome", "Canary", "Stable", "Difference", "95 % interval", "Margin")
        made.append(table(head, rows))
    if tests:
        rows = [
            [found["family"], f"{found['e_value']:.3g}", f"{found['p_value']:.3g}", _rejected(found)] for found in tests
        ]
        made.append(table(("Within the margins?", "e-value against", "p-value", "Found"), rows))
    return made


def _rejected(found: Mapping[str, Any]) -> str | Cell:
    return Cell("no", "bad") if found["rejected"] else "nothing against it"


def _origin_rows(bundle: Mapping[str, Any], sha256: str) -> list[tuple[str, str]]:
    rows = []
    for arm in ("canary", "stable"):
        if arm in bundle:
            facts = (bundle[arm].get(key) for key in ("version", "revision", "digest"))
            rows.append((arm.capitalize(), ", ".join(fact for fact in facts if fact)))
    if bundle.get("who"):
        rows.append(("Run by", f"{bundle['who']}, from {bundle['started']} to {bundle['ended']}"))
    if bundle.get("profile"):
        rows.append(("Counted by the profile", bundle["profile"]))
    if bundle.get("policy"):
        steps = ", ".join(f"{step} %" for step in bundle["policy"]["steps"])
        margins = bundle["policy"]["margins"]
        rows.append(("Policy", f"steps {steps}; errors within {_share(margins['errors'])} of stable"))
    return [*rows, ("Evidence", f"sha256 {sha256}")]


def _act(act: Mapping[str, Any]) -> str:
    if act["what"] != "approve":
        return str(act["what"])
    what = {-1: "what the judge found", 100: "the promotion"}.get(act["step"], f"{act['step']} %")
    return f"approve {what}"


def _rate(arm: Mapping[str, Any]) -> str:
    if not arm["requests"]:
        return "-"
    return f"{number(arm['errors'])} ({_share(arm['errors'] / arm['requests'])})"


def _events(events: int, requests: int) -> str:
    return f"{_share(events / requests)} of {number(requests)}" if requests else "-"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g} %"


def _interval(interval: Mapping[str, float] | None) -> str:
    return "-" if not interval else f"{_share(interval['low'])} to {_share(interval['high'])}"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
