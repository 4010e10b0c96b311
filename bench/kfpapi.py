"""`python -P -m bench.kfpapi`: the sandbox's KFP API with 10,000 runs in its store: pages of lists, submissions, size.

Without a peer: Kubeflow's API server needs a cluster and MySQL. The goal is the sandbox's own, and is put to the CPU
time that the server spends on a page: how long a page takes besides is up to who else is using the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.report import show, spread, verdict
from sandbox.runstore.catalog import Catalog
from sandbox.runstore.store import Run, Store, Task

GOAL_MS = 20.0
GOAL = f"with 10,000 runs of 5 tasks no page of runs costs the server more than {GOAL_MS:g} ms"
STATES = ("SUCCEEDED", "SUCCEEDED", "FAILED", "SUCCEEDED", "CANCELED")
SPECS = 20
STARTED = 1_800_000_000.0


def spec_of(number: int) -> dict[str, Any]:
    """A pipeline of about the size of a compiled one of five steps, that can run here: it has nothing to do."""
    return {
        "pipelineInfo": {"name": f"p{number}"},
        "schemaVersion": "2.1.0",
        "sdkVersion": f"bench {number}",
        "root": {"dag": {"tasks": {}}},
        "deploymentSpec": {"executors": {}},
        "defaultPipelineRoot": "",
        "padding": "x" * 20_000,
    }


def fill(home: Path, runs: int) -> float:
    """A store of that many ended runs of five tasks each; its size in MiB."""
    path = home / "kfp" / "kfp.sqlite"
    store = Store(path)
    experiments = [Catalog(store.database).create_experiment(f"e{n}").experiment_id for n in range(10)]
    for begin in range(0, runs, 1000):
        with store.database.transaction():
            for number in range(begin, min(begin + 1000, runs)):
                save(store, number, experiments[number % 10])
    store.close()
    return sum(part.stat().st_size for part in path.parent.glob("kfp.sqlite*")) / 2**20


def save(store: Store, number: int, experiment_id: str) -> None:
    moment = STARTED + 60.0 * number
    state = STATES[number % len(STATES)]
    history = [{"state": one, "update_time": moment, "error": ""} for one in ("PENDING", "RUNNING", state)]
    run_id = f"{number:08x}-0000-4000-8000-000000000000"
    run = Run(
        run_id,
        experiment_id,
        f"training of customer {number % 500} number {number}",
        spec_of(number % SPECS),
        moment,
        moment,
        parameters={"data_uri": "/data/customers.parquet", "epochs": 20, "learning_rate": 0.01},
        pipeline_root="/home/someone/.kanary/artifacts",
        state=state,
        finished_at=moment + 30,
        state_history=history,
    )
    store.save_run(run)
    for step in range(5):
        artifact = {"name": "out", "uri": f"/artifacts/{run_id}/{step}", "type": {"schemaTitle": "system.Dataset"}}
        task = Task(
            f"{run_id[:-1]}{step}",
            run_id,
            f"step-{step}",
            moment + step,
            display_name=f"step-{step}",
            state="SUCCEEDED",
            started_at=moment + step,
            finished_at=moment + step + 1,
            inputs={"parameters": {"epochs": 20}},
            outputs={"parameters": {"Output": 0.5}, "artifacts": {"out": [artifact]}},
            pod_name=f"step-{step}-{number}",
            attempt=1,
            state_history=history,
        )
        store.save_task(task)


@dataclass(frozen=True)
class Server:
    """A running pipelines process, a client of it, and after how many seconds it answered."""

    client: httpx.Client
    process: psutil.Process
    start_s: float

    def measure(self, ask: Callable[[], httpx.Response], times: int) -> dict[str, float]:
        """Milliseconds for one such request: `median` and `max` as the client sees them, `cpu` of the server's."""
        assert ask().status_code == 200
        spent = sum(self.process.cpu_times()[:2])
        found = []
        for _ in range(times):
            began = time.perf_counter()
            answer = ask()
            found.append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 200
        cpu = (sum(self.process.cpu_times()[:2]) - spent) * 1000 / times
        return spread(found) | {"cpu": round(cpu, 2)}


