"""Prediction traffic: requests at a rate, counted by revision, status and reason. For demonstrations and tests.

Opens the load: a slow answer does not slow the next request down, up to `concurrency` requests under way.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from kanary.errors import InputError
from kanary.text import one_line, shortened

REVISION_HEADER = "kanary-revision"  # the sandbox's gateway names in it who answered
_NONSENSE = b'{"instances": [{"nonsense": true}]}'
_LATENCIES = 100_000  # the newest that the quantiles are of


@dataclass(frozen=True)
class Plan:
    """What to send where. `rate` is in requests a second; gaps are exponential (poisson) or all the same."""

    url: str  # of the prediction, such as http://host/v1/models/m:predict
    bodies: Sequence[bytes]
    rate: float = 50.0
    seconds: float | None = None  # None: until stopped
    poisson: bool = True
    concurrency: int = 256
    timeout: float = 30.0
    headers: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    errors: float = 0.0  # share of requests that are nonsense, and to be refused
    labels: Sequence[str] = ()  # the true class of each body, told to `feedback` so many seconds after the answer
    labels_after: float = 0.0
    feedback: str = ""


@dataclass(frozen=True)
class Summary:
    """What came of it so far. A request failed if it got no answer, or another status than 2xx.

    `late` requests were due while `concurrency` were under way, and were sent later. `nonsense` were to be refused:
    they failed only if they were not. `labelled` rows' true classes were told.
    """

    requests: int
    failed: int
    by_status: Mapping[str, int]  # "200", "503"; "none" where there was no answer
    by_revision: Mapping[str, int]
    failed_by_revision: Mapping[str, int]
    reasons: Mapping[str, int]
    seconds: float
    p50_ms: float | None
    p99_ms: float | None
    late: int = 0
    nonsense: int = 0
    labelled: int = 0

    def share(self, revision: str) -> float:
        """The revision's part of the requests that name one, 0 to 1."""
        total = sum(self.by_revision.values())
        return self.by_revision.get(revision, 0) / total if total else 0.0


