"""Requests are predicted together, and none gets another one's answer or failure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from serving.model.preprocess import Encoded
from serving.predictor.batcher import INLINE_S, MOST_ROWS, NOTHING, Batcher, Cost, measure

Probabilities = npt.NDArray[np.float64]


def rows(*values: float) -> Encoded:
    numbers = np.array(values, np.float64)[:, None]
    return Encoded(numbers, np.zeros((len(numbers), 0), np.int64))


class Model:
    """Gives back the numbers of its rows, refuses negative ones, and notes the size and thread of every batch."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: set[int] = set()

    def __call__(self, batch: Encoded) -> Probabilities:
        self.batches.append(len(batch))
        self.threads.add(threading.get_ident())
        if (batch.numbers < 0).any():
            raise ValueError(f"negative: {batch.numbers.min()}")
        return batch.numbers


async def ask(batcher: Batcher, requests: Sequence[Encoded]) -> list[Probabilities | BaseException]:
    return await asyncio.gather(*(batcher(one) for one in requests), return_exceptions=True)


async def test_what_waits_together_is_predicted_together_and_answered_apart() -> None:
    model = Model()
    found = await ask(Batcher(model, NOTHING), [rows(1), rows(2, 3), rows(4, 5, 6), rows(7)])
    assert model.batches == [7]
    assert [answer.ravel().tolist() for answer in found if not isinstance(answer, BaseException)] == [
        [1],
        [2, 3],
        [4, 5, 6],
        [7],
    ]


async def test_a_request_alone_waits_for_nobody() -> None:
    model = Model()
    batcher = Batcher(model, NOTHING)
    for value in range(3):
        assert (await batcher(rows(value))).tolist() == [[value]]
    assert model.batches == [1, 1, 1]


async def test_a_batch_has_an_end_and_the_rest_comes_next() -> None:
    model = Model()
    requests = [rows(*range(300)) for _ in range(7)] + [rows(*range(5000))]
    found = await ask(Batcher(model, NOTHING), requests)
    assert model.batches == [900, 900, 300, 5000]
    assert all(batch <= MOST_ROWS for batch in model.batches[:-1])
    assert [len(answer) for answer in found if not isinstance(answer, BaseException)] == [300] * 7 + [5000]


async def test_a_failure_is_that_of_its_own_request() -> None:
    found = await ask(Batcher(Model(), NOTHING), [rows(1), rows(-2), rows(3, 4), rows(-5)])
    assert [str(answer) for answer in found if isinstance(answer, ValueError)] == ["negative: -2.0", "negative: -5.0"]
    assert [answer.ravel().tolist() for answer in found if isinstance(answer, np.ndarray)] == [[1], [3, 4]]


async def test_whoever_gives_up_harms_nobody() -> None:
    batcher = Batcher(Model(), NOTHING)
    leaving, staying = (asyncio.create_task(batcher(rows(value))) for value in (1, 2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).tolist() == [[2]]
    assert (await batcher(rows(3))).tolist() == [[3]]


async def test_what_takes_long_leaves_the_event_loop_free_and_gathers_the_next_batch() -> None:
    entered, leave = threading.Event(), threading.Event()
    model = Model()

    def slow(batch: Encoded) -> Probabilities:
        entered.set()
        assert leave.wait(30)
        return model(batch)

    batcher = Batcher(slow, Cost(call_s=2 * INLINE_S))
    first = asyncio.create_task(batcher(rows(1)))
    assert await asyncio.to_thread(entered.wait, 30)
    following = [asyncio.create_task(batcher(rows(value))) for value in (2, 3, 4)]
    await asyncio.sleep(0)
    leave.set()
    assert [answer.tolist() for answer in await asyncio.gather(first, *following)] == [[[1]], [[2]], [[3]], [[4]]]
    assert model.batches == [1, 3]
    assert threading.get_ident() not in model.threads


def test_the_cost_is_that_of_a_call_or_of_its_rows() -> None:
    cost = Cost(call_s=0.001, row_s=0.0001)
    assert cost.of(1) == 0.001
    assert cost.of(100) == pytest.approx(0.01)
    assert not cost.is_small
    assert NOTHING.is_small
    tried: list[int] = []
    measured = measure(lambda batch: tried.append(len(batch)) or batch.numbers, rows(1, 2, 3))  # type: ignore[func-returns-value]
    assert measured.call_s > 0
    assert set(tried) == {1, 256}
