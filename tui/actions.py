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
    destructive: bool = False  # it changes a server: asked for confirmation, refused when read-only

    @property
    def place(self) -> str:
        return self.id.partition(".")[0]

    @property
    def method(self) -> str:
        return self.id.partition(".")[2]

    @property
    def call(self) -> str:
        """The action string of the binding: all but moving about goes through the application's dispatcher."""
        return self.method if self.place in _MOVING else f"app.act('{self.id}')"


# Widgets' own: moving a cursor, typing. They reach no server and need no permission.
_MOVING = frozenset({"list", "log", "help", "dialog", "form", "app"})

ACTIONS = (
    Action("main.runs", "1", "Runs", "view 1: pipeline runs", footer=False),
    Action("main.services", "2", "Services", "view 2: services and where their traffic goes", footer=False),
    Action("main.drift", "3", "Drift", "view 3: what drifts, since when, and how near the rest is", footer=False),
    Action("main.events", "4", "Events", "view 4: what happened, newest first", footer=False),
    Action("main.quit", "q", "Quit", "leave the monitor, from the views only"),
    Action("view.filter", "slash", "Filter", "show rows with this text; !text: rows without it"),
    Action("view.clear", "escape", "Clear filter", "take the filter away"),
    Action("view.sort", "s", "Sort", "sort by the next column; the title says which", footer=False),
    Action("view.refresh", "r", "Refresh", "ask the servers now", footer=False),
    Action("view.pause", "space", "Hold", "hold the picture still; data are still collected", footer=False),
    Action("view.copy", "c", "Copy id", "copy the id or name under the cursor to the clipboard", footer=False),
    Action("runs.submit", "S", "Submit", "start a run of a compiled pipeline, with parameters", destructive=True),
    Action("runs.archived", "a", "Archived", "show the archived runs too, or leave them out", footer=False),
    Action("onerun.terminate", "T", "Terminate", "end the run", destructive=True),
    Action("onerun.retry", "R", "Retry", "run again what failed; what succeeded is kept", destructive=True),
    Action("onerun.clone", "C", "Clone", "start the same pipeline again, its parameters changed or not",
           destructive=True),
    Action("onerun.archive", "A", "Archive", "take the run out of the lists, or put it back", footer=False,
           destructive=True),
    Action("run.back", "escape", "Back", "from the log to the tasks, from the tasks to the runs"),
    Action("run.pane", "tab", "Details", "next pane: log, inputs and outputs, the run's parameters", footer=False),
    Action("run.refresh", "r", "Refresh", "ask the server now", footer=False),
    Action("run.pause", "space", "Hold", "hold the picture still; data are still collected", footer=False),
    Action("run.copy", "c", "Copy id", "copy the run's id to the clipboard", footer=False),
    Action("services.rollback", "R", "Roll back", "all traffic back to the stable release, now", destructive=True),
    Action("services.promote", "P", "Promote", "all traffic to the canary: it becomes the stable release",
           destructive=True),
    Action("services.traffic", "T", "Traffic", "give the canary another share of the traffic", destructive=True),
    Action("services.hold", "H", "Pause", "pause the rollout under way, or let it go on", footer=False,
           destructive=True),
    Action("services.approve", "A", "Approve", "let the rollout pass the step that waits for a person", footer=False,
           destructive=True),
    Action("drift.span", "t", "Time", "the next longer span of the past, from 15 minutes to 7 days"),
    Action("drift.retraining", "o", "Retraining", "open the retraining that this model's drift has caused"),
    Action("column.back", "escape", "Back", "back to the heat map"),
    Action("column.next", "n", "Next", "the next column in the order of the heat map"),
    Action("column.previous", "p", "Previous", "the column before", footer=False),
    Action("column.refresh", "r", "Refresh", "ask Prometheus now", footer=False),
    Action("column.copy", "c", "Copy name", "copy the column's name to the clipboard", footer=False),
    Action("service.back", "escape", "Back", "back to the services"),
    Action("service.pane", "tab", "Next pane", "next pane: charts, history, events, server log, YAML"),
    Action("service.refresh", "r", "Refresh", "ask the servers now", footer=False),
    Action("service.yaml", "y", "YAML", "the InferenceService as the API gives it", footer=False),
    Action("service.copy", "c", "Copy name", "copy the service's name to the clipboard", footer=False),
    Action("list.select_cursor", "enter", "Open", "open what is under the cursor"),
    Action("list.cursor_down", "j,down", "Down", "one row down", footer=False),
    Action("list.cursor_up", "k,up", "Up", "one row up", footer=False),
    Action("list.page_down", "pagedown,ctrl+f", "Page down", "one page down", footer=False),
    Action("list.page_up", "pageup", "Page up", "one page up", footer=False),
    Action("list.scroll_top", "g,home", "Top", "first row", footer=False),
    Action("list.scroll_bottom", "G,end", "Bottom", "last row; older runs are then read", footer=False),
    Action("log.follow", "f", "Follow", "follow the log's end, or stay where you are"),
    Action("log.find", "slash", "Find", "find text in the log"),
    Action("log.next_match", "n", "Next", "next match", footer=False),
    Action("log.previous_match", "N", "Previous", "match before", footer=False),
    Action("log.wrap", "w", "Wrap", "wrap long lines, or cut them", footer=False),
    Action("log.times", "t", "Times", "show when each line was written (~: when it came here), or not", footer=False),
    Action("log.save", "s", "Save", "save the log to a file in the working folder"),
    Action("log.line_down", "j,down", "Down", "one line down", footer=False),
    Action("log.line_up", "k,up", "Up", "one line up", footer=False),
    Action("log.page_down", "pagedown,ctrl+f", "Page down", "one page down", footer=False),
    Action("log.page_up", "pageup", "Page up", "one page up", footer=False),
    Action("log.top", "g,home", "Top", "beginning of the log", footer=False),
    Action("log.bottom", "G,end", "Bottom", "end of the log", footer=False),
    Action("dialog.cancel", "escape", "Cancel", "leave without doing anything"),
    Action("dialog.previous", "left", "Left", "the button to the left", footer=False),
    Action("dialog.next", "right", "Right", "the button to the right", footer=False),
    Action("form.cancel", "escape", "Cancel", "leave the form without starting anything"),
    Action("replay.pause", "space", "Hold", "hold the recording where it is, or let it go on", footer=False),
    Action("replay.backward", "comma", "Back", "to the change before", footer=False),
    Action("replay.forward", "full_stop", "Step", "to the next change", footer=False),
    Action("replay.slower", "minus", "Slower", "the next lower speed, from ×300 down to half", footer=False),
    Action("replay.faster", "plus,equals_sign", "Faster", "the next higher speed", footer=False),
    Action("replay.start", "less_than_sign", "Start", "to the start of the recording", footer=False),
    Action("replay.end", "greater_than_sign", "End", "to its end", footer=False),
    Action("app.help", "question_mark", "Help", "this list"),
    Action("app.command_palette", "colon,ctrl+p", "Commands", "all commands by name", footer=False),
    Action("help.close", "escape,question_mark,q", "Close", "back to where you were"),
)  # fmt: skip