class Traffic:
    """Sends a plan's requests from a thread of its own, between start and stop. A context manager, too."""

    def __init__(self, plan: Plan) -> None:
        if not plan.bodies:
            raise InputError("There is no row to make requests of.")
        if not (plan.rate > 0 and math.isfinite(plan.rate)):
            raise InputError(f"A rate of {plan.rate} requests a second cannot be kept.", "Choose one above 0.")
        if plan.labels and len(plan.labels) != len(plan.bodies):
            raise InputError(f"There are {len(plan.labels)} labels for {len(plan.bodies)} rows.")
        self.plan = plan
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = {k: Counter() for k in ("status", "revision", "failed", "reason")}
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._requests = self._failed = self._late = self._nonsense = self._labelled = 0
        self._owed: deque[tuple[float, str, str]] = deque()  # when to be told, event, label
        self._telling = asyncio.Lock()
        self._started = self._ended = 0.0
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def __enter__(self) -> Traffic:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Traffic:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def stop(self) -> Summary:
        """Sends no more, waits for the answers that are under way, and gives the sums."""
        self._stop.set()
        return self.wait()

    def wait(self, timeout: float | None = None) -> Summary:
        """Waits until all is sent and answered, at most `timeout` seconds, and gives the sums so far."""
        self._thread.join(timeout)
        if self._problem is not None:
            raise self._problem
        return self.summary()

    @property
    def running(self) -> bool:
        """Whether requests are still sent or waited for."""
        return self._thread.is_alive()

    def summary(self) -> Summary:
        """The sums so far, at any time, from any thread."""
        with self._lock:
            ordered = sorted(self._latencies)
            counts = {key: dict(counter) for key, counter in self._counts.items()}
            sent, failed, late = self._requests, self._failed, self._late
            nonsense, labelled = self._nonsense, self._labelled
        return Summary(
            *(sent, failed, counts["status"], counts["revision"], counts["failed"], counts["reason"]),
            seconds=(self._ended or time.monotonic()) - self._started,
            p50_ms=_quantile(ordered, 0.50),
            p99_ms=_quantile(ordered, 0.99),
            late=late,
            nonsense=nonsense,
            labelled=labelled,
        )

    def _run(self) -> None:
        try:
            asyncio.run(self._send_all())
        except Exception as error:  # noqa: BLE001 - this thread's outermost loop; wait() raises it again
            self._problem = error
        finally:
            self._ended = time.monotonic()

    async def _send_all(self) -> None:
        plan = self.plan
        gaps, numbers = random.Random(plan.seed), itertools.count()
        told = uuid.uuid4().hex[:8]
        free = asyncio.Semaphore(plan.concurrency)
        url, headers = address(plan.url)
        headers = {"Content-Type": "application/json"} | headers | dict(plan.headers)
        limits = httpx.Limits(max_connections=plan.concurrency, max_keepalive_connections=plan.concurrency)
        timeout = httpx.Timeout(plan.timeout)
        async with (
            httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False, headers=headers) as client,
            asyncio.TaskGroup() as group,
        ):
            telling = group.create_task(self._tell(client)) if plan.labels and plan.feedback else None
            ends = math.inf if plan.seconds is None else time.monotonic() + plan.seconds
            due = time.monotonic()
            while not self._stop.is_set() and due < ends:
                pause = due - time.monotonic()
                if pause > 0:
                    # Short, so that stop() is heard soon.
                    await asyncio.sleep(min(pause, 0.05))
                    continue
                if free.locked():
                    self._late += 1
                await free.acquire()
                number = next(numbers)
                bad = plan.errors > 0 and gaps.random() < plan.errors
                event = f"{told}-{number}" if plan.labels else ""
                group.create_task(self._one(client, url, number % len(plan.bodies), free, bad, event))
                due += gaps.expovariate(plan.rate) if plan.poisson else 1 / plan.rate
            for _ in range(plan.concurrency):  # all are answered
                await free.acquire()
            if telling is not None:
                await self._tell_rest(client)
                telling.cancel()

    async def _tell(self, client: httpx.AsyncClient) -> None:
        """Tell labels as they fall due."""
        while True:
            await asyncio.sleep(min(0.5, max(0.05, self.plan.labels_after / 10)))
            await self._tell_due(client, time.monotonic())

    async def _tell_rest(self, client: httpx.AsyncClient) -> None:
        """Wait for what is still owed, unless it was stopped: then it is told at once."""
        while self._owed and not self._stop.is_set() and (pause := self._owed[-1][0] - time.monotonic()) > 0:
            await asyncio.sleep(min(pause, 0.2))
        await self._tell_due(client, math.inf)

    async def _tell_due(self, client: httpx.AsyncClient, now: float) -> None:
        # One after the other: whoever ends the telling waits for what is on its way.
        async with self._telling:
            await self._tell_owed(client, now)

    async def _tell_owed(self, client: httpx.AsyncClient, now: float) -> None:
        due = []
        while self._owed and self._owed[0][0] <= now:
            due.append(self._owed.popleft())
        if not due:
            return
        body = [{"id": event, "label": label} for _, event, label in due]
        try:
            answer = await client.post(self.plan.feedback, json=body, headers={"Host": _host(self.plan.feedback)})
            answer.raise_for_status()
        except (httpx.HTTPError, OSError) as error:
            with self._lock:
                self._counts["reason"][f"ground truth was not taken: {shortened(one_line(str(error)), 150)}"] += len(
                    due
                )
            return
        with self._lock:
            self._labelled += len(due)

    async def _one(
        self, client: httpx.AsyncClient, url: str, row: int, free: asyncio.Semaphore, bad: bool, event: str
    ) -> None:
        begun = time.perf_counter()
        status, revision, reason = "none", "", ""
        body = _NONSENSE if bad else self.plan.bodies[row]
        try:
            response = await client.post(url, content=body, headers={"Ce-Id": event} if event else None)
        except (httpx.TransportError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
        else:
            status, revision = str(response.status_code), response.headers.get(REVISION_HEADER, "")
            if bad and response.is_success:
                reason = f"{status}: nonsense was answered"
            elif not response.is_success and not (bad and 400 <= response.status_code < 500):
                reason = f"{status}: {_said(response)}"
        finally:
            free.release()
        taken = (time.perf_counter() - begun) * 1000
        with self._lock:
            self._requests += 1
            self._nonsense += bad
            self._counts["status"][status] += 1
            if revision:
                self._counts["revision"][revision] += 1
            if reason:
                self._failed += 1
                self._counts["reason"][shortened(one_line(reason), 200)] += 1
                self._counts["failed"][revision or "?"] += 1
            else:
                self._latencies.append(taken)
        if event and not bad and not reason:
            self._owed.append((time.monotonic() + self.plan.labels_after, event, self.plan.labels[row]))


def address(url: str) -> tuple[str, dict[str, str]]:
    """`url` as it can be connected to, and the headers for it: names below .localhost need no name server."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host.endswith(".localhost"):
        return url, {}
    port = f":{parts.port}" if parts.port else ""
    return parts._replace(netloc=f"127.0.0.1{port}").geturl(), {"Host": parts.netloc}


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _said(response: httpx.Response) -> str:
    try:
        body: Any = response.json()
    except ValueError:
        return response.text[:200]
    error = body.get("error") if isinstance(body, dict) else None
    return str(error or response.text[:200])


def _quantile(ordered: Sequence[float], part: float) -> float | None:
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)] if ordered else None
