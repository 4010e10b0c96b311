"""`python -P -m bench.serving`: the predictor against KServe's stock server, MLServer, BentoML and LitServe.

The same model, rows, answers and torch threads; rounds in which the servers take turns, medians of rounds. A server's
answers are compared with ours before anything is timed, and every 50th under load.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import census
from bench.contestants import (
    OURS,
    PROTOCOLS,
    STOCK,
    Answer,
    Contestant,
    Row,
    Server,
    ask,
    decode,
    encode,
    ours,
    peer,
    running,
    same,
    stock,
)
from bench.httpload import Job, Load, put_load
from bench.peers.environments import SERVERS, Unavailable
from bench.report import show, verdict
from bench.sink import sink

GOAL = "3 times the stock server at 16 and 64, ahead of every peer there, never behind the stock server at 1"
CONCURRENCY = (1, 16, 64)
_ROWS = 64
_WARM_UP_S = 0.3
_KEEP_EVERY = 50
_FASTEST = 15_000.0  # requests a second that the generator must be able to put


@dataclass(frozen=True)
class Taken:
    """One measurement: the load, and the CPU that the server used for a request, in milliseconds."""

    load: Load
    cpu_ms: float


Cell = tuple[str, int, str]
"""Protocol, concurrency, server."""


@dataclass(frozen=True)
class Bench:
    """What is asked, and what the right answers are."""

    rows: Sequence[Row]
    classes: Sequence[str]
    expected: Sequence[Answer]

    def check(self, server: Server) -> None:
        """RuntimeError unless the server answers every row as it must, in every protocol that it speaks."""
        for protocol in server.contestant.routes:
            for row, right in zip(self.rows, self.expected, strict=True):
                status, body = ask(server.url(protocol), encode(protocol, [row]))
                if status != 200 or not self._is(right, protocol, body):
                    name = server.contestant.name
                    raise RuntimeError(f"{name} answers {status} {body[:300]!r} over {protocol}; {right} is right")

    def measure(self, server: Server, protocol: str, concurrency: int, seconds: float) -> Taken:
        """Load on the server for a while. RuntimeError for a wrong answer among those looked at."""
        bodies = [encode(protocol, [row]) for row in self.rows]
        before = server.cpu_s()
        load = put_load(Job(server.url(protocol), bodies, concurrency, seconds, _WARM_UP_S, _KEEP_EVERY))
        used = server.cpu_s() - before
        for index, body in load.kept:
            if not self._is(self.expected[index], protocol, body):
                name = server.contestant.name
                raise RuntimeError(f"{name} answers row {index} with {body:.300} under load; {self.expected[index]}")
        return Taken(load, 1000 * used / max(load.total, 1))

    def _is(self, right: Answer, protocol: str, body: str | bytes) -> bool:
        try:
            return same([right], decode(protocol, body, self.classes))
        except (ValueError, KeyError, TypeError):
            return False


def rounds(
    bench: Bench,
    servers: Sequence[Server],
    concurrency: Sequence[int],
    seconds: float,
    count: int,
    protocols: Sequence[str] = PROTOCOLS,
) -> dict[Cell, list[Taken]]:
    """All measurements: in a round every server has its turn at every concurrency, another one first each round."""
    taken: dict[Cell, list[Taken]] = {}
    for number in range(count):
        for protocol in protocols:
            speaking = [server for server in servers if protocol in server.contestant.routes]
            for level in concurrency:
                rates = []
                for turn in range(len(speaking)):
                    server = speaking[(turn + number) % len(speaking)]
                    one = bench.measure(server, protocol, level, seconds)
                    taken.setdefault((protocol, level, server.contestant.name), []).append(one)
                    rates.append(f"{server.contestant.name} {one.load.rate:.0f}")
                progress(f"round {number + 1}/{count}, {protocol}, concurrency {level}: {', '.join(sorted(rates))} /s")
    return taken


def started(
    stack: contextlib.ExitStack, contestants: Sequence[Contestant], start: Callable[[Contestant], Any], times: int
) -> tuple[list[Server], dict[str, list[float]], dict[str, str]]:
    """The servers that start, their cold starts in seconds, and why others do not start. Ours and stock must."""
    servers: list[Server] = []
    cold: dict[str, list[float]] = {}
    skipped: dict[str, str] = {}
    for number in range(times):
        for contestant in contestants:
            if contestant.name in skipped:
                continue
            try:
                if number < times - 1:
                    with start(contestant) as server:
                        pass
                else:
                    server = stack.enter_context(start(contestant))
                    servers.append(server)
            except Unavailable as why:
                if contestant.name in (OURS, STOCK):
                    raise RuntimeError(f"{contestant.name} does not start: {why}") from None
                skipped[contestant.name] = str(why)
                progress(f"{contestant.name} is left out: {why}")
                continue
            cold.setdefault(contestant.name, []).append(server.cold_start_s)
            progress(f"{contestant.name}: first prediction {server.cold_start_s:.1f} s after its start")
    return servers, cold, skipped


def ratios(taken: Mapping[Cell, Sequence[Taken]], protocol: str, level: int, name: str, base: str = OURS) -> float:
    """How many times the requests/s of `name` are those of `base`: the median of the rounds' ratios."""
    pairs = zip(taken[protocol, level, base], taken[protocol, level, name], strict=True)
    # A server that answers nothing at all counts as if it had answered once.
    return statistics.median(one.load.rate / max(other.load.rate, 1 / other.load.seconds) for one, other in pairs)


