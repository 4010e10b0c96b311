"""The field in which a text to find is typed."""

from __future__ import annotations

from textual import events
from textual.widgets import Input


class SearchField(Input):
    """What is typed after Enter is not the field's, though it comes before the focus has left it."""

    def __init__(self, placeholder: str, *, classes: str) -> None:
        super().__init__(placeholder=placeholder, classes=classes, compact=True)
        self._given = False  # Enter was pressed
        self._later: list[events.Key] = []

    async def _on_key(self, event: events.Key) -> None:
        if self._given:
            self._later.append(event)
        elif event.key == "enter":
            self._given = True
            await super().action_submit()
        else:
            return  # it is the field's
        event.stop()
        event.prevent_default()

    async def action_submit(self) -> None:
        """Enter came by way of what had the focus before: its turn is after what was typed before it."""
        self.post_message(events.Key("enter", "\r"))

    def _on_blur(self, _: events.Blur) -> None:
        self._given, later, self._later = False, self._later, []
        for key in later:
            self.app.post_message(events.Key(key.key, key.character))
