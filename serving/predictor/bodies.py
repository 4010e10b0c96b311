"""How long a request may be, and how much of long ones is held and worked on at once, whatever the protocol.

Long bodies are worked on in a thread, one at a time: short requests do not wait for them. What uploads together would
take more than the memory set aside for it is told to come again, and harms nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from serving.predictor.refusal import Refused

LONG = 256 * 1024
# So many bodies of the greatest length may be on their way or waiting at once.
_HELD = 4

P = ParamSpec("P")
T = TypeVar("T")


class Bodies:
    """The bodies of one server; `limit` is in bytes of one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._one = asyncio.Lock()

    def too_large(self) -> Refused:
        """What a body beyond the limit gets."""
        return Refused("too_large", f"the body is longer than {self.limit} bytes; send fewer rows at a time", 413)

    @contextlib.contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Room for a long body of `size` bytes while the block lasts. Raises Refused where there is none."""
        if self._held + size > _HELD * self.limit:
            raise Refused("busy", "too many long requests are on their way; send this one again a little later", 429)
        self._held += size
        try:
            yield
        finally:
            self._held -= size

    async def work_on(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What `call` gives, from a thread, when no other long body is worked on."""
        async with self._one:
            return await asyncio.to_thread(call, *arguments, **named)
