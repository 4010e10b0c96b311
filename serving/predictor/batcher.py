"""Requests that wait at the same time go through the network together, and none waits for one that may never come.

A batch takes whatever has been read when its turn in the event loop comes: nothing more than that turn is waited for.
What takes the network long runs in a thread, while requests that come meanwhile gather for the next batch; so the wait
is bounded by the batch that runs. A batch that fails is tried again request by request: none fails for another.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from serving.model.preprocess import Encoded

Probabilities = npt.NDArray[np.float64]
Predict = Callable[[Encoded], Probabilities]

MOST_ROWS = 1024
# The event loop is not kept longer than this, as far as the cost lets one tell.
INLINE_S = 0.002
_MEASURED_ROWS = 256
_USUAL_ROWS = 64


@dataclass(frozen=True)
class Cost:
    """What `predict` costs, in seconds: at the least, and for every row of many."""

    call_s: float = 0.0
    row_s: float = 0.0

    def of(self, rows: int) -> float:
        """Seconds that so many rows take."""
        return max(self.call_s, rows * self.row_s)

    @property
    def is_small(self) -> bool:
        """Whether batches as they come mostly run in the event loop; then threads would only wait for each other."""
        return self.of(_USUAL_ROWS) <= INLINE_S


NOTHING = Cost()


def measure(predict: Predict, rows: Encoded) -> Cost:
    """The cost of `predict`, by trying it with `rows`; the quickest of three, since machines are noisy."""
    many = np.arange(_MEASURED_ROWS) % len(rows)
    one_s = min(_seconds(predict, rows.take(np.arange(1))) for _ in range(3))
    many_s = min(_seconds(predict, rows.take(many)) for _ in range(3))
    return Cost(one_s, many_s / _MEASURED_ROWS)


def _seconds(predict: Predict, rows: Encoded) -> float:
    started = time.perf_counter()
    predict(rows)
    return time.perf_counter() - started


@dataclass(frozen=True)
class _Waiting:
    rows: Encoded
    answer: asyncio.Future[Probabilities]


class Batcher:
    """Batches for `predict`, rows to probabilities [rows, classes]; `cost` is what it costs. Of one event loop."""

    def __init__(self, predict: Predict, cost: Cost) -> None:
        self._predict = predict
        self.cost = cost
        self._waiting: deque[_Waiting] = deque()
        self._turn_comes = False

    async def __call__(self, rows: Encoded) -> Probabilities:
        """The probabilities of `rows`, predicted together with whatever else waits."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(rows, loop.create_future())
        self._waiting.append(waiting)
        if not self._turn_comes:
            self._turn_comes = True
            loop.call_soon(self._next)
        return await waiting.answer

    def _next(self) -> None:
        """Run one batch; the next one has its turn after what the event loop has read by then."""
        batch = self._take()
        if self.cost.of(sum(len(waiting.rows) for waiting in batch)) > INLINE_S:
            try:
                running = asyncio.get_running_loop().run_in_executor(None, self._run, batch)
            except RuntimeError as error:  # no thread is to be had; whoever comes next tries again
                self._told(batch, [error] * len(batch))
            else:
                running.add_done_callback(lambda done: self._told(batch, done.result()))
        else:
            self._told(batch, self._run(batch))

    def _take(self) -> list[_Waiting]:
        """The next batch: one request at the least, and no more than fit MOST_ROWS."""
        batch = [self._waiting.popleft()]
        count = len(batch[0].rows)
        while self._waiting and count + len(self._waiting[0].rows) <= MOST_ROWS:
            batch.append(self._waiting.popleft())
            count += len(batch[-1].rows)
        return batch

    def _run(self, batch: Sequence[_Waiting]) -> list[Probabilities | Exception]:
        """What the batch gives, request by request."""
        try:
            found = self._predict(_joined([waiting.rows for waiting in batch]))
        except Exception as error:  # noqa: BLE001  # it belongs to whoever asked, and is raised there
            return [error] if len(batch) == 1 else [self._run([one])[0] for one in batch]
        if len(batch) == 1:
            return [found]
        ends = list(accumulate(len(waiting.rows) for waiting in batch))
        return [found[end - len(waiting.rows) : end] for waiting, end in zip(batch, ends, strict=True)]

    def _told(self, batch: Sequence[_Waiting], answers: Sequence[Probabilities | Exception]) -> None:
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.answer.done():
                continue  # whoever asked has given up
            if isinstance(answer, Exception):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(answer)
        self._turn_comes = bool(self._waiting)
        if self._turn_comes:
            asyncio.get_running_loop().call_soon(self._next)


def _joined(rows: Sequence[Encoded]) -> Encoded:
    if len(rows) == 1:
        return rows[0]
    return Encoded(np.concatenate([one.numbers for one in rows]), np.concatenate([one.indices for one in rows]))
