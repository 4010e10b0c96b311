"""The promotion as the monitor asks for it and does it: the way back is looked at while the question stands."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kanary.errors import KanaryError
from kanary.snapshot_hub import Hub
from kanary.snapshot_services import Service
from kanary.text import one_line
from tui.dialog import Lines
from tui.look import Spans
from tui.rollback import Say
from tui.service_words import move_lines, moved_words, short, version_of, warnings

if TYPE_CHECKING:
    from kanary.kserve.readiness import Readiness

ANYWAY = "Promote anyway"


class Promotion:
    """One promotion of a service's canary, from its question to its end."""

    def __init__(self, hub: Hub, service: Service) -> None:
        self._hub, self._service = hub, service
        self._back: Readiness | None = None
        self._unknown = ""  # why the way back cannot be told
        self._read = asyncio.Lock()

    async def look(self) -> str:
        """Looks at the way back; gives the word to agree with where there is none, else ""."""
        async with self._read:
            if self._back is None and not self._unknown:
                try:
                    self._back = await asyncio.to_thread(self._readiness)
                except KanaryError as error:
                    self._unknown = one_line(error.message)
        return ANYWAY if self._back is not None and not self._back.ok else ""

    def lines(self, typed: dict[str, str]) -> Lines:
        """What is, what will be, and how one would get back."""
        service = self._service
        status = service.status
        return [
            *move_lines(service, [(100, "canary")], f"{short(status, status.canary)} 100 %"),
            [("STABLE    ", "dim"), (version_of(service, status.stable), ""), ("  →  ", "dim"),
             (version_of(service, status.canary), "canary")],
            *self._way_back(),
            [("", "")],
            [("The canary becomes the stable release: all callers get it.", "")],
            *warnings(service),
        ]  # fmt: skip

    async def act(self, reason: str, knowingly: bool, say: Say) -> str:
        """Promotes. KanaryError where there is no way back, unless it was agreed to `knowingly`."""
        from kanary.kserve import steer

        status = self._service.status
        if await self.look() and not knowingly:
            assert self._back is not None
            raise KanaryError(f"There would be no way back: {self._back.obstacles}", "P says so and asks again.")
        api = await self._hub.connections.kubernetes()
        say("the percentage leaves the spec ...", "dim")
        moved = await api.call(steer.promote(status.name, status.namespace, reason))
        return moved_words(moved.after, moved.in_force, moved.why)

    def _readiness(self) -> Readiness:
        """In a thread: models' files are read, and their servers are asked."""
        from kanary import kubernetes
        from kanary.kserve import readiness

        status = self._service.status
        with kubernetes.connect(self._hub.connections.config) as api:
            return api.call(readiness.readiness(status.name, status.namespace))

    def _way_back(self) -> list[Spans]:
        head = ("WAY BACK  ", "dim")
        if self._unknown:
            return [[head, (f"cannot be told: {self._unknown}", "warn")]]
        if self._back is None:
            return [[head, ("is looked at ...", "dim")]]
        good = self._back.ok
        # What blocks, else what is worth knowing; the start stands in the first line.
        told = [one for one in self._back.findings if one.blocks == (not good) and one.what != "start"]
        return [
            [head, (one_line(self._back.way), "good" if good else "bold bad")],
            *([(f"  {one.what}: {one_line(one.said)}", "dim" if good else "bad")] for one in told),
        ]
