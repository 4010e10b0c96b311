"""One column of a model: how it is spread in the reference and now, and how near to drift it was over time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.screen import Screen

from kanary.kfp_types import Run
from kanary.snapshot import Snapshot, poll
from kanary.snapshot_course import POINTS
from kanary.snapshot_drift import Bin, Drift, Finding, Model
from kanary.snapshot_hub import DRIFT, Hub
from kanary.text import one_line, shortened
from tui.actions import bindings
from tui.drift_acts import DriftActs
from tui.drift_look import heat, p_words, retraining_line, since_words, span_words, test_name, verdict_sign
from tui.graph import chart
from tui.header import Header
from tui.keys import KeyLine
from tui.look import Spans, styled, styles
from tui.still import StillText

_AGAIN = 10.0  # seconds between two looks at the bins: a window takes longer
_MOST = 2.0  # of the way to the threshold that the chart shows


def facts(finding: Finding | None, runs: Iterable[Run] | None, now: datetime) -> list[Spans]:
    """What it is and how it stands: four lines."""
    if finding is None:
        return [[("Nothing is told of this column any more: its model is not watched now.", "bold warn")], [], [], []]
    model = finding.model
    sign, style = verdict_sign(finding.state)
    since = since_words(finding.course, now)
    kind = {"feature": "feature", "prediction": "the model's answers", "multivariate": "all features together"}
    told = f", for {since}" if since else f": {model.doubt}" if model.doubt else ""
    return [
        [
            (one_line(finding.name), "bold"),
            (f"   {kind.get(finding.kind, one_line(finding.kind))} of ", "dim"),
            (f"{one_line(model.service)} {one_line(model.version)}", "bold"),
            (f"   {one_line(model.revision)}", "dim"),
        ],
        [(f"{sign} {finding.state}{told}", style)],
        [
            ("p-value ", "dim"),
            (p_words(finding.p_value), "bold"),
            ("   drift from ", "dim"),
            (p_words(model.threshold), "bold"),
            ("   distance ", "dim"),
            ("–" if finding.score is None else f"{finding.score:.3g}", "bold"),
            (f"   {test_name(finding.test)}", "dim"),
            (f"   {model.rows} rows" if model.rows is not None else "", "dim"),
        ],
        retraining_line(model, runs, now),
    ]


def bins(spread: Sequence[Bin], width: int) -> list[Spans]:
    """A line for each bin: what both have, what there is more of now, or what is missing now, on one scale."""
    names = [shortened(one_line(one.values), max(8, width // 4)) for one in spread]
    label = max([len(name) for name in names], default=0)
    room = max(10, width - label - 2 - 18)
    most = max([max(one.reference, one.current) for one in spread], default=0.0) or 1.0
    lines: list[Spans] = []
    for name, one in zip(names, spread, strict=True):
        common, longest = (round(room * share / most) for share in sorted((one.reference, one.current)))
        more = one.current > one.reference
        rest = ("▓", "bad") if more else ("░", "stable")
        change = 100 * (one.current - one.reference)
        lines.append(
            [
                (f"{name:>{label}} ", ""),
                ("█" * common, "stable"),
                (rest[0] * (longest - common), rest[1]),
                (" " * (room - longest + 1), ""),
                (f"{100 * one.reference:5.1f} → ", "dim"),
                (f"{100 * one.current:5.1f} %", "bold" if abs(change) >= 5 else ""),
            ]
        )
    return lines


def course_lines(finding: Finding, width: int, height: int) -> list[Spans]:
    """How near to drift it was, as a chart with the threshold, and the heat below it."""
    if finding.course is None:
        return [[("Its past is being read.", "dim")]]
    near = [None if value is None else min(value, _MOST) for value in finding.course.severities]
    style = "bad" if finding.detected else "canary"
    courses: dict[str, list[float | None]] = {"dim": [1.0] * POINTS, style: near}
    drawn: list[Spans] = [*chart(courses, width, height, POINTS, _MOST)] if height > 0 else []
    ago = f"{span_words(finding.course.past.span)} ago"
    return [*drawn, heat(finding.course, width), [(f"{ago}{'now':>{width - len(ago)}}", "dim")]]


class ColumnScreen(Screen[None], DriftActs):
    """One column, kept up to date while it is looked at."""

    PLACES: ClassVar[tuple[str, ...]] = ("column", "drift")
    BINDINGS = bindings("column", "drift")
    DEFAULT_CSS = """
    ColumnScreen > Static { text-wrap: nowrap; text-overflow: ellipsis; padding: 0 1; }
    ColumnScreen > #facts { height: 4; }
    ColumnScreen > .head { height: 1; background: $panel; }
    ColumnScreen > #spread { height: 12; }
    ColumnScreen > #course { height: 1fr; min-height: 2; }
    ColumnScreen.stale > #facts, ColumnScreen.stale > #spread, ColumnScreen.stale > #course { opacity: 55%; }
    ColumnScreen:ansi > .head { background: ansi_default; }
    """

    def __init__(self, hub: Hub, key: str, order: Sequence[str]) -> None:
        super().__init__()
        self.hub, self._key, self._order = hub, key, list(order)
        self._wake = asyncio.Event()
        self._spread: Snapshot[tuple[str, tuple[Bin, ...]]] = Snapshot()
        # Held, not queried: an answer may still come while the screen is being taken down.
        self._header = Header(hub, "drift", (DRIFT,))
        self._facts = StillText(id="facts")
        self._spread_head = StillText(classes="head")
        self._bins = StillText(id="spread")
        self._course_head = StillText(classes="head")
        self._course = StillText(id="course")

    def compose(self) -> ComposeResult:
        yield self._header
        yield self._facts
        yield self._spread_head
        yield self._bins
        yield self._course_head
        yield self._course
        yield KeyLine()

    def on_mount(self) -> None:
        self._display()
        self.set_interval(1.0, self._tick)
        self.run_worker(poll(self._ask, self._told, self._wake, lambda found: _AGAIN, self.hub.seconds), group="spread")

    # ---- what is known

    @property
    def _finding(self) -> Finding | None:
        drift: Drift | None = self.hub.drift.value
        return drift.findings.get(self._key) if drift else None

    @property
    def _runs(self) -> Iterable[Run] | None:
        runs = self.hub.runs.value
        return runs.by_id.values() if runs else None

    def the_model(self) -> Model | None:
        return self._finding.model if self._finding else None

    async def _ask(self) -> tuple[str, tuple[Bin, ...]]:
        key, finding = self._key, self._finding
        if finding is None:
            return key, ()
        return key, await self.hub.details.spread(finding)

    def _told(self, snapshot: Snapshot[tuple[str, tuple[Bin, ...]]]) -> None:
        self._spread = snapshot
        self._display()

    def changed(self, name: str) -> None:
        """A source of the monitor has a new snapshot."""
        if name == DRIFT:
            self._display()
            if self.hub.recorded:
                self._wake.set()

    def acted(self) -> None:
        self._display()

    def on_resize(self) -> None:
        self.call_after_refresh(self._display)

    def _tick(self) -> None:
        if self.is_current:
            self._facts.tell(self._styled(facts(self._finding, self._runs, self.hub.now())))

    # ---- showing

    def _display(self) -> None:
        if not self.is_mounted:
            return
        finding, width = self._finding, max(20, self.size.width - 2)
        own = self._spread if self._spread.error else None
        self._header.show("drift", (DRIFT,), paused=False, own=own)
        self.set_class(bool(self.hub.drift.error) or finding is None, "stale")
        self._facts.tell(self._styled(facts(finding, self._runs, self.hub.now())))
        legend: Spans = (("█", "stable"), (" both  ", "dim"), ("▓", "bad"), (" more now  ", "dim"), ("░", "stable"),
                         (" less now", "dim"))  # fmt: skip
        self._spread_head.tell(self._styled([(("Reference → current   ", "bold"), *legend)]))
        self._bins.tell(self._styled(self._spread_lines(finding, width)))
        if finding is None:
            return
        past = finding.course.past if finding.course else None
        span = f", last {span_words(past.span)}" if past else ""
        head: Spans = ((f"On the way to drift{span}   ", "bold"), ("── the threshold, by the logarithm of p", "dim"))
        self._course_head.tell(self._styled([head]))
        # In a low window the chart is worth more than the words below it.
        room = self._course.size.height
        height = min(20, room - 2 if room > 6 else room - 1)
        self._course.tell(self._styled(course_lines(finding, width, height)))

    def _spread_lines(self, finding: Finding | None, width: int) -> list[Spans]:
        key, spread = self._spread.value or ("", ())
        if key != self._key:
            return [[("The distribution is being read.", "dim")]]
        if spread:
            return bins(spread, min(width, 140))
        if finding is not None and finding.kind == "multivariate":
            return [[("All features together have no distribution of their own: look at each of them.", "dim")]]
        return [
            [("The detector tells no distribution of this column.", "")],
            [
                (
                    "It does so for the columns that drift most (--plotted_columns, 24), from the first window that it",
                    "dim",
                )
            ],
            [("checks after its start.", "dim")],
        ]

    def _styled(self, lines: Sequence[Spans]) -> Text:
        return styled(lines, styles(self.app))

    # ---- keys

    def act_back(self) -> None:
        self.dismiss()

    def act_next(self) -> None:
        self._step(1)

    def act_previous(self) -> None:
        self._step(-1)

    def _step(self, by: int) -> None:
        drift: Drift | None = self.hub.drift.value
        there = [key for key in self._order if drift and key in drift.findings]
        if self._key in there and 0 <= there.index(self._key) + by < len(there):
            self._key = there[there.index(self._key) + by]
            self._wake.set()
            self._display()

    def act_refresh(self) -> None:
        self._wake.set()
        self.hub.wake(DRIFT)

    def act_copy(self) -> None:
        if self._finding:
            self.app.copy_to_clipboard(self._finding.name)
            self.notify(f"Copied: {self._finding.name}", markup=False, timeout=3)
