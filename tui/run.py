"""One run: what it is, why it failed, its tasks as a tree; for the chosen one its log, its inputs and outputs."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import ContentSwitcher

from kanary import kfp_pods
from kanary.kfp_types import Artifact, Run, TaskDetail, Values, progress, task_tree
from kanary.snapshot import Snapshot, poll
from kanary.snapshot_hub import RUNS, Hub
from kanary.text import duration, one_line, plain, shortened
from tui.actions import bindings
from tui.cells import progress_cell, state_cell
from tui.header import Header
from tui.keys import KeyLine
from tui.log_pane import LogPane
from tui.look import Spans, clock_time, state_sign, styled, styles
from tui.run_acts import RunActs
from tui.still import StillText
from tui.table import Cell, Column, KeyedTable, Row
from tui.task_log import Pods, task_tail

COLUMNS = (
    Column("task", "TASK", 0),
    Column("state", "STATE", 18),
    Column("started", "STARTED", 11, at=100),
    Column("duration", "DURATION", 8, right=True),
    Column("error", "ERROR", 34, at=90),
)
_LIVE = 2.0  # seconds between two questions about a run that goes on
_PODS = 5.0  # seconds between two looks for its pods
_PANES = ("log", "values", "parameters")


def branches(run: Run) -> list[tuple[str, TaskDetail]]:
    """The tasks with the lines of their tree before them; tasks of one name and parent are numbered."""
    tree = task_tree(run.tasks)
    lasts: list[bool] = []
    later: set[int] = set()  # depths at which a sibling follows
    for depth, _ in reversed(tree):
        lasts.append(depth not in later)
        later = {level for level in later if level < depth} | {depth}
    found = []
    open_levels: list[bool] = []
    for (depth, task), last in zip(tree, reversed(lasts), strict=True):
        del open_levels[depth:]
        lead = "".join("│ " if goes_on else "  " for goes_on in open_levels[1:])
        found.append((f"{lead}{'└ ' if last else '├ '}" if depth else "", task))
        open_levels.append(not last)
    return found


def rows(run: Run, now: datetime) -> dict[str, Row]:
    """The tasks by id, parents before children."""
    names = Counter((task.parent_id, task.name) for task in run.tasks)
    seen: Counter[tuple[str, str]] = Counter()
    found: dict[str, Row] = {}
    for lead, task in branches(run):
        same = task.parent_id, task.name
        seen[same] += 1
        number = f" #{seen[same]}" if names[same] > 1 else ""
        kind = {"CONDITION": " if", "CONDITION_BRANCH": " if", "LOOP": " for each", "LOOP_ITERATION": " item"}
        found[task.task_id] = (
            Cell("", spans=((lead, "dim"), (one_line(task.name) + number, ""), (kind.get(task.kind, ""), "dim"))),
            state_cell(task.state, "cached" if task.cached else ""),
            Cell(clock_time(task.started_at, now), "dim"),
            Cell(duration(task.seconds(now))),
            Cell(task.error, "bad"),
        )
    return found


def facts(run: Run, now: datetime) -> list[Spans]:
    """Name, state, progress and times, and the metrics that the run has measured."""
    sign, style = state_sign(run.state)
    done, total = progress(run)
    line: list[tuple[str, str]] = [(f"{sign} {run.state}", style), ("  ", "")]
    line += [*progress_cell(done, total, run.state, 10).parts, (f" {done}/{total} tasks", "")] if total else []
    line += [
        (f"   started {clock_time(run.created_at, now)}   {duration(run.seconds(now))}   ", ""),
        (run.run_id, "dim"),
    ]
    lines: list[Spans] = [
        [(one_line(run.name), "bold"), ("  archived" if run.archived else "", "warn"),
         (f"  {one_line(run.pipeline_name)}", "dim")],
        line,
    ]  # fmt: skip
    measured = metrics(run)
    if measured:
        lines.append(
            [part for name, value in measured.items() for part in ((f"{name} ", "dim"), (f"{value}   ", "info"))]
        )
    return lines


def metrics(run: Run) -> dict[str, str]:
    """The scalar metrics that its tasks have logged, by name; the last task that logged one wins."""
    found: dict[str, str] = {}
    for _, task in task_tree(run.tasks):
        for artifacts in task.outputs.artifacts.values():
            for artifact in artifacts:
                if "etrics" in artifact.type or "etric" in artifact.name:
                    for name, value in artifact.metadata.items():
                        if isinstance(value, int | float) and not isinstance(value, bool):
                            found[one_line(name)] = f"{value:.4g}"
    return found


def failure(run: Run) -> str:
    """Why it failed, in the words of the innermost task that did; empty where it did not."""
    failed = [task for _, task in task_tree(run.tasks) if task.error and task.state in ("FAILED", "CANCELED")]
    if failed:
        return f"{one_line(failed[-1].name)}: {plain(failed[-1].error).strip()}"
    return plain(run.error).strip()


def values_lines(task: TaskDetail | None) -> list[Spans]:
    """What went into a task and what came out of it: parameters, artifacts, metrics."""
    if task is None:
        return [[("no task", "dim")]]
    lines: list[Spans] = []
    for title, values in (("INPUTS", task.inputs), ("OUTPUTS", task.outputs)):
        lines += [[(f"{title} of {one_line(task.name)}", "bold")], *_values(values), []]
    if task.error:
        lines += [[("ERROR", "bold bad")], *([(f"  {line}", "")] for line in task.error.splitlines())]
    return lines


def _values(values: Values) -> list[Spans]:
    lines: list[Spans] = [
        [(f"  {one_line(name)}  ", "info"), (shortened(shown(value), 400), "")]
        for name, value in values.parameters.items()
    ]
    for name, artifacts in values.artifacts.items():
        for artifact in artifacts:
            lines += _artifact(name, artifact)
    return lines or [[("  none that the server tells of", "dim")]]


def _artifact(name: str, artifact: Artifact) -> list[Spans]:
    kind = artifact.type.rpartition(".")[2]
    where = artifact.uri or (f"artifact {artifact.artifact_id}" if artifact.artifact_id else "")
    lines: list[Spans] = [[(f"  {one_line(name)}  ", "canary"), (f"{kind}  ", "dim"), (one_line(where), "")]]
    return lines + [
        [(f"      {one_line(key)}  ", "dim"), (shortened(shown(value), 200), "")]
        for key, value in artifact.metadata.items()
    ]


def shown(value: Any) -> str:
    """A parameter's value for a person."""
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def parameters_lines(parameters: Mapping[str, Any]) -> list[Spans]:
    lines: list[Spans] = [[("PARAMETERS of the run", "bold")]]
    lines += [
        [(f"  {one_line(name)}  ", "info"), (shortened(shown(value), 400), "")] for name, value in parameters.items()
    ]
    return lines if parameters else [*lines, [("  none", "dim")]]


