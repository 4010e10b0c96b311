"""The top of every screen: which cluster this is, may it be changed, how old is the picture, what needs a person.

It grows by a few lines while a source does not answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical

from kanary.snapshot import Snapshot
from kanary.snapshot_hub import DRIFT, METRICS, RUNS, SERVICES, Hub
from kanary.text import one_line, shortened
from tui.look import Spans, styled, styles
from tui.still import StillText

if TYPE_CHECKING:
    from kanary.snapshot_home import Item

VIEWS = {"runs": "1 Runs", "services": "2 Services", "drift": "3 Drift", "events": "4 Events"}
_SIGNS = {"bad": ("✗", "bold bad"), "good": ("✓", "good")}


@dataclass(frozen=True)
class Place:
    """Where we are: the context or server, the namespace, and what must not be forgotten."""

    context: str
    namespace: str = ""
    readonly: bool = False
    protected: bool = False
    recorded: bool = False


class Header(Vertical):
    """Two lines: where we are and how fresh that is; the views and what needs a person."""

    DEFAULT_CSS = """
    Header { height: auto; dock: top; background: $panel; }
    Header > Static { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; background: $panel;
        color: $foreground; }
    Header > #problem { height: auto; text-wrap: wrap; max-height: 4; display: none; background: $error 18%; }
    Header.problem > #problem { display: block; }
    Header > #replay { height: auto; display: none; }
    Header.recorded > #replay { display: block; }
    Header:ansi > #problem { background: ansi_default; color: ansi_red; }
    """

    def __init__(self, hub: Hub, view: str, sources: Sequence[str]) -> None:
        super().__init__()
        self._hub, self._view, self._sources = hub, view, tuple(sources)
        self._paused = False
        self._own: Snapshot[Any] = Snapshot()
        # Held, not queried: an answer may still come while the screen is being taken down.
        self._where = StillText(id="where")
        self._home = StillText(id="home")
        self._seen: tuple[object, ...] = (None, None, None)
        self._items: Sequence[Item] = ()
        self._replay = StillText(id="replay")
        self._problem = StillText(id="problem")
        self.set_class(hub.recorded, "recorded")

    def compose(self) -> ComposeResult:
        yield self._where
        yield self._home
        yield self._replay
        yield self._problem

    def on_mount(self) -> None:
        self.tell()
        self.set_interval(1.0, self.tell)

    def on_resize(self) -> None:
        self.tell()

    def show(self, view: str, sources: Sequence[str], *, paused: bool, own: Snapshot[Any] | None = None) -> None:
        """What the screen shows now: the view, the sources it lives on, and one of the screen's own, if it has one."""
        self._view, self._sources, self._paused = view, tuple(sources), paused
        self._own = own or Snapshot()
        self.tell()

    def tell(self) -> None:
        """Says how things are at this moment."""
        now, width = self._hub.seconds(), self.size.width - 2
        if width <= 0:
            return
        known = styles(self.app)
        # Of the two that Prometheus is asked for the age of the one that is looked at.
        ages = [(name, self._hub.snapshot(DRIFT if name == "prom" and DRIFT in self._sources else source))
                for name, source in _AGES]  # fmt: skip
        self._where.tell(styled([where_line(place_of(self._hub), ages, self._paused, now, width)], known))
        items = self._needs()
        self._home.tell(styled([home_line(self._view, items, width)], known))
        if self._hub.recorded:
            self._replay.tell(styled(self._replay_lines(width), known))
        broken = [self._hub.snapshot(source) for source in self._sources] + [self._own]
        text = "\n".join(dict.fromkeys(filter(None, (problem_text(snapshot, now) for snapshot in broken))))
        self.set_class(bool(text), "problem")
        self._problem.tell(Text(text, overflow="fold"))

    def _replay_lines(self, width: int) -> list[Spans]:
        from kanary.replay import ReplayHub  # a live monitor needs none of it
        from tui.replay_bar import lines

        assert isinstance(self._hub, ReplayHub)
        return lines(self._hub, width)

    def _needs(self) -> Sequence[Item]:
        """What needs a person, as far as is known."""
        runs, services, drift = self._hub.runs.value, self._hub.services.value, self._hub.drift.value
        if runs is None and services is None and drift is None:
            return ()
        from kanary.snapshot_home import home  # not before there is something to tell

        seen = (runs.by_id if runs else None, services, drift)
        # Asked every second, of thousands of runs; what has changed is another object.
        if any(one is not other for one, other in zip(seen, self._seen, strict=True)):
            self._seen, self._items = seen, home(runs.by_id.values() if runs else None, services, drift)
        return self._items


