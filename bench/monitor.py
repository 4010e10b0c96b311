"""`python -P -m bench.monitor`: the monitor with 5,000 runs and 200 services in the sandbox's own APIs, beside bare
Textual apps in the same run: how soon it paints, how fast it answers a key while data stream in, memory, idle CPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench.report import show, verdict
from bench.terminal import Terminal
from sandbox.runstore.store import Run, Store
from tests.kubernetes.server import Server, start, stop
from tests.tui.cluster import Namespace

ROOT = Path(__file__).parents[1]
PAINT_GOAL, KEY_GOAL_MS, MEMORY_GOAL_MB, IDLE_GOAL = 1.3, 50.0, 120.0, 3.0
GOAL = (
    "first paint at most 1.3 times that of a bare Textual app; with 5,000 runs and 200 services streaming in: key to "
    "next write under 50 ms at the 95th percentile, under 120 MB, an idle view under 3 % of a core"
)
# What a Textual app costs that does nothing: a header, an empty table, a footer.
BARE = """
from textual.app import App
from textual.widgets import DataTable, Footer, Header
class Bare(App):
    BINDINGS = [("q", "quit", "Quit")]
    def compose(self):
        yield Header()
        yield DataTable()
        yield Footer()
Bare().run()
"""
# And one that holds as many rows as ours, and does nothing else.
BARE_ROWS = """
from textual.app import App
from textual.widgets import DataTable, Footer, Header
class Bare(App):
    BINDINGS = [("q", "quit", "Quit"), ("j", "down", "Down"), ("k", "up", "Up")]
    def compose(self):
        yield Header()
        yield DataTable(cursor_type="row")
        yield Footer()
    def on_mount(self):
        table = self.query_one(DataTable)
        table.add_columns(*(f"column {n}" for n in range(9)))
        table.add_rows([[f"cell {row} {n}" for n in range(9)] for row in range(5000)])
        table.focus()
        self.sub_title = "filled"
    def action_down(self):
        self.query_one(DataTable).action_cursor_down()
    def action_up(self):
        self.query_one(DataTable).action_cursor_up()
Bare().run()
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.monitor", description=__doc__)
    parser.add_argument("--runs", type=int, default=5000, help="pipeline runs (default: 5000)")
    parser.add_argument("--services", type=int, default=200, help="InferenceServices (default: 200)")
    parser.add_argument("--starts", type=int, default=7, help="starts of each program (default: 7)")
    parser.add_argument("--keys", type=int, default=200, help="keys pressed (default: 200)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kanary-bench-") as folder, servers(Path(folder), given) as found:
        url, space = found
        paint = first_paint(Path(folder), given.starts)
        bare = keys_of_bare(Path(folder), given.keys)
        ours = keys_of_monitor(Path(folder), url, space, given)
    figures: dict[str, Any] = {"first_paint_s": paint, "key_ms": {"bare": bare, "ours": ours["key_ms"]}}
    figures |= {"memory_mb": ours["memory_mb"], "idle_cpu_percent": ours["idle"], "runs": ours["runs"]}
    ratio = paint["ours"] / paint["bare"]
    p95 = ours["key_ms"]["p95"]
    rows = [
        ("first paint, s", f"{paint['ours']:.2f}", f"{paint['bare']:.2f}", f"{ratio:.2f}", f"<= {PAINT_GOAL}"),
        ("key to write, p95 ms", f"{p95:.1f}", f"{bare['p95']:.1f}", f"{p95 / bare['p95']:.2f}", f"< {KEY_GOAL_MS:g}"),
        ("memory, MB", f"{ours['memory_mb']:.0f}", f"{bare['memory_mb']:.0f}", "", f"< {MEMORY_GOAL_MB:g}"),
        ("idle, % of a core", f"{ours['idle']:.2f}", "", "", f"< {IDLE_GOAL:g}"),
    ]
    show(
        f"The monitor with {ours['runs']} runs and {given.services} services",
        ("", "OURS", "BARE", "RATIO", "GOAL"),
        rows,
    )
    ok = ratio <= PAINT_GOAL and p95 < KEY_GOAL_MS and ours["memory_mb"] < MEMORY_GOAL_MB and ours["idle"] < IDLE_GOAL
    return verdict("monitor", figures, bare["p95"] / p95, GOAL, ok)


@contextmanager
def servers(folder: Path, given: argparse.Namespace) -> Iterator[tuple[str, Namespace]]:
    """The pipelines API with so many runs, and the Kubernetes API with so many services."""
    home = folder / "home"
    seed_runs(home, given.runs)
    argv = [sys.executable, "-P", "-m", "sandbox.kfp", "--home", str(home), "--port", "0"]
    kfp = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(folder))
    kubernetes: Server | None = None
    try:
        assert kfp.stdout is not None
        url = kfp.stdout.readline().removeprefix("listening on ").strip()
        kubernetes = start(folder / "kubernetes")
        # The kubeconfig's own: --namespace would ask Kubeflow Pipelines for that namespace's runs, too.
        space = Namespace(kubernetes, "default")
        for number in range(given.services):
            space.put(f"service-{number:03d}", 20 if number % 7 == 0 else None)
        yield url, space
    finally:
        kfp.terminate()
        kfp.wait()
        if kubernetes is not None:
            stop(kubernetes.process)


