"""`python -P -m bench.rollback`: how long after the patch has left a canary still answers, under load; who fails.

Three ways to the same end in the same run: `kanary.kserve`'s rollback, its weight flips, and `kubectl patch`; in
KServe's Knative mode, or with `--mode Standard`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from bench.load import COMMAND
from bench.report import show, spread, verdict
from components.deploy.deployment import Target, deploy
from kanary import kubernetes, manifests
from kanary.errors import ApiError
from kanary.kserve import rollback, steer
from kanary.kubernetes import Act
from tests.rollout.rig import BODIES, NAMESPACE, Model, Service, make_release, sandbox
from tests.waiting import wait_for

T = TypeVar("T")
NAME = "bench"
GOAL_MS = 50.0
RATE = 400.0  # requests a second: half of them the canary's, one each 5 ms
GOAL = "rollback: median under 50 ms from the patch to the last canary request, 0 requests failed"
_SETTLED = 60  # so many answers after the change, none of them the canary's: it is over


@dataclass(frozen=True)
class Answer:
    """One request: when it was sent and answered (seconds since the epoch), its status, who answered."""

    sent: float
    answered: float
    status: str
    revision: str


@dataclass
class Load:
    """Requests from a process of their own, and their answers as they come in."""

    process: subprocess.Popen[str]
    answers: list[Answer] = field(default_factory=list)

    def read(self) -> None:
        """Collect until the process ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            sent, answered, status, revision = line.split()
            self.answers.append(Answer(float(sent), float(answered), status, revision))

    def wait_for(self, revision: str, count: int = 10) -> None:
        """Wait until `revision` answers again, `count` times."""
        known = len(self.answers)
        wait_for(lambda: sum(a.revision == revision for a in self.answers[known:]) >= count, f"{revision} answers", 30)

    def last_of(self, revision: str, since: float) -> float:
        """Milliseconds from `since` to the last request that `revision` answered, once none comes any more."""

        def over() -> bool:
            newest = self.answers[-_SETTLED:]
            return newest[0].sent > since and all(answer.revision != revision for answer in newest)

        wait_for(over, f"{revision} answers no more", 30)
        last = max(answer.answered for answer in self.answers[-2000:] if answer.revision == revision)
        return max(0.0, (last - since) * 1000)

    @property
    def failed(self) -> int:
        return sum(answer.status != "200" for answer in self.answers)


@contextlib.contextmanager
def load(service: Service, rate: float) -> Iterator[Load]:
    """Load on the service for as long as the block lasts."""
    command = [*COMMAND, service.url, str(rate), BODIES[0].decode()]
    environment = service.sandbox.environment()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    running = Load(process)
    reader = threading.Thread(target=running.read, name="load")
    reader.start()
    try:
        yield running
    finally:
        assert process.stdin is not None
        process.stdin.close()
        reader.join(30)
        if process.wait(10):
            raise RuntimeError("the load ended with an error")


@dataclass(frozen=True)
class Bench:
    """A service under load, and the API to steer it by."""

    service: Service
    api: kubernetes.Kubernetes
    load: Load

    def deploy(self, model: Model) -> str:
        """The model's revision, as a canary that answers half of the requests."""
        with contextlib.redirect_stdout(io.StringIO()):
            target = Target(self.service.name, NAMESPACE, 50, 60.0)
            revision = deploy(model.path, model.uri, model.digest, target).revision
        self.load.wait_for(revision)
        return revision


def rollbacks(bench: Bench, models: Sequence[Model]) -> tuple[list[float], list[float]]:
    """Whole rollbacks, one of each model: ms from the patch to the last canary answer, and to the content restored."""
    last, restored = [], []
    for number, model in enumerate(models, 1):
        canary = bench.deploy(model)
        done = bench.api.call(rollback.rollback(NAME, NAMESPACE, "benchmark"))
        if done.outcome != "done" or done.sent is None or done.restored is None:
            raise RuntimeError(f"the rollback is {done.outcome}: {done.why}")
        last.append(bench.load.last_of(canary, datetime.fromisoformat(done.started).timestamp() + done.sent))
        restored.append((done.restored - done.sent) * 1000)
        status = bench.service.status()
        if status.requested is not None or status.split != {status.created: 100}:
            raise RuntimeError(f"the rollback left {status}")
        progress("rollback", number, len(models), last[-1])
    return last, restored


def flips(bench: Bench, canary: str, runs: int) -> list[float]:
    """Weight flips, 50 % to 0 and back, `runs` in all: ms from each patch to 0 to the last canary answer."""
    last = []
    for number in range(2, runs + 1, 2):
        left: list[float] = []
        bench.api.call(noting_patches(steer.set_traffic(NAME, NAMESPACE, 0), left))
        last.append(bench.load.last_of(canary, left[-1]))
        bench.api.call(steer.set_traffic(NAME, NAMESPACE, 50))
        bench.load.wait_for(canary)
        if number % 10 == 0:
            progress("flips", number, runs, last[-1])
    return last


def share_patch(bench: Bench, percent: int) -> str:
    """What an operator would give to kubectl for that share of the canary."""
    service = bench.service.document()
    if manifests.canary(service) is None:
        return json.dumps({"spec": {"predictor": {manifests.PERCENT: percent}}})
    return json.dumps({"spec": {"canary": manifests.with_percent(service, percent)}})


