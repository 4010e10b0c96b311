"""`python -P -m bench.engine`: the sandbox's pipeline engine against kfp.local, ZenML and Metaflow, and on its own.

Five steps in a row and a fan-out, from submission to the stored end; what comes out is compared before times are.
Warm means for ours: the parents have started and have had a moment to fork ahead, as between two runs of a person's;
runs that follow each other at once are measured, too. For ZenML: its process has run the pipeline once; for Metaflow,
which starts a process for a run: its files are in the cache.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.enginepipelines import STEPS, compiled
from bench.peers.environments import ROOT, Unavailable, prepare
from bench.report import show, verdict
from sandbox.engine.engine import Engine
from sandbox.runstore.store import FINAL_STATES, Run, Store

TIMES_FASTER = 100.0
TASKS_A_SECOND = 60.0
FAN_OUT = 200
GOAL = (
    f"5 torch+pandas steps {TIMES_FASTER:g} times faster than kfp.local; 5 trivial ones faster than ZenML's and "
    f"Metaflow's; a fan-out of {FAN_OUT} at {TASKS_A_SECOND:g} tasks/s"
)
_PEERS = {"zenml": ("bench.peers.zenml_runner", ()), "metaflow": ("bench.peers.metaflow_runner", ("timed",))}
_DEADLINE_S = 900.0
_REST_S = 1.0


@dataclass(frozen=True)
class Taken:
    """Seconds of each round, and what came out in the end."""

    seconds: list[float]
    output: float

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Ours:
    """What was measured of our engine.

    Memory in MiB: each parent together with the workers it has forked ahead (PSS, shared pages counted in proportion),
    and what these have for themselves alone.
    """

    heavy: Taken
    trivial: Taken
    fan_out: Taken
    without_rest: Taken
    parents: dict[str, float]
    spares: dict[str, float]
    database_kib: float


async def ours(home: Path, rounds: int) -> Ours:
    """All of our engine's rounds, in this process, with the store and the workers that the sandbox has."""
    store = Store(home / "kfp" / "kfp.sqlite")
    engine = Engine(store, home)
    await engine.start()
    await asyncio.gather(*(parent.start() for parent in engine.parents.all()))
    try:
        taken = {}
        for name, times in (("heavy", rounds), ("trivial", rounds), ("fan-out", rounds)):
            spec = compiled(name, FAN_OUT)
            await _timed(engine, store, spec, home)
            taken[name] = await _rounds(engine, store, spec, home, times, _REST_S)
            if name == "heavy":
                without_rest = await _rounds(engine, store, spec, home, times, 0.0)
        await asyncio.sleep(_REST_S)
        parents, spares = {}, {}
        for name, parent in zip(("bare", "light", "torch"), engine.parents.all(), strict=True):
            process = psutil.Process(parent.pid)
            ahead = [child.memory_full_info() for child in process.children()]
            parents[name] = (process.memory_full_info().pss + sum(one.pss for one in ahead)) / 2**20
            spares[name] = sum(one.uss for one in ahead) / 2**20
    finally:
        await engine.stop()
        store.close()
    size = sum(path.stat().st_size for path in (home / "kfp").glob("kfp.sqlite*")) / 2**10
    return Ours(taken["heavy"], taken["trivial"], taken["fan-out"], without_rest, parents, spares, size)


async def _rounds(engine: Engine, store: Store, spec: dict[str, Any], home: Path, times: int, rest_s: float) -> Taken:
    found = []
    for _ in range(times):
        await asyncio.sleep(rest_s)
        found.append(await _timed(engine, store, spec, home))
    return Taken([seconds for seconds, _ in found], found[-1][1])


async def _timed(engine: Engine, store: Store, spec: dict[str, Any], home: Path) -> tuple[float, float]:
    """Seconds from submission to the stored end of a run, and the largest number that a step gave."""
    now = time.time()
    run = Run(str(uuid.uuid4()), "bench", "bench", spec, now, now, pipeline_root=str(home / "artifacts"))
    run = Run(**vars(run) | {"parameters": {"value": 0.0} if spec["root"].get("inputDefinitions") else {}})
    began = time.perf_counter()
    store.save_run(run)
    engine.submit(run.run_id)
    while (state := store.get_run(run.run_id).state) not in FINAL_STATES:
        await asyncio.sleep(0.005)
    took = time.perf_counter() - began
    if state != "SUCCEEDED":
        raise RuntimeError(f"{spec['pipelineInfo']['name']} is {state}: {store.get_run(run.run_id).error}")
    outputs = [task.outputs.get("parameters", {}).get("Output") for task in store.tasks(run.run_id)]
    return took, max(float(value) for value in outputs if value is not None)