def figures(taken: Mapping[Cell, Sequence[Taken]], cell: Cell) -> dict[str, float]:
    """Medians of a cell's rounds, and how many requests failed in all of them."""
    loads = [one.load for one in taken[cell]]
    return {
        "rps": round(statistics.median(load.rate for load in loads), 1),
        "p50_ms": round(statistics.median(load.p50 for load in loads), 2),
        "p99_ms": round(statistics.median(load.p99 for load in loads), 2),
        "failed": sum(sum(load.failed.values()) for load in loads),
        "cpu_ms": round(statistics.median(one.cpu_ms for one in taken[cell]), 3),
        "ours_to_it": round(ratios(taken, cell[0], cell[1], cell[2]), 2),
    }


def tell_rounds(taken: Mapping[Cell, Sequence[Taken]]) -> dict[str, dict[str, float]]:
    """Print a table for each protocol; give all figures, by protocol/concurrency/server."""
    found = {cell: figures(taken, cell) for cell in taken}
    headers = ("CONNECTIONS", "SERVER", "REQUESTS/s", "p50 ms", "p99 ms", "FAILED", "CPU ms/REQUEST", "OURS/IT")
    for protocol in PROTOCOLS:
        cells = [cell for cell in found if cell[0] == protocol]
        cells.sort(key=lambda cell: (cell[1], -found[cell]["rps"]))
        rows = [(str(cell[1]), cell[2], *(f"{value:g}" for value in found[cell].values())) for cell in cells]
        title = "V1 JSON (BentoML and LitServe: the same rows)" if protocol == "v1" else "V2 JSON"
        show(f"{title}, one row a request", headers, rows)
    for cell, several in taken.items():
        reasons = {reason for one in several for reason in one.load.failed}
        if reasons:
            print(f"failed: {'/'.join(map(str, cell))}: {', '.join(sorted(reasons))}")
    return {"/".join(map(str, cell)): values for cell, values in found.items()}