def kubectl_patches(bench: Bench, canary: str, runs: int) -> list[float]:
    """The same flips by `kubectl patch`."""
    environment = bench.service.sandbox.environment() | {"KUBECONFIG": str(bench.service.sandbox.kubeconfig)}
    last = []
    for number in range(1, runs + 1):
        for percent in (0, 50):
            patch = share_patch(bench, percent)
            command = ["kubectl", "patch", "isvc", NAME, "-n", NAMESPACE, "--type", "merge", "-p", patch, "-v=6"]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60)
            if percent == 0:
                last.append(bench.load.last_of(canary, patch_left(done.stderr)))
        bench.load.wait_for(canary)
        progress("kubectl patch", number, runs, last[-1])
    return last


def noting_patches(act: Act[T], left: list[float]) -> Act[T]:
    """The act itself; notes in `left` when each of its patches left (seconds since the epoch)."""
    step = next(act)
    try:
        while True:
            if isinstance(step, kubernetes.Together) and any(asked.method == "PATCH" for asked in step.requests):
                left.append(time.time())
            try:
                answer = yield step
            except ApiError as error:
                step = act.throw(error)
            else:
                step = act.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result


def patch_left(log: str) -> float:
    """When kubectl's patch left, from its log: the time of the line less the milliseconds that it names."""
    line = next(line for line in log.splitlines() if "PATCH" in line)
    stamp = re.match(r"I(\d{4} \d\d:\d\d:\d\d\.\d+)", line)
    took = re.search(r"in (\d+) milliseconds|milliseconds=(\d+)", line)
    if stamp is None or took is None:
        raise RuntimeError(f"kubectl's log has changed: {line}")
    answered = datetime.strptime(f"{datetime.now().year}{stamp[1]}", "%Y%m%d %H:%M:%S.%f").timestamp()
    return answered - int(took[1] or took[2]) / 1000


def progress(what: str, number: int, runs: int, milliseconds: float) -> None:
    print(f"{what} {number}/{runs}: last canary answer {milliseconds:.1f} ms after the patch", flush=True)


def measure(home: Path, runs: int, flip_count: int, mode: str) -> int:
    """Runs all of it in a sandbox of its own; gives the exit code."""
    print("training the models", flush=True)
    stable, other, *canaries = (make_release(home / "releases", f"v{seed}", seed) for seed in range(1, runs + 3))
    with sandbox(home / "home") as running, running.api() as api, in_home(running.home):
        service = Service(running, NAME)
        with contextlib.redirect_stdout(io.StringIO()):
            deploy(stable.path, stable.uri, stable.digest, Target(NAME, NAMESPACE, mode=mode))
        with load(service, RATE) as under_way:
            bench = Bench(service, api, under_way)
            last, restored = rollbacks(bench, canaries)
            failed = {"rollback": under_way.failed}
            canary = bench.deploy(other)
            flipped = flips(bench, canary, flip_count)
            failed["flips"] = under_way.failed - failed["rollback"]
            patched = kubectl_patches(bench, canary, max(3, runs // 3)) if shutil.which("kubectl") else []
            failed["kubectl"] = under_way.failed - sum(failed.values())
    return tell(last, restored, flipped, patched, failed, under_way)


def tell(
    last: list[float],
    restored: list[float],
    flipped: list[float],
    patched: list[float],
    failed: dict[str, int],
    load: Load,
) -> int:
    """Prints the table and the last line."""
    measured = {"rollback": last, "weight flip": flipped, "kubectl patch": patched, "content restored": restored}
    figures = {f"{name.replace(' ', '_')}_ms": spread(values) for name, values in measured.items() if values}
    rows = [(name, *(str(value) for value in spread(values).values())) for name, values in measured.items() if values]
    show(f"From the patch to the last canary answer, {RATE:g} requests/s", ("", "MEDIAN ms", "MAX ms", "RUNS"), rows)
    if not patched:
        print("kubectl patch: skipped, there is no kubectl on PATH")
    print(f"requests {len(load.answers)}, failed {failed}, by status {dict(Counter(a.status for a in load.answers))}")
    ours = figures["rollback_ms"]["median"]
    ratio = figures["kubectl_patch_ms"]["median"] / ours if patched and ours else None
    ok = ours < GOAL_MS and load.failed == 0
    facts = figures | {"requests": len(load.answers), "failed": failed}
    return verdict("rollback", facts, ratio, GOAL, ok)


@contextlib.contextmanager
def in_home(home: Path) -> Iterator[None]:
    """What this process deploys goes to the sandbox in `home`."""
    before = dict(os.environ)
    os.environ["KANARY_HOME"] = str(home)
    os.environ.pop("KUBECONFIG", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def main() -> int:
    """Run it; 0 where the goal is met."""
    parser = argparse.ArgumentParser(prog="python -P -m bench.rollback", description=__doc__)
    parser.add_argument("--runs", type=int, default=30, help="rollbacks (default: 30)")
    parser.add_argument("--flips", type=int, default=100, help="weight flips (default: 100)")
    parser.add_argument(
        "--mode", choices=(manifests.KNATIVE, manifests.STANDARD), default=manifests.KNATIVE, help="KServe's mode"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kanary-bench-") as folder:
        return measure(Path(folder), given.runs, given.flips, given.mode)


if __name__ == "__main__":
    sys.exit(main())
