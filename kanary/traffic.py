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
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from kanary.errors import InputError
from kanary.text import one_line, shortened

REVISION_HEADER = "kanary-revision"  # the sandbox's gateway names in it who answered
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


@dataclass(frozen=True)
class Summary:
    """What came of it so far. A request failed if it got no answer, or another status than 2xx.

    `late` requests were due while `concurrency` were under way, and were sent later.
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
        self.plan = plan
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = {k: Counter() for k in ("status", "revision", "failed", "reason")}
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._requests = self._failed = self._late = 0
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
        return Summary(
            *(sent, failed, counts["status"], counts["revision"], counts["failed"], counts["reason"]),
            seconds=(self._ended or time.monotonic()) - self._started,
            p50_ms=_quantile(ordered, 0.50),
            p99_ms=_quantile(ordered, 0.99),
            late=late,
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
        gaps, bodies = random.Random(plan.seed), itertools.cycle(plan.bodies)
        free = asyncio.Semaphore(plan.concurrency)
        url, headers = address(plan.url)
        headers = {"Content-Type": "application/json"} | headers | dict(plan.headers)
        limits = httpx.Limits(max_connections=plan.concurrency, max_keepalive_connections=plan.concurrency)
        timeout = httpx.Timeout(plan.timeout)
        async with (
            httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False, headers=headers) as client,
            asyncio.TaskGroup() as group,
        ):
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
                group.create_task(self._one(client, url, next(bodies), free))
                due += gaps.expovariate(plan.rate) if plan.poisson else 1 / plan.rate

    async def _one(self, client: httpx.AsyncClient, url: str, body: bytes, free: asyncio.Semaphore) -> None:
        begun = time.perf_counter()
        status, revision, reason = "none", "", ""
        try:
            response = await client.post(url, content=body)
        except (httpx.TransportError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
        else:
            status, revision = str(response.status_code), response.headers.get(REVISION_HEADER, "")
            if not response.is_success:
                reason = f"{status}: {_said(response)}"
        finally:
            free.release()
        taken = (time.perf_counter() - begun) * 1000
        with self._lock:
            self._requests += 1
            self._counts["status"][status] += 1
            if revision:
                self._counts["revision"][revision] += 1
            if reason:
                self._failed += 1
                self._counts["reason"][shortened(one_line(reason), 200)] += 1
                self._counts["failed"][revision or "?"] += 1
            else:
                self._latencies.append(taken)


def address(url: str) -> tuple[str, dict[str, str]]:
    """`url` as it can be connected to, and the headers for it: names below .localhost need no name server."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host.endswith(".localhost"):
        return url, {}
    port = f":{parts.port}" if parts.port else ""
    return parts._replace(netloc=f"127.0.0.1{port}").geturl(), {"Host": parts.netloc}


def _said(response: httpx.Response) -> str:
    try:
        body: Any = response.json()
    except ValueError:
        return response.text[:200]
    error = body.get("error") if isinstance(body, dict) else None
    return str(error or response.text[:200])


def _quantile(ordered: Sequence[float], part: float) -> float | None:
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)] if ordered else None
