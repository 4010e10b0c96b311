"""The process beside the predictor that redacts and sends: frames on stdin, its counts as JSON lines on stdout.

Started with `python -P -m serving.predictor.payloads.sender`. It gives way to predictions, is
deaf to the signals that stop a predictor, and ends once its stdin has ended and what it holds is sent, or soon after.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from serving.predictor.payloads.cloudevents import Writer, writer
from serving.predictor.payloads.delivery import Delivery, Event, Sink
from serving.predictor.payloads.frames import Decoder, Exchange
from serving.predictor.payloads.redaction import Unredactable
from serving.predictor.payloads.spec import PayloadLog

# Not read on beyond this: then the pipe fills, and the predictor drops.
QUEUE_BYTES = 16 << 20
DRAIN_S = 3.0
_REPORT_S = 0.25
_READ_BYTES = 256 * 1024
_STDIN, _STDOUT = 0, 1


@dataclass
class Sender:
    """What is received, on its way to the sink; `outcomes` counts, by kind and outcome, what has become of it."""

    writer: Writer
    delivery: Delivery
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    _decoder: Decoder = field(default_factory=Decoder)

    def received(self, exchange: Exchange) -> None:
        """Queue the events of an answered prediction."""
        try:
            for kind, wire in self.writer.events(exchange):
                self.delivery.put(Event(kind, wire))
        except Unredactable:
            self.outcomes.update((kind, "dropped_unredactable") for kind in self.writer.heads)

    async def read(self) -> None:
        """Take frames from stdin until it ends, as fast as the queue allows."""
        loop = asyncio.get_running_loop()
        os.set_blocking(_STDIN, False)
        readable = asyncio.Event()
        loop.add_reader(_STDIN, readable.set)
        while True:
            await readable.wait()
            try:
                data = os.read(_STDIN, _READ_BYTES)
            except BlockingIOError:
                readable.clear()
                continue
            if not data:
                break
            for exchange in self._decoder.feed(data):
                self.received(exchange)
            if self.delivery.size > QUEUE_BYTES:
                loop.remove_reader(_STDIN)
                # Who does not read sees no end of file: a predictor that is gone must be looked for.
                while self.delivery.size > QUEUE_BYTES // 2 and not _hung_up():
                    await asyncio.sleep(0.01)
                loop.add_reader(_STDIN, readable.set)
            else:
                await asyncio.sleep(0)  # the connections' turn
        loop.remove_reader(_STDIN)

    async def report(self) -> None:
        """Write the counts whenever they have changed."""
        told = ""
        while True:
            if (line := self.line()) != told:
                tell(line)
                told = line
            await asyncio.sleep(_REPORT_S)

    def line(self) -> str:
        """The counts since the start, and the bytes that wait."""
        outcomes = [[kind, outcome, number] for (kind, outcome), number in sorted(self.outcomes.items())]
        return json.dumps({"outcomes": outcomes, "bytes": self.delivery.size})


def main() -> None:
    """Send until stdin has ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    told = _first()
    if told is not None:
        os.nice(told["log"]["niceness"])
        asyncio.run(send(told))


async def send(told: dict[str, Any]) -> None:
    """Send what comes from the predictor that said what is `told`, until stdin has ended."""
    log = PayloadLog(**told["log"])
    outcomes: Counter[tuple[str, str]] = Counter()

    def resolved(event: Event, outcome: str) -> None:
        outcomes[event.kind, outcome] += 1

    delivery = Delivery(sink_of(log.url), resolved, lambda text: print(text, file=sys.stderr, flush=True))
    sender = Sender(writer(log, told["features"], told["sensitive"]), delivery, outcomes)
    tasks = [asyncio.create_task(work) for work in (delivery.run(), sender.report(), sender.read())]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()  # what fails ends the process; the predictor starts another
    try:
        await asyncio.wait_for(delivery.idle.wait(), DRAIN_S)
    except TimeoutError:
        print(f"payload log: {delivery.count} events could not be delivered", file=sys.stderr, flush=True)
    tell(sender.line())
    os._exit(0)


def sink_of(url: str) -> Sink:
    """Where `url` leads."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return Sink(parts.hostname or "", parts.port or (443 if tls else 80), tls, shown)


def tell(line: str) -> None:
    """A line to the predictor; it may be gone."""
    with contextlib.suppress(BrokenPipeError):
        os.write(_STDOUT, line.encode() + b"\n")


def _hung_up() -> bool:
    """Whether the predictor has closed its end of stdin, or is gone."""
    poll = select.poll()
    poll.register(_STDIN, 0)
    return bool(poll.poll(0))


def _first() -> dict[str, Any] | None:
    """What the first frame says; None where stdin ends before."""
    decoder = Decoder()
    while data := os.read(_STDIN, 1):
        for exchange in decoder.feed(data):
            found: dict[str, Any] = json.loads(exchange.request)
            return found
    return None


if __name__ == "__main__":
    main()
