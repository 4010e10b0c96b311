"""The predictor with a fault: `python -m tests.automation.faults`, and FAULT in its environment says which.

fails:SHARE:SEED  answers that share of its predictions with 500
slow:SECONDS      waits so long before each
crash:COUNT       ends its process with every so many-th prediction
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from typing import Any

from serving.predictor import server
from serving.predictor.edge import Edge, Message, Receive, Scope, Send

_BODY = b'{"error": "made to fail"}'


class Faulty(Edge):
    """The predictor's application, behind the fault."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._kind, *parts = os.environ["FAULT"].split(":")
        self._amount = float(parts[0])
        self._random = random.Random(int(parts[1]) if len(parts) > 1 else 0)
        self._served = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or not."""
        if scope["type"] == "http" and scope["path"].endswith(":predict"):
            self._served += 1
            if self._kind == "slow":
                await asyncio.sleep(self._amount)
            if self._kind == "crash" and self._served >= self._amount:
                os._exit(3)
            if self._kind == "fails" and self._random.random() < self._amount:
                await _read(receive)
                headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]
                await send({"type": "http.response.start", "status": 500, "headers": headers})
                await send({"type": "http.response.body", "body": _BODY})
                return
        await super().__call__(scope, receive, send)


async def _read(receive: Receive) -> None:
    message: Message = {"more_body": True}
    while message.get("more_body"):
        message = await receive()


def main() -> int:
    """Serve until told to stop, or until the fault."""
    setattr(server, "Edge", Faulty)  # noqa: B010  # this process serves nothing else
    return server.main()


if __name__ == "__main__":
    sys.exit(main())