def tell_machine(servers: Sequence[Server], cold: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Print what the servers take of the machine after the load, and how long they take to start."""
    found = {}
    for server in servers:
        rss, pss, processes = server.memory()
        start = statistics.median(cold[server.contestant.name])
        found[server.contestant.name] = {
            "rss_mib": round(rss),
            "pss_mib": round(pss),
            "processes": processes,
            "cold_start_s": round(start, 2),
        }
    rows = [(name, *(f"{value:g}" for value in values.values())) for name, values in found.items()]
    show("After the load", ("SERVER", "RSS MiB", "PSS MiB", "PROCESSES", "COLD START s"), rows)
    return found


def missed(taken: Mapping[Cell, Sequence[Taken]]) -> list[str]:
    """What of the goal is not met."""
    found = []
    for protocol, level, name in taken:
        ratio = ratios(taken, protocol, level, name)
        least = 3.0 if level > 1 else 1.0
        if name == STOCK and ratio < least:
            found.append(f"{protocol} at {level}: {ratio:.2f} times the stock server, {least:g} is wanted")
        if name not in (OURS, STOCK) and level > 1 and ratio <= 1:
            found.append(f"{protocol} at {level}: behind {name} ({ratio:.2f})")
    failed = sum(sum(one.load.failed.values()) for cell in taken if cell[2] == OURS for one in taken[cell])
    return [*found, f"{failed} of our requests failed"] if failed else found


def generator(seconds: float) -> dict[str, float]:
    """What the load generator can do: requests/s against a server that does nothing."""
    body = encode("v1", census.rows(1, seed=1))
    with sink() as url:
        load = put_load(Job(url, [body] * _ROWS, 64, seconds, keep_every=_KEEP_EVERY))
    progress(f"the load generator: {load.rate:.0f} requests/s against a server that does nothing, {load.cpu:.0%} CPU")
    if load.rate < _FASTEST:
        print(f"the load generator is slow here, {_FASTEST:g} requests/s are wanted: fast servers may be faster yet")
    return {"rps": round(load.rate), "cpu": load.cpu}


def measure(folder: Path, given: argparse.Namespace) -> int:
    """Runs all of it; gives the exit code."""
    progress("training the model")
    model, spec = census.train_model(folder)
    rows = census.rows(_ROWS, seed=1)
    chosen = [name for name in SERVERS if given.only is None or name in given.only]
    contestants, skipped = [ours(model), stock()], {}
    for name in chosen:
        try:
            contestants.append(peer(name, progress))
        except Unavailable as why:
            skipped[name] = str(why)
            progress(f"{name} is left out: {why}")

    def start(contestant: Contestant) -> contextlib.AbstractContextManager[Server]:
        return running(contestant, model, folder, rows[0])

    facts: dict[str, Any] = {"generator": generator(min(2.0, given.seconds))}
    with contextlib.ExitStack() as stack:
        servers, cold, unwilling = started(stack, contestants, start, max(1, given.rounds // 2))
        bench = Bench(rows, spec.classes, _expected(servers[0], rows, spec.classes))
        for server in servers:
            bench.check(server)
            bench.measure(server, next(iter(server.contestant.routes)), 16, 1.0)  # adaptive batching has to learn
        progress(f"{', '.join(server.contestant.name for server in servers)} give the same answers")
        taken = rounds(bench, servers, given.concurrency, given.seconds, given.rounds)
        facts |= tell_rounds(taken)
        facts["machine"] = tell_machine(servers, cold)
    most = max(one.load.cpu for several in taken.values() for one in several)
    print(f"\nThe load generator used {most:.0%} of a core at most.")
    for name, reason in (skipped | unwilling).items():
        print(f"{name}: skipped, {reason}")
    facts["skipped"] = sorted(skipped | unwilling)
    lacking = missed(taken)
    for what in lacking:
        print(f"missed: {what}")
    level = 16 if 16 in given.concurrency else given.concurrency[-1]
    return verdict("serving", facts, ratios(taken, "v1", level, STOCK), GOAL, not lacking)


def _expected(server: Server, rows: Sequence[Row], classes: Sequence[str]) -> list[Answer]:
    """Our own answers, a row at a time."""
    found = []
    for row in rows:
        status, body = ask(server.url("v1"), encode("v1", [row]))
        if status != 200:
            raise RuntimeError(f"{server.contestant.name} answers {status}: {body[:300]!r}")
        found += decode("v1", body, classes)
    return found


def progress(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """Run it; 0 where the goal is met."""
    parser = argparse.ArgumentParser(prog="python -P -m bench.serving", description=__doc__)
    add = parser.add_argument
    add("--seconds", type=float, default=4.0, help="of each measurement (default: %(default)s)")
    add("--rounds", type=int, default=5, help="(default: %(default)s; with --seconds 1.5 --rounds 3 about 3 minutes)")
    add("--concurrency", type=int, nargs="+", default=CONCURRENCY, help="connections (default: 1 16 64)")
    add("--only", nargs="*", choices=SERVERS, help="the peers besides the stock server (default: all)")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is ended then, too
    try:
        with tempfile.TemporaryDirectory(prefix="kanary-bench-") as folder:
            return measure(Path(folder), given)
    except KeyboardInterrupt:
        print("stopped: no process is left", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
