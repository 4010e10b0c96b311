"""One service: its revisions with what callers see of each; below, charts, history, events, server logs or the YAML."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.geometry import Size
from textual.screen import Screen
from textual.widgets import ContentSwitcher

from kanary.release import Release
from kanary.snapshot import Snapshot, poll
from kanary.snapshot_hub import ALERTS, EVENTS, METRICS, SERVICES, Hub
from kanary.snapshot_services import Service
from kanary.snapshot_timeline import Entry, of_service, timeline
from kanary.text import one_line, plain
from tui.actions import bindings
from tui.entries import entry_row
from tui.header import Header
from tui.keys import KeyLine
from tui.log_pane import LogPane, Tail
from tui.look import Spans, styled, styles
from tui.service_acts import ServiceActs
from tui.service_charts import charts
from tui.service_facts import HISTORY, REVISIONS, TIMELINE, as_yaml, facts, history_rows, revision_rows
from tui.service_words import short
from tui.still import StillText
from tui.table import KeyedTable, Row

_PANES = ("charts", "history", "events", "log", "yaml")
_TITLES = {"charts": "Charts", "history": "History", "events": "Events", "log": "Server log", "yaml": "YAML"}
_PODS = 5.0  # seconds between two looks for the model servers' pods


class ServiceScreen(Screen[None], ServiceActs):
    """One service, kept up to date while it is looked at."""

    PLACES: ClassVar[tuple[str, ...]] = ("service", "services")
    BINDINGS = bindings("services", "service")
    DEFAULT_CSS = """
    ServiceScreen > Static { text-wrap: nowrap; text-overflow: ellipsis; }
    ServiceScreen > #facts { height: auto; max-height: 8; padding: 0 1; }
    ServiceScreen > #revisions { height: auto; min-height: 3; max-height: 8; }
    ServiceScreen > #panes { height: 1; padding: 0 1; background: $panel; }
    ServiceScreen > ContentSwitcher { height: 1fr; }
    ServiceScreen.stale > #revisions { opacity: 55%; }
    ServiceScreen VerticalScroll { height: 1fr; padding: 0 1; }
    ServiceScreen VerticalScroll > Static { height: auto; }
    ServiceScreen #charts { text-wrap: nowrap; text-overflow: ellipsis; padding: 0 1; height: 1fr; }
    """

    def __init__(self, hub: Hub, key: str) -> None:
        super().__init__()
        self.hub, self._key = hub, key
        self._wake = asyncio.Event()
        self._pods: Snapshot[list[dict[str, Any]]] = Snapshot()
        self._drawn = Size()  # of the charts
        self._rows: dict[str, Row] = {}
        self._history: dict[str, Row] = {}
        self._events: dict[str, Entry] = {}
        # Held, not queried: an answer may still come while the screen is being taken down.
        self._header = Header(hub, "services", (SERVICES, METRICS))
        self._facts = StillText(id="facts")
        self._revisions = KeyedTable(REVISIONS, id="revisions")
        self._titles = StillText(id="panes")
        self._charts = StillText(id="charts")
        self._history_table = KeyedTable(HISTORY, id="history")
        self._events_table = KeyedTable(TIMELINE, id="events")
        self._log = LogPane(hub.now, id="log")
        self._yaml = StillText()
        self._panes = ContentSwitcher(
            self._charts,
            self._history_table,
            self._events_table,
            self._log,
            VerticalScroll(self._yaml, id="yaml"),
            initial="charts",
        )

    def compose(self) -> ComposeResult:
        yield self._header
        yield self._facts
        yield self._revisions
        yield self._titles
        yield self._panes
        yield KeyLine()

    def on_mount(self) -> None:
        self.set_focus(self._revisions)
        self._display()
        self.set_interval(1.0, self._tick)
        asking = poll(self._find_pods, self._found_pods, self._wake, lambda found: _PODS, self.hub.seconds)
        self.run_worker(asking, group="pods")

    def the_service(self) -> Service | None:
        return (self.hub.services.value or {}).get(self._key)

    def chosen_release(self) -> Release | None:
        """The one under the cursor of the history, where that is looked at."""
        service, chosen = self.the_service(), self._history_table.selected
        if service is None or chosen is None or not self._history_table.has_focus:
            return None
        history = service.state.history
        return history[int(chosen)] if int(chosen) < len(history) else None

    def changed(self, name: str) -> None:
        """A source of the monitor has a new snapshot."""
        if name in (SERVICES, METRICS, EVENTS, ALERTS):
            self._display()

    def acted(self) -> None:
        self._display()

    def on_resize(self) -> None:
        self.call_after_refresh(self._display)

    def _tick(self) -> None:
        if self.is_current:
            self._facts.tell(self._styled(facts(self.the_service(), self.hub.now())))

    def _display(self) -> None:
        if not self.is_mounted:
            return
        service, now = self.the_service(), self.hub.now()
        self._header.show("services", (SERVICES, METRICS), paused=False)
        self.set_class(bool(self.hub.services.error) or service is None, "stale")
        self._facts.tell(self._styled(facts(service, now)))
        self._titles.tell(self._styled([self._pane_titles()]))
        if service is None:
            return
        self._rows = revision_rows(service, self.hub.metrics.value)
        self._revisions.show(list(self._rows), lambda key: self._rows[key])
        self._revisions.styles.height = len(self._rows) + 1
        self._display_pane(service, now)

    def _pane_titles(self) -> Spans:
        shown = self._panes.current
        spans: list[tuple[str, str]] = []
        for name in _PANES:
            spans += [(f" {_TITLES[name]} ", "reverse bold" if name == shown else "dim"), (" ", "")]
        return (*spans, (" Tab: next", "dim"))

    def _display_pane(self, service: Service, now: datetime) -> None:
        pane = self._panes.current
        if pane == "charts":
            self._draw_charts(service)
            # What stands above may have grown: the charts are drawn again once they have their new height.
            self.call_after_refresh(self._fit_charts)
        elif pane == "history":
            self._history = history_rows(service, now)
            self._history_table.show(list(self._history), lambda key: self._history[key])
        elif pane == "events":
            told = timeline((), {self._key: service}, self.hub.events.value or {}, self.hub.stretches)
            entries = of_service(told, self._key)
            self._events = {entry.key: entry for entry in entries}
            self._events_table.show(list(self._events), self._entry_row)
        elif pane == "yaml":
            self._yaml.tell(Text(plain(as_yaml(service.document))))
        else:
            self._log.watch_log(self._tail(service))

    def _draw_charts(self, service: Service) -> None:
        self._drawn = self._panes.size
        lines = charts(service, self.hub.metrics.value, self._drawn.width - 2, self._drawn.height)
        self._charts.tell(self._styled(lines))

    def _fit_charts(self) -> None:
        service = self.the_service()
        if service is not None and self._panes.current == "charts" and self._panes.size != self._drawn:
            self._draw_charts(service)

    def _entry_row(self, key: str) -> Row:
        when, kind, _, _, _, text = entry_row(self._events[key], self.hub.now())
        return when, kind, text

    def _styled(self, lines: Sequence[Spans]) -> Text:
        return styled(lines, styles(self.app))

    # ---- the model servers' logs

    async def _find_pods(self) -> list[dict[str, Any]]:
        return await self.hub.details.pods(self._key)

    def _found_pods(self, snapshot: Snapshot[list[dict[str, Any]]]) -> None:
        self._pods = snapshot
        service = self.the_service()
        if self._panes.current == "log" and service is not None:
            self._log.watch_log(self._tail(service))

    def _tail(self, service: Service) -> Tail:
        """The log of the newest server of the revision under the cursor."""
        revision = self._revisions.selected or service.status.created
        pods = [pod for pod in self._pods.value or [] if _serves(pod, revision)]
        name = short(service.status, revision)
        if not pods:
            why = one_line(self._pods.error) or "no pod of it is running: its server rests, or has not started"
            return Tail(f"{revision} none {why} {self.hub.rewound}", name, None, missing=why)
        newest = max(pods, key=lambda pod: str((pod.get("metadata") or {}).get("creationTimestamp")))
        pod = str((newest.get("metadata") or {}).get("name"))

        async def read(follow: bool) -> AsyncIterator[str]:
            return await self.hub.details.server_log(service.status.namespace, pod, follow=follow)

        def over() -> bool:
            now = self._pods.value or []
            return not self.hub.recorded and all((found.get("metadata") or {}).get("name") != pod for found in now)

        key = f"{revision} {pod} {self.hub.rewound}"
        return Tail(key, f"{name} ({pod})", read, over, partial=True, timed=True)

    # ---- keys

    @on(KeyedTable.Highlighted, "#revisions")
    def _revision_chosen(self) -> None:
        service = self.the_service()
        if self._panes.current == "log" and service is not None:
            self._log.watch_log(self._tail(service))

    @on(KeyedTable.Selected, "#revisions")
    def _into_pane(self) -> None:
        pane = self._panes.current
        if pane == "log":
            self.set_focus(self._log.view)
        elif pane in ("history", "events", "yaml"):
            self.set_focus(self._panes.query_one(f"#{pane}"))

    def act_back(self) -> None:
        if self._log.leave():
            return
        if self._panes.has_focus_within:
            self.set_focus(self._revisions)
        else:
            self.dismiss()

    def act_pane(self) -> None:
        at = _PANES.index(self._panes.current or "charts")
        self._show_pane(_PANES[(at + 1) % len(_PANES)])

    def act_yaml(self) -> None:
        self._show_pane("charts" if self._panes.current == "yaml" else "yaml")

    def _show_pane(self, name: str) -> None:
        inside = self._panes.has_focus_within
        self._panes.current = name
        if inside:
            self.set_focus(self._revisions)
        self.call_after_refresh(self._display)

    def act_refresh(self) -> None:
        self._wake.set()
        self.hub.wake(SERVICES, METRICS, EVENTS, ALERTS)

    def act_copy(self) -> None:
        self.app.copy_to_clipboard(self._key)
        self.notify(f"Copied: {self._key}", markup=False, timeout=3)


def _serves(pod: Mapping[str, Any], revision: str) -> bool:
    """Whether a pod is of a revision (Knative) or of a Deployment (Standard)."""
    metadata = pod.get("metadata") or {}
    labels = metadata.get("labels") or {}
    named = labels.get("serving.knative.dev/revision")
    return bool(revision) and (
        named == revision or (named is None and str(metadata.get("name")).startswith(f"{revision}-"))
    )