BY_ID = {action.id: action for action in ACTIONS}

PLACES = {
    "replay": "In a recording",
    "main": "The views",
    "view": "In every view",
    "runs": "Runs",
    "onerun": "A run, in the list or opened",
    "run": "An opened run",
    "services": "A service, in the list or opened",
    "service": "An opened service",
    "drift": "Drift, in the heat map or of one column",
    "column": "An opened column",
    "list": "In lists",
    "log": "In logs",
    "dialog": "In dialogs",
    "form": "In forms",
    "app": "Everywhere",
    "help": "Here",
}


def bindings(*places: str) -> list[BindingType]:
    """The bindings of these places, in the order of the registry."""
    return [
        Binding(action.keys, action.call, action.label, show=action.footer, id=action.id)
        for place in places
        for action in ACTIONS
        if action.place == place
    ]


def key_names(action: Action) -> str:
    """The action's keys as a person writes them."""
    written = {
        "slash": "/",
        "question_mark": "?",
        "colon": ":",
        "escape": "Esc",
        "enter": "Enter",
        "space": "Space",
        "down": "↓",
        "up": "↑",
        "left": "←",
        "right": "→",
        "pagedown": "PgDn",
        "pageup": "PgUp",
        "home": "Home",
        "end": "End",
        "tab": "Tab",
        "comma": ",",
        "full_stop": ".",
        "minus": "-",
        "plus": "+",
        "equals_sign": "=",
        "less_than_sign": "<",
        "greater_than_sign": ">",
    }
    return " ".join(written.get(key, key.replace("ctrl+", "^")) for key in action.keys.split(","))
