"""The list of keys, made from the registry of actions."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.actions import ACTIONS, PLACES, bindings, key_names


class HelpScreen(ModalScreen[None]):
    """Every key and what it does."""

    BINDINGS = bindings("help")
    DEFAULT_CSS = """
    HelpScreen { align: center middle; }
    HelpScreen > VerticalScroll {
        width: 76; max-width: 100%; height: auto; max-height: 90%; border: round $primary; padding: 0 1;
        background: $surface;
    }
    HelpScreen Static { height: auto; }
    """

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(help_text(), markup=False)

    def action_close(self) -> None:
        self.dismiss()


def help_text() -> Text:
    """All actions by place."""
    text = Text()
    for place, title in PLACES.items():
        text.append(f"{title}\n", "bold")
        for action in (action for action in ACTIONS if action.place == place):
            text.append(f"  {key_names(action):<12}", "cyan")
            text.append(f"{action.help}\n")
    return text
