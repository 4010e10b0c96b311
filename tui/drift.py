"""View 3: what the drift detector watches, the worst first: a heat map of columns over time, and their model below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult

from kanary.snapshot_drift import AUTOMATIC, CALM, DRIFTS, Drift, Finding, Model, served
from kanary.snapshot_drift import UNKNOWN as DOUBT
from kanary.snapshot_hub import DRIFT, Hub
from kanary.text import one_line, shortened
from tui.actions import bindings
from tui.drift_acts import DriftActs
from tui.drift_look import LEGEND, budget_words, heat, model_lines, p_words, since_words, span_words, verdict_sign
from tui.look import styled, styles
from tui.still import StillText
from tui.table import Cell, Column, KeyedTable, Row
from tui.view import Listing, OpenColumn, View

COLUMNS = (
    Column("sign", "", 1),
    Column("name", "COLUMN", 0),
    Column("model", "MODEL", 16, until=150),
    Column("service", "MODEL", 28, at=150),
    Column("heat", "OLDER                     NOW", 30, until=110),
    Column("heat60", f"{'OLDER':<57}NOW", 60, at=110, until=180),
    Column("heat90", f"{'OLDER':<87}NOW", 90, at=180),
    Column("p", "P", 6, right=True),
    Column("threshold", "NEEDED", 7, at=150, right=True),
    Column("score", "SCORE", 6, at=180, right=True),
    Column("test", "TEST", 4, at=180),
    Column("since", "SINCE", 7, at=110, right=True),
)
_RANK = (DRIFTS, DOUBT, CALM)
_KINDS = {"prediction": "answer: ", "multivariate": ""}


def title(finding: Finding) -> str:
    """What a column is called in lists."""
    if not finding.name:
        return "nothing checked yet"
    return f"{_KINDS.get(finding.kind, '')}{one_line(finding.name)}"


def model_name(model: Model, width: int) -> str:
    """`service version`, the service cut where there is no room for both."""
    version = shortened(one_line(model.version), width // 2)
    return f"{shortened(one_line(model.service), width - len(version) - 1)} {version}"


def row(finding: Finding, now: datetime) -> Row:
    model = finding.model
    sign, style = verdict_sign(finding.state)
    name_style = "bold" if finding.detected else "" if finding.name else "dim"
    return (
        Cell(sign, style),
        Cell(title(finding), name_style),
        Cell(model_name(model, 16), "dim"),
        Cell(model_name(model, 28), "dim"),
        Cell("", spans=heat(finding.course, 30)),
        Cell("", spans=heat(finding.course, 60)),
        Cell("", spans=heat(finding.course, 90)),
        Cell(p_words(finding.p_value), "bold bad" if finding.detected else ""),
        Cell(p_words(model.threshold), "dim"),
        Cell("–" if finding.score is None else f"{finding.score:.3g}", "dim"),
        Cell(finding.test, "dim"),
        Cell(since_words(finding.course, now), "warn"),
    )


def badness(finding: Finding) -> tuple[int, float, str]:
    """Drift first, then what nobody can tell, then how near the rest is; equals by name."""
    return _RANK.index(finding.state), -(finding.severity or 0.0), finding.key


SORTS: Mapping[str, Callable[[Finding, datetime], Any]] = {
    "worst": lambda finding, now: badness(finding),
    "model": lambda finding, now: (finding.model.key, badness(finding)),
    "name": lambda finding, now: finding.name.casefold(),
    "since": lambda finding, now: -((finding.course.since if finding.course else None) or 0.0),
}


def words(finding: Finding) -> Sequence[str]:
    model = finding.model
    return finding.name, model.service, model.version, model.revision, model.namespace, finding.state, finding.kind


class DriftView(View[Finding], DriftActs):
    """The heat map, and all that is known of the model under the cursor."""

    PLACES: ClassVar[tuple[str, ...]] = ("view", "drift")
    LISTING: ClassVar[Listing[Finding]] = Listing("drift", "Drift", COLUMNS, SORTS, lambda one: one.key, row, words)
    SOURCES: ClassVar[tuple[str, ...]] = (DRIFT,)
    BINDINGS = bindings("drift")
    DEFAULT_CSS = """
    DriftView > #model { height: 6; padding: 0 1; background: $surface; text-wrap: nowrap; text-overflow: ellipsis; }
    DriftView.empty > #model { display: none; }
    DriftView.stale > #model { opacity: 55%; }
    DriftView:ansi > #model { background: ansi_default; }
    DriftView:ansi > KeyedTable > .table--cursor { text-style: bold underline; }
    """

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self._model = StillText(id="model")

    def compose(self) -> ComposeResult:
        parts = list(super().compose())
        yield from parts[:2]
        yield self._model
        yield from parts[2:]

    # ---- what is shown

    @property
    def _drift(self) -> Drift:
        found: Drift | None = self.hub.drift.value
        return found or Drift()

    def items(self) -> Sequence[Finding]:
        drift = self._drift
        judged = {finding.model.key for finding in drift.findings.values()}
        bare = (Finding(model) for key, model in drift.models.items() if key not in judged)
        return [one for one in (*drift.findings.values(), *bare) if served(one.model, self.hub.services.value)]

    def total(self, known: int) -> int:
        return max(known, self._drift.total)

    def empty_text(self) -> str:
        if not self._drift.detectors:
            return (
                "No drift detector tells this Prometheus anything. In the sandbox `kanary up --drift` starts one; on a "
                "cluster run `python -m serving.drift`, let Prometheus scrape it (honor_labels), and give services "
                "`spec.predictor.logger`: serving/drift/README.md says how."
            )
        return (
            "A drift detector runs, but nothing in this namespace logs its predictions to it: give services "
            "`spec.predictor.logger` (serving/drift/README.md). -A looks at all namespaces."
        )

    def update(self) -> None:
        if self.display and self.hub.drift_span is None:
            self.hub.look_at_drift(AUTOMATIC)
        super().update()
        self._tell_model()

    def tick(self) -> None:
        super().tick()
        self._tell_model()

    def the_model(self) -> Model | None:
        return self.current.model if self.current else None

    def _tell_model(self) -> None:
        model = self.the_model()
        if self.paused or model is None or not self.is_mounted:
            return
        runs = self.hub.runs.value
        known = runs.by_id.values() if runs else None
        lines = model_lines(model, self._drift, known, self._role(model), self.hub.now())
        self._model.tell(styled(lines, styles(self.app)))

    def _role(self, model: Model) -> str:
        service = (self.hub.services.value or {}).get(model.service_key)
        found = service.status.revision(model.revision) if service else None
        return found.role if found else ""

    def _title_text(self, shown: int, total: int) -> Text:
        text = super()._title_text(shown, total)
        past, budget = self._drift.past, budget_words(self._drift)
        span = f", last {span_words(past.span)}   " if past else "   "
        text.append_text(
            styled([[(span, "bold"), *LEGEND, (f"   {budget}" if budget else "", "dim")]], styles(self.app))
        )
        return text

    # ---- keys

    @on(KeyedTable.Highlighted, "#drift-table")
    def _chosen(self) -> None:
        self._tell_model()

    @on(KeyedTable.Selected, "#drift-table")
    def _open(self, event: KeyedTable.Selected) -> None:
        finding = self.item(event.key)
        if finding is not None and finding.name:
            self.post_message(OpenColumn(event.key, self.table.keys))
