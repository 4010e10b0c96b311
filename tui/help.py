"""The list of keys, made from the registry of actions."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.actions import ACTIONS, PLACES, bindings, key_names
from tui.look import Spans, styled, styles


class HelpScreen(ModalScreen[None]):
    """Every key and what it does."""

    BINDINGS = bindings("help")
    DEFAULT_CSS = """
    HelpScreen { align: center middle; background: $background 70%; }
    HelpScreen > VerticalScroll {
        width: 90; max-width: 100%; height: auto; max-height: 90%; border: round $primary; padding: 0 1;
        background: $surface; border-title-color: $primary; border-title-style: bold;
    }
    HelpScreen Static { height: auto; }
    """

    def __init__(self, *, recorded: bool = False) -> None:
        super().__init__()
        self._recorded = recorded

    def compose(self) -> ComposeResult:
        text = styled(help_lines(recorded=self._recorded), styles(self.app))
        with VerticalScroll() as box:
            box.border_title = "Keys"
            yield Static(text, markup=False)

    def action_close(self) -> None:
        self.dismiss()


def help_lines(*, recorded: bool = False) -> list[Spans]:
    """All actions by place; those that change a server are marked. Those of a recording only where there is one."""
    refused = "! is refused: this is a recording" if recorded else None
    lines: list[Spans] = [[(refused or "! changes a server: asks first, and is refused when read-only", "warn")]]
    for place, title in PLACES.items():
        if place == "replay" and not recorded:
            continue
        lines.append([(title, "bold")])
        for action in (action for action in ACTIONS if action.place == place):
            mark = ("! ", "warn") if action.destructive else ("  ", "")
            lines.append([mark, (f"{key_names(action):<12}", "accent"), (action.help, "")])
    return lines
