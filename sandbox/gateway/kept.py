"""What was made for the last description, so that what did not change is not made again; nothing older is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

Of = TypeVar("Of")
Made = TypeVar("Made")


class Kept(Generic[Of, Made]):
    """Calls `make(name, of)` for every name of a description, unless it was the same in the one before.

    A cache by number would hold what thousands of weights and services that are long gone were made into.
    """

    def __init__(self, make: Callable[[str, Of], Made]) -> None:
        self._make = make
        self._held: dict[str, tuple[Of, Made]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def all(self, wanted: Mapping[str, Of]) -> dict[str, Made]:
        """What is made of each, by name, not to be changed. May be called from any thread."""
        before, held = self._held, {}
        for name, of in wanted.items():
            known = before.get(name)
            held[name] = known if known is not None and known[0] == of else (of, self._make(name, of))
        self._held = held
        return {name: made for name, (_, made) in held.items()}