class RunScreen(Screen[None], RunActs):
    """One run, kept up to date while it is looked at."""

    PLACES: ClassVar[tuple[str, ...]] = ("run", "onerun")
    BINDINGS = bindings("run", "onerun")
    DEFAULT_CSS = """
    RunScreen > #facts { text-wrap: nowrap; text-overflow: ellipsis; height: auto; max-height: 4; padding: 0 1; }
    RunScreen > #failure { height: auto; max-height: 25%; padding: 0 1; color: $text-error; background: $error 12%;
        display: none; }
    RunScreen.failed > #failure { display: block; }
    RunScreen:ansi > #failure { color: ansi_red; background: ansi_default; }
    RunScreen > #tasks { height: 1fr; min-height: 4; }
    RunScreen > ContentSwitcher { height: 1fr; }
    RunScreen.stale > #tasks { opacity: 55%; }
    RunScreen VerticalScroll { height: 1fr; padding: 0 1; }
    RunScreen VerticalScroll > Static { height: auto; }
    RunScreen VerticalScroll:focus { background: $surface; }
    """

    def __init__(self, hub: Hub, run: Run) -> None:
        super().__init__()
        self.hub = hub
        self._run = run
        self._wake, self._wake_pods = asyncio.Event(), asyncio.Event()
        self._snapshot: Snapshot[Run] = Snapshot()
        self._pods: Pods = Snapshot()
        self._asking = False  # for pods
        self._paused = False
        self._pointed = False  # at the task that failed, once
        self._rows: dict[str, Row] = {}
        # Held, not queried: an answer may still come while the screen is being taken down.
        self._header = Header(hub, "runs", ())
        self._facts = StillText(id="facts")
        self._failure = StillText(id="failure")
        self._table = KeyedTable(COLUMNS, id="tasks")
        self._log = LogPane(hub.now, id="log")
        self._values = StillText()
        self._parameters = StillText()
        self._panes = ContentSwitcher(
            self._log,
            VerticalScroll(self._values, id="values"),
            VerticalScroll(self._parameters, id="parameters"),
            initial="log",
        )

    def compose(self) -> ComposeResult:
        yield self._header
        yield self._facts
        yield self._failure
        yield self._table
        yield self._panes
        yield KeyLine()

    def on_mount(self) -> None:
        self.set_focus(self._table)
        self._tell(self._run)
        self.set_interval(1.0, self._tick)
        self.call_after_refresh(self._start)

    def the_run(self) -> Run | None:
        return self._run

    def _start(self) -> None:
        asking = poll(self._fetch, self._receive, self._wake, self._pause_after, self.hub.seconds)
        self.run_worker(asking, group="run", exclusive=True)

    async def _fetch(self) -> Run:
        return await self.hub.details.run(self._run.run_id)

    def _pause_after(self, run: Run) -> float:
        # An ended run changes only if somebody retries it.
        interval = min(_LIVE, self.hub.scope.interval)
        return interval * 5 if run.final else interval

    def _receive(self, snapshot: Snapshot[Run]) -> None:
        self._snapshot = snapshot
        self._display()

    def changed(self, name: str) -> None:
        """A source of the monitor has a new snapshot: what was done in the list shows here at once."""
        runs = self.hub.runs.value
        listed = runs.by_id.get(self._run.run_id) if name == RUNS and runs else None
        other = listed is not None and (listed.state, listed.archived) != (self._run.state, self._run.archived)
        if other or self.hub.recorded:
            self._wake.set()

    def acted(self) -> None:
        self._display()

    def _display(self) -> None:
        self._header.show("runs", (), paused=self._paused, own=self._snapshot)
        self.set_class(bool(self._snapshot.error), "stale")
        run = self._snapshot.value
        if self._paused or run is None:
            return
        self._run = run
        self._tell(run)
        if not self._pointed and (broken := _first_failed(run)):
            self._table.move_to(broken.task_id)
        self._pointed = True
        self._ask_for_pods()
        self._tell_panes()

    def _tell(self, run: Run) -> None:
        now = self.hub.now()
        self._facts.tell(self._styled(facts(run, now)))
        why = failure(run)
        self._failure.tell(Text(f"✗ {why}" if why else "", overflow="fold"))
        self.set_class(bool(why), "failed")
        self._rows = rows(run, now)
        self._table.show(list(self._rows), lambda key: self._rows[key])

    def _tick(self) -> None:
        if not self._paused and not self._run.final and self.is_current:
            self._tell(self._run)

    def _styled(self, lines: Sequence[Spans]) -> Text:
        return styled(lines, styles(self.app))

    def _tell_panes(self) -> None:
        task = next((task for task in self._run.tasks if task.task_id == self._table.selected), None)
        tail = task_tail(self.hub, self._run, task, self._pods, lambda: self._run) if task else None
        self._log.watch_log(tail)
        self._values.tell(self._styled(values_lines(task)))
        self._parameters.tell(self._styled(parameters_lines(self._run.parameters)))

    async def _find_pods(self) -> list[Mapping[str, Any]]:
        return await self.hub.details.run_pods(self._run.run_id)

    def _found_pods(self, snapshot: Pods) -> None:
        self._pods = snapshot
        self._tell_panes()

    def _ask_for_pods(self) -> None:
        """Where the server does not name them; as long as this is looked at, for more may come."""
        if not self._asking and kfp_pods.needed(self._run.tasks):
            self._asking = True
            every = _PODS if not self._run.final else _PODS * 12
            asking = poll(self._find_pods, self._found_pods, self._wake_pods, lambda found: every, self.hub.seconds)
            self.run_worker(asking, group="pods")

    @on(KeyedTable.Highlighted, "#tasks")
    def _task_chosen(self) -> None:
        self._tell_panes()

    @on(KeyedTable.Selected, "#tasks")
    def _go_to_pane(self) -> None:
        if self._panes.current == "log":
            self.set_focus(self._log.view)
        else:
            self.set_focus(self._panes.query_one(f"#{self._panes.current}"))

    def act_back(self) -> None:
        if self._log.leave():
            return
        if self._panes.has_focus_within:
            self.set_focus(self._table)
        else:
            self.dismiss()

    def act_pane(self) -> None:
        at = _PANES.index(self._panes.current or "log")
        inside = self._panes.has_focus_within
        self._panes.current = _PANES[(at + 1) % len(_PANES)]
        if inside:
            self._go_to_pane()

    def act_refresh(self) -> None:
        self._wake.set()
        self._wake_pods.set()

    def act_pause(self) -> None:
        self._paused = not self._paused

    def act_copy(self) -> None:
        self.app.copy_to_clipboard(self._run.run_id)
        self.notify(f"Copied: {self._run.run_id}", markup=False, timeout=3)


def _first_failed(run: Run) -> TaskDetail | None:
    """The innermost task that failed: its log says why."""
    failed = [(depth, task) for depth, task in task_tree(run.tasks) if task.state == "FAILED"]
    return max(failed, key=lambda item: item[0])[1] if failed else None