def seed_runs(home: Path, count: int) -> None:
    """Ended runs straight into the sandbox's store: their tasks are nobody's to run."""
    (home / "kfp").mkdir(parents=True)
    store = Store(home / "kfp" / "kfp.sqlite")
    spec = {"pipelineInfo": {"name": "training"}, "root": {"dag": {"tasks": {}}}, "schemaVersion": "2.1.0"}
    now = time.time()
    for number in range(count):
        began = now - 60 * number - 100
        state = "FAILED" if number % 11 == 0 else "SUCCEEDED"
        store.save_run(
            Run(
                run_id=str(uuid.uuid4()),
                experiment_id="bench",
                display_name=f"training {number:05d}",
                spec=spec,
                created_at=began,
                scheduled_at=began,
                state=state,
                finished_at=began + 50,
            )
        )
    store.close()


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("KANARY", "KFP", "KUBECONFIG"))}
    return kept | {"PYTHONPATH": str(ROOT), "HOME": str(folder)} | more


def first_paint(folder: Path, starts: int) -> dict[str, float]:
    """Median seconds until the footer stands, in turn, with servers that never answer."""
    bare, ours = [sys.executable, "-P", "-c", BARE], [sys.executable, "-P", "-m", "kanary", "monitor"]
    ours += ["--endpoint", "http://127.0.0.1:9", "--kubeconfig", str(folder / "none"), "--home", str(folder / "h")]
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(starts + 1):
        for name, command in (("bare", bare), ("ours", ours)):
            with Terminal(command, environment(folder)) as terminal:
                times[name].append(terminal.until(b"Quit"))
    # The first of each fills the caches of the disk and of compiled modules.
    return {name: round(sorted(values[1:])[len(values[1:]) // 2], 3) for name, values in times.items()}


def keys_of_bare(folder: Path, count: int) -> dict[str, float]:
    with Terminal([sys.executable, "-P", "-c", BARE_ROWS], environment(folder)) as terminal:
        terminal.until(b"filled", 120)
        terminal.quiet(1.0)
        found = quantiles(press_keys(terminal, count))
        return found | {"memory_mb": round(terminal.process.memory_info().rss / 1e6, 1)}


def keys_of_monitor(folder: Path, url: str, space: Namespace, given: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "kanary", "monitor", "--endpoint", url]
    command += ["--kubeconfig", str(space.server.kubeconfig), "--home", str(folder / "h")]
    with Terminal(command, environment(folder)) as terminal:
        terminal.until(f"of {given.runs}".encode(), 300)
        read_all_runs(terminal, given.runs)
        with streaming(space, given.services):
            found: dict[str, Any] = {"key_ms": quantiles(press_keys(terminal, given.keys)), "runs": given.runs}
        terminal.quiet(1.5, 5.0)
        process = terminal.process
        found["memory_mb"] = round(process.memory_info().rss / 1e6, 1)
        before, began = process.cpu_times(), time.perf_counter()
        while time.perf_counter() - began < 20:
            terminal.read(0.5)
        after = process.cpu_times()
        used = after.user + after.system - before.user - before.system
        found["idle"] = round(100 * used / (time.perf_counter() - began), 2)
        return found


def read_all_runs(terminal: Terminal, count: int) -> None:
    """To the oldest: the title then names no second number."""
    deadline = time.perf_counter() + 240
    while f"Runs ({count})".encode() not in terminal.written:
        if time.perf_counter() > deadline:
            raise TimeoutError(f"not all {count} runs were read: {bytes(terminal.written[-800:])!r}")
        terminal.press(b"G")
        terminal.quiet(0.2, 1.0)
    terminal.press(b"g")
    terminal.quiet(0.5, 3.0)


def press_keys(terminal: Terminal, count: int) -> list[float]:
    times = []
    for number in range(count):
        # Down by pages and up by one: the table scrolls.
        times.append(terminal.key_to_write(b"j" if number % 3 else b"\x1b[6~"))
        time.sleep(0.03)
    return times


@contextmanager
def streaming(space: Namespace, services: int) -> Iterator[None]:
    """Some twenty status changes a second, for as long as the block lasts."""
    over = threading.Event()

    def change() -> None:
        number = 0
        while not over.wait(0.05):
            number += 7
            with_canary = f"service-{number % services // 7 * 7:03d}"
            try:
                space.status(with_canary, 20, number % 100)
            except httpx.HTTPError:
                return

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(1000 * value for value in seconds)
    middle, late = (round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) for share in (0.5, 0.95))
    return {"p50": middle, "p95": late, "max": round(ordered[-1], 2), "keys": len(ordered)}


if __name__ == "__main__":
    sys.exit(main())