@contextmanager
def served(home: Path) -> Iterator[Server]:
    """A pipelines process over that home."""
    (home / "logs").mkdir(exist_ok=True)
    argv = [sys.executable, "-P", "-m", "sandbox.kfp", "--home", str(home), "--port", "0"]
    began = time.perf_counter()
    with (
        (home / "server.log").open("wb") as log,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("listening on ").strip()
        try:
            with httpx.Client(base_url=f"{address}/apis/v2beta1", timeout=60) as client:
                client.get("/healthz").raise_for_status()
                yield Server(client, psutil.Process(process.pid), time.perf_counter() - began)
        finally:
            process.terminate()


def predicate(**term: Any) -> str:
    return json.dumps({"predicates": [term]})


PAGES: dict[str, dict[str, str]] = {
    "newest 20": {"page_size": "20", "sort_by": "created_at desc"},
    "newest 100, as the CLI asks": {"page_size": "100", "sort_by": "created_at desc"},
    "newest 20 with tasks": {"page_size": "20", "sort_by": "created_at desc", "view": "FULL"},
    "20 by name": {"page_size": "20", "sort_by": "display_name"},
    "20 by end": {"page_size": "20", "sort_by": "finished_at desc"},
    "20 not archived": {
        "page_size": "20",
        "sort_by": "created_at desc",
        "filter": predicate(key="storage_state", operation="NOT_EQUALS", string_value="ARCHIVED"),
    },
    "20 that failed": {
        "page_size": "20",
        "sort_by": "created_at desc",
        "filter": predicate(key="state", operation="EQUALS", string_value="FAILED"),
    },
    "20 by part of a name": {
        "page_size": "20",
        "sort_by": "created_at desc",
        "filter": predicate(key="display_name", operation="IS_SUBSTRING", string_value="customer 77 "),
    },
}


def last_page(client: httpx.Client) -> dict[str, str]:
    """What asks for the page in the middle of the list."""
    middle = predicate(key="created_at", operation="LESS_THAN", long_value=str(int(STARTED + 60 * 5000)))
    token = client.get("/runs", params={"page_size": "100", "sort_by": "created_at desc", "filter": middle}).json()
    return {"page_size": "100", "page_token": token["next_page_token"]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -P -m bench.kfpapi", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=100)
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        size = fill(home, given.runs)
        with served(home) as server:
            client = server.client
            found = client.get("/runs", params={"page_size": "100", "sort_by": "created_at desc"}).json()
            assert (found["total_size"], len(found["runs"])) == (given.runs, 100)
            assert found["runs"][0]["display_name"].endswith(f"number {given.runs - 1}")
            experiment = found["runs"][0]["experiment_id"]
            pages = PAGES | {"newest 20 of an experiment": {"experiment_id": experiment, "page_size": "20"}}
            pages |= {"100 from the middle": last_page(client)}
            for name, wanted in pages.items():
                ask = partial(client.get, "/runs", params=wanted)
                figures[name] = server.measure(ask, given.times)
            ask = partial(client.get, "/artifacts", params={"page_size": "100"})
            figures["100 artifacts"] = server.measure(ask, given.times)
            body = {"display_name": "bench", "pipeline_spec": spec_of(1)}
            figures["a submission"] = server.measure(partial(client.post, "/runs", json=body), given.times)
    for name, summary in figures.items():
        rows.append((name, f"{summary['cpu']:.1f}", f"{summary['median']:.1f}", f"{summary['max']:.1f}"))
    show(f"{given.runs:,} runs, over HTTP; milliseconds", ("REQUEST", "SERVER'S CPU", "MEDIAN", "MAX"), rows)
    slowest = max(summary["cpu"] for summary in figures.values())
    print(
        f"\nThe store takes {size:.1f} MiB, {size * 1024 / given.runs:.1f} KiB a run; {server.start_s:.1f} s after its"
    )
    print("start the server answers, and has looked through the whole file by then.")
    told = figures | {
        "store_mib": round(size, 1),
        "start_s": round(server.start_s, 2),
        "slowest_cpu_ms": round(slowest, 1),
    }
    return verdict("kfpapi", told, None, GOAL, slowest < GOAL_MS)


if __name__ == "__main__":
    sys.exit(main())