_AGE = 4  # characters of an age
_AGES = (("kfp", RUNS), ("k8s", SERVICES), ("prom", METRICS))


def place_of(hub: Hub) -> Place:
    """Where the hub looks, as far as is known by now."""
    server = hub.server or "…"
    context = f"{hub.entered} · {server}" if hub.entered else server
    return Place(context, hub.namespace, hub.readonly, hub.protected, hub.recorded)


def where_line(
    place: Place, ages: Sequence[tuple[str, Snapshot[Any]]], paused: bool, now: float, width: int
) -> list[tuple[str, str]]:
    """` kanary  CONTEXT  ns NAMESPACE  READ-ONLY` and, at the right end, the age of each source."""
    right: list[tuple[str, str]] = [("HELD  ", "bold warn")] if paused else []
    for index, (name, snapshot) in enumerate(ages):
        # All ages are equally wide: nothing moves, and the context is cut at the same place, whatever they are.
        right.append((f"{'  ' if index else ''}{name} ", "dim"))
        right.append((f"{age_words(snapshot, now):{_AGE}}", age_style(snapshot)))
    marks = [(" READ-ONLY ", "reverse bold warn")] if place.readonly and not place.recorded else []
    marks += [(" REPLAY ", "reverse bold info")] if place.recorded else []
    marks += [(" PROTECTED ", "reverse bold bad")] if place.protected and not place.readonly else []
    space = f"ns {place.namespace}" if place.namespace else ""
    fixed = len(" kanary ") + sum(len(text) + 2 for text, _ in marks) + (len(space) + 2 if space else 0) + 2
    taken = sum(len(text) for text, _ in right) + 2
    context = shortened(one_line(place.context), max(7, width - fixed - taken))
    left: list[tuple[str, str]] = [(" kanary ", "reverse bold accent"), (f"  {context}", "bold")]
    left += [(f"  {space}", "")] if space else []
    for text, style in marks:
        left += [("  ", ""), (text, style)]
    blank = width - sum(len(text) for text, _ in (*left, *right))
    return [*left, (" " * max(2, blank), ""), *right]


def home_line(view: str, items: Sequence[Item], width: int) -> list[tuple[str, str]]:
    """The views, the shown one marked, and at the right end what needs a person."""
    left: list[tuple[str, str]] = []
    for name, label in VIEWS.items():
        left += [(f" {label} ", "reverse bold" if name == view else "dim"), (" ", "")]
    right: list[tuple[str, str]] = []
    room = width - sum(len(text) for text, _ in left)
    for item in items:
        sign, style = _SIGNS.get(item.weight, ("◐", "canary"))
        part = f"{sign} {item.text}"
        if sum(len(text) for text, _ in right) + len(part) + 2 > room:
            break
        right += [("  ", ""), (part, style)] if right else [(part, style)]
    return [*left, (" " * max(1, room - sum(len(text) for text, _ in right)), ""), *right]


def age_words(snapshot: Snapshot[Any], now: float) -> str:
    """When the data that are shown came, in at most four characters: `live`, `now`, `12s`, `✗3m`; `…` before the first
    answer, `✗` without any.
    """
    if snapshot.live:
        return "live"
    if snapshot.at is None:
        return "✗" if snapshot.error else "…"
    age = max(0.0, now - snapshot.at)
    sizes = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
    size, unit = next((entry for entry in sizes if round(age) >= entry[0]), sizes[-1])
    words = "now" if age < 1.5 else f"{min(99, round(age) // size)}{unit}"
    return f"✗{words}" if snapshot.error else words


def age_style(snapshot: Snapshot[Any]) -> str:
    return "bold bad" if snapshot.error else "good" if snapshot.live else ""


def problem_text(snapshot: Snapshot[Any], now: float) -> str:
    """Why the newest attempt failed, what to do, and when the next one is; empty where it did not fail."""
    if not snapshot.error:
        return ""
    left = max(0, round((snapshot.retry_at or now) - now))
    again = f"next try in {left} s, r tries now" if left else "trying again"
    first = f"✗ {one_line(snapshot.error)} ({again})"
    return f"{first}\n  {one_line(snapshot.hint)}" if snapshot.hint else first
