"""How a predictor leaves: it goes on answering until nobody asks any more, and asks every client to go elsewhere.

Kubernetes tells a pod to stop and its clients where to go at the same time, and the clients learn it later: a server
that stops listening at once loses what they send meanwhile.
"""

from __future__ import annotations

import asyncio
import time

# So long without a request, and whoever was sending them has gone elsewhere.
QUIET_S = 0.5
_LOOK_S = 0.05


class Drain:
    """Whether the server is about to leave, and when it was last asked for something."""

    def __init__(self) -> None:
        self.leaving = False
        self._asked = 0.0

    def asked(self) -> None:
        """Note a request; worth calling only while leaving."""
        self._asked = time.monotonic()

    async def quiet(self, within_s: float) -> None:
        """From now on the server is leaving; returns once nobody has asked for a while, or `within_s` seconds later."""
        self.leaving = True
        self.asked()
        end = time.monotonic() + within_s
        while time.monotonic() < min(end, self._asked + QUIET_S):
            await asyncio.sleep(_LOOK_S)