def kfp_local(folder: Path) -> Taken:
    """The same five heavy steps by kfp.local's SubprocessRunner, in the environment that ours run in."""
    path = folder / "heavy.json"
    path.write_text(json.dumps(compiled("heavy")), encoding="utf-8")
    return _answer([sys.executable, "-P", "-m", "bench.peers.kfp_local_runner", str(path), str(folder / "local")], {})


def peer(name: str, rounds: int, folder: Path) -> Taken:
    """Five trivial steps by another orchestrator, in an environment of its own. Raises Unavailable."""
    commands = prepare(name, lambda text: print(text, file=sys.stderr, flush=True))
    module, words = _PEERS[name]
    quiet = {
        "ZENML_CONFIG_PATH": str(folder / "zenml"),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_LOGGING_VERBOSITY": "ERROR",
        "AUTO_OPEN_DASHBOARD": "false",
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder / "metaflow"),
        "METAFLOW_USER": "bench",
        "USER": "bench",
    }
    file = str(ROOT / "bench" / "peers" / f"{module.rpartition('.')[2]}.py")
    return _answer([str(commands / "python"), file, *words, str(rounds)], quiet)


def _answer(command: Sequence[str], environment: dict[str, str]) -> Taken:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_DEADLINE_S, env=os.environ | environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(str(error)) from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise Unavailable(f"it does not run: {lines[-1]}")
    told = json.loads(done.stdout.strip().splitlines()[-1])
    return Taken(told["seconds"], told["output"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and give 0 where the goal is reached."""
    parser = argparse.ArgumentParser(prog="bench.engine", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without", nargs="*", default=[], choices=[*_PEERS, "kfp.local"])
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="kanary-bench-") as name:
        folder = Path(name)
        own = asyncio.run(ours(folder / "home", given.rounds))
        others: dict[str, Taken] = {}
        skipped: dict[str, str] = {}
        if "kfp.local" not in given.without:
            others["kfp.local"] = kfp_local(folder)
        for one in _PEERS:
            try:
                if one not in given.without:
                    others[one] = peer(one, given.rounds, folder)
            except Unavailable as error:
                skipped[one] = str(error)
    return report(own, others, skipped)


def report(own: Ours, others: dict[str, Taken], skipped: dict[str, str]) -> int:
    """The table and the verdict. What came out must be the same everywhere, else nothing is compared."""
    expected = {"kfp.local": own.heavy.output, "zenml": own.trivial.output, "metaflow": own.trivial.output}
    assert own.heavy.output == own.trivial.output == float(STEPS)
    for name, taken in others.items():
        assert taken.output == expected[name], f"{name} gives {taken.output}, not {expected[name]}"
    rows = [
        ("5 steps, torch + pandas", "kanary", f"{own.heavy.median:.3f}", ""),
        ("5 trivial steps", "kanary", f"{own.trivial.median:.3f}", ""),
        ("5 steps, torch + pandas", "kanary, run after run", f"{own.without_rest.median:.3f}", ""),
    ]
    for name, taken in others.items():
        mine = own.heavy if name == "kfp.local" else own.trivial
        what = rows[0][0] if name == "kfp.local" else rows[1][0]
        rows.append((what, name, f"{taken.median:.3f}", f"{taken.median / mine.median:.1f} times ours"))
    rows += [("5 trivial steps", name, "", f"skipped: {why}") for name, why in skipped.items()]
    rate = FAN_OUT / own.fan_out.median
    rows.append((f"fan-out of {FAN_OUT}", "kanary", f"{own.fan_out.median:.3f}", f"{rate:.0f} tasks/s"))
    show("Seconds from submission to the stored end, warm (medians)", ("pipeline", "engine", "seconds", ""), rows)
    memory = ", ".join(f"{name} {size:.0f} MiB ({own.spares[name]:.0f})" for name, size in own.parents.items())
    print(f"\nwarm parents with spares (spares alone), PSS: {memory}; store: {own.database_kib:.0f} KiB", flush=True)
    figures = {
        "cores": len(os.sched_getaffinity(0)),
        "seconds": {"heavy": own.heavy.seconds, "trivial": own.trivial.seconds, "fan_out": own.fan_out.seconds},
        "without_rest": own.without_rest.seconds,
        "peers": {name: taken.seconds for name, taken in others.items()},
        "skipped": skipped,
        "tasks_per_second": round(rate, 1),
        "parents_pss_mib": {name: round(size) for name, size in own.parents.items()},
        "spares_uss_mib": {name: round(size) for name, size in own.spares.items()},
    }
    ratio = others["kfp.local"].median / own.heavy.median if "kfp.local" in others else None
    ok = rate >= TASKS_A_SECOND and (ratio is None or ratio >= TIMES_FASTER)
    ok = ok and all(others[name].median > own.trivial.median for name in _PEERS if name in others)
    return verdict("engine", figures, ratio, GOAL, ok)


if __name__ == "__main__":
    sys.exit(main())
