"""Text that is put there again and again: drawn only where it differs, laid out anew where its lines are others."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static


class StillText(Static):
    """A Static for text that mostly stays as it is. Never reads its text as markup."""

    def __init__(self, text: str = "", *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(text, id=id, classes=classes, markup=False)
        self._told: Text | None = None

    def tell(self, text: Text | str) -> None:
        """Shows this text."""
        told = Text(text) if isinstance(text, str) else text
        before, self._told = self._told, told
        if before is not None and before == told and before.spans == told.spans:
            return
        # Text that wraps may need more room though it has as many lines.
        fixed = before is not None and bool(before.plain) == bool(told.plain) and bool(told.no_wrap)
        same = fixed and before is not None and before.plain.count("\n") == told.plain.count("\n")
        self.update(told, layout=not same)
