"""Every key of the monitor, once: an action has one id, one label, and can be remapped by its id."""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding, BindingType


@dataclass(frozen=True)
class Action:
    """`id` is `place.method`; `keys` as Textual names them; `footer` shows it at the bottom of the screen."""

    id: str
    keys: str
    label: str
    help: str
    footer: bool = True
    destructive: bool = False  # it changes a server: shown as such, refused when read-only

    @property
    def place(self) -> str:
        return self.id.partition(".")[0]

    @property
    def method(self) -> str:
        return self.id.partition(".")[2]


ACTIONS = (
    Action("runs.filter", "slash", "Filter", "show rows with this text; !text: rows without it"),
    Action("runs.sort", "s", "Sort", "sort by start, name, state or duration"),
    Action("runs.clear", "escape", "Clear filter", "take the filter away", footer=False),
    Action("runs.refresh", "r", "Refresh", "ask the server now"),
    Action("runs.pause", "space", "Pause", "hold the picture still; data are still collected"),
    Action("runs.quit", "q", "Quit", "leave the monitor"),
    Action("run.back", "escape", "Back", "from the log to the tasks, from the tasks to the runs"),
    Action("run.follow", "f", "Follow", "follow the log's end, or stay where you are"),
    Action("run.refresh", "r", "Refresh", "ask the server now"),
    Action("run.pause", "space", "Pause", "hold the picture still; data are still collected"),
    Action("list.select_cursor", "enter", "Open", "open the run, or the task's log, under the cursor"),
    Action("list.cursor_down", "j", "Down", "one row down", footer=False),
    Action("list.cursor_up", "k", "Up", "one row up", footer=False),
    Action("list.scroll_top", "g", "Top", "first row", footer=False),
    Action("list.scroll_bottom", "G", "Bottom", "last row", footer=False),
    Action("log.scroll_down", "j", "Down", "one line down", footer=False),
    Action("log.scroll_up", "k", "Up", "one line up", footer=False),
    Action("log.scroll_home", "g", "Top", "beginning of the log", footer=False),
    Action("log.scroll_end", "G", "Bottom", "end of the log", footer=False),
    Action("app.help", "question_mark", "Help", "this list"),
    Action("app.command_palette", "colon,ctrl+p", "Commands", "all commands by name", footer=False),
    Action("help.close", "escape,question_mark,q", "Close", "back to where you were"),
)

PLACES = {
    "runs": "Runs",
    "run": "One run",
    "list": "In lists",
    "log": "In logs",
    "app": "Everywhere",
    "help": "Here",
}


def bindings(place: str) -> list[BindingType]:
    """The bindings of one place, in the order of the registry."""
    return [
        Binding(action.keys, action.method, action.label, show=action.footer, id=action.id)
        for action in ACTIONS
        if action.place == place
    ]


def key_names(action: Action) -> str:
    """The action's keys as a person writes them."""
    written = {"slash": "/", "question_mark": "?", "colon": ":", "escape": "Esc", "enter": "Enter", "space": "Space"}
    return " ".join(written.get(key, key) for key in action.keys.split(","))
