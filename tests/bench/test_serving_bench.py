"""The serving benchmark's parts: what its load generator counts, and that every server is compared by its answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from bench import census
from bench.contestants import decode, encode, same
from bench.httpload import Job, Load, put_load, request, whole
from bench.serving import Taken, missed
from bench.sink import sink

DELAY_S = 0.03


@dataclass
class Tiny:
    """A server of one's own: answers from a list in turn, after a delay, and notes what it got."""

    answers: Sequence[bytes | None]
    delay: float
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        with contextlib.suppress(ConnectionError):
            while more := await reader.read(65536):
                data += more
                found = whole(data)
                if found is None:
                    continue
                self.bodies.append(data[found[0] : found[1]])
                data = b""
                answer = self.answers[(len(self.bodies) - 1) % len(self.answers)]
                await asyncio.sleep(self.delay)
                if answer is None:
                    break
                # In two pieces, as a network may deliver it.
                writer.write(answer[:20])
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(answer[20:])
        writer.close()


@contextlib.contextmanager
def tiny(*answers: bytes | None, delay: float = 0.0) -> Iterator[Tiny]:
    """The server, in a thread, for as long as the block lasts."""
    server = Tiny(answers, delay)
    ready, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/predict"
        ready.set()
        await over.wait()
        listening.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield server
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
        loop.close()


def load(answered: int, failed: dict[str, int] | None = None) -> Load:
    """What a second of load came to."""
    return Load(answered, answered, 1.0, 1.0, 2.0, failed or {}, 0.1)


def answer(status: str, body: str = "{}") -> bytes:
    """An HTTP answer."""
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


def test_load_counts_every_good_answer_and_sends_the_bodies_in_turn() -> None:
    with tiny(answer("200 OK", '{"a": 1}')) as server:
        load = put_load(Job(server.url, ["first", "second"], 2, 0.5, warm_up=0.1, keep_every=1))
    assert load.failed == {}
    assert load.total == len(server.bodies)
    assert 0 < load.answered <= load.total
    assert load.rate == load.answered / 0.5
    assert set(server.bodies) == {b"first", b"second"}
    assert {index for index, _ in load.kept} == {0, 1}
    assert {body for _, body in load.kept} == {'{"a": 1}'}


def test_latencies_are_from_the_request_to_the_end_of_its_answer() -> None:
    with tiny(answer("200 OK"), delay=DELAY_S) as server:
        load = put_load(Job(server.url, ["x"], 1, 1.0, warm_up=0.1))
    assert load.failed == {}
    assert DELAY_S * 1000 <= load.p50 <= load.p99


def test_failures_are_counted_by_reason_and_the_load_goes_on() -> None:
    answers = (answer("200 OK"), answer("503 Service Unavailable"), None, b"HTTP/1.1 200 OK\r\n\r\nno length")
    with tiny(*answers) as server:
        load = put_load(Job(server.url, ["x"], 1, 0.5, warm_up=0.0))
    assert set(load.failed) == {"503", "connection lost", "no content-length"}
    assert load.total > 1
    assert load.total + sum(load.failed.values()) == len(server.bodies)


def test_a_server_that_is_not_there_is_failed_requests_and_no_error() -> None:
    with socket.socket() as bound:  # nobody listens there, and nobody else can
        bound.bind(("127.0.0.1", 0))
        load = put_load(Job(f"http://127.0.0.1:{bound.getsockname()[1]}/predict", ["x"], 2, 0.3, warm_up=0.0))
    assert load.answered == 0
    assert set(load.failed) == {"ConnectionRefusedError"}


def test_the_sink_takes_whatever_is_sent_to_it_until_the_block_ends() -> None:
    with sink() as url:
        load = put_load(Job(url, ["x" * 5_000], 4, 0.3))
        assert load.failed == {}
        assert load.answered > 0
    assert put_load(Job(url, ["x"], 1, 0.1)).answered == 0


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_message_is_whole_when_its_body_is(cut: int) -> None:
    message = request("http://127.0.0.1:1/path", '{"instances": []}')
    assert whole(message) == (len(message) - 17, len(message))
    assert whole(message[:-cut]) is None


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_a_request_holds_the_rows_and_answers_are_compared_to_a_millionth(protocol: str) -> None:
    row = census.rows(1, seed=3)[0]
    document = json.loads(encode(protocol, [row]))
    if protocol == "v1":
        assert document == {"instances": [row]}
        body = json.dumps({"predictions": [{"label": "no", "probabilities": {"yes": 0.25, "no": 0.75}}]})
    else:
        assert {tensor["name"]: tensor["data"] for tensor in document["inputs"]} == {k: [v] for k, v in row.items()}
        outputs = [{"name": "label", "data": ["no"]}, {"name": "probabilities", "data": [0.25, 0.75]}]
        body = json.dumps({"outputs": outputs})
    found = decode(protocol, body, ("yes", "no"))
    assert same(found, [("no", (0.25 + 9e-7, 0.75))])
    assert not same(found, [("no", (0.25 + 2e-6, 0.75))])
    assert not same(found, [("yes", (0.25, 0.75))])
    assert not same(found, [])


def test_the_goal_is_missed_by_a_slow_ratio_a_faster_peer_and_a_failed_request() -> None:
    good = {("v1", 16, "kanary"): [Taken(load(900), 1)], ("v1", 16, "kserve"): [Taken(load(300), 1)]}
    assert missed(good) == []
    assert missed(good | {("v1", 16, "bentoml"): [Taken(load(901), 1)]}) == ["v1 at 16: behind bentoml (1.00)"]
    slow = good | {("v1", 16, "kserve"): [Taken(load(301), 1)]}
    assert missed(slow) == ["v1 at 16: 2.99 times the stock server, 3 is wanted"]
    failing = good | {("v1", 16, "kanary"): [Taken(load(900, failed={"503": 2}), 1)]}
    assert missed(failing) == ["2 of our requests failed"]
