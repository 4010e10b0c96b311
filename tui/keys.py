"""The keys of the screen in its last line, each pressed by a click. One widget: it is there with the first picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from textual import events
from textual.keys import REPLACED_KEYS, key_to_character
from textual.screen import Screen
from textual.widget import Widget

from tui.look import Spans, styled, styles

if TYPE_CHECKING:
    from textual.binding import Binding

    from tui.app import Monitor

_GAP = 2  # blanks between two keys


class KeyLine(Widget, can_focus=False):
    """What can be pressed where the focus is. What finds no room is left out, but for the last key: the help."""

    app: Monitor
    ALLOW_SELECT = False
    DEFAULT_CSS = """
    KeyLine { dock: bottom; height: 1; background: $panel; color: $foreground; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._places: list[tuple[int, int, str]] = []  # from where to where is which key

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, screen: Screen[object]) -> None:
        if screen is self.screen and self.app.app_focus:
            self.refresh()

    def render(self) -> Text:
        shown = [
            (binding.key, self.app.get_key_display(binding), binding.description)
            for _, binding, enabled, _ in self.screen.active_bindings.values()
            if binding.show and enabled and self.app.offers(binding.action, self.screen) and not self._typed(binding)
        ]
        while len(shown) > 1 and 1 + sum(len(k) + len(d) + 1 + _GAP for _, k, d in shown) - _GAP > self.size.width:
            del shown[-2]
        line: Spans = [(" ", "")]
        self._places = []
        at = 1
        for key, display, description in shown:
            end = at + len(display) + 1 + len(description)
            self._places.append((at, end, key))
            line = [*line, (display, "bold accent"), (f" {description}{' ' * _GAP}", "")]
            at = end + _GAP
        return styled([line], styles(self.app))

    def _typed(self, binding: Binding) -> bool:
        """Whether the key would only be written into the field that has the focus."""
        focused = self.screen.focused
        key = binding.key
        return focused is not None and focused.check_consume_key(key, key_to_character(REPLACED_KEYS.get(key, key)))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        key = next((key for start, end, key in self._places if start <= event.x < end), None)
        if key is not None:
            self.app.simulate_key(key)
