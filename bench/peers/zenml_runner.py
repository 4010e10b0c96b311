"""Five trivial steps as a ZenML pipeline on its local orchestrator, in a warm process; prints JSON with the seconds."""

# ruff: noqa: I002 -- zenml reads the types of steps from live annotations
import json
import sys
import time

from zenml import pipeline, step


@step(enable_cache=False)  # type: ignore[untyped-decorator]
def add(value: float) -> float:
    return value + 1.0


@pipeline(enable_cache=False)  # type: ignore[untyped-decorator]
def trivial() -> None:
    """The same five additions."""
    value = add(0.0)
    for _ in range(4):
        value = add(value)


def main() -> None:
    """The argument is how many times it is timed; once before that it is run to warm up."""
    seconds = []
    for _ in range(int(sys.argv[1]) + 1):
        began = time.perf_counter()
        run = trivial()
        seconds.append(time.perf_counter() - began)
    last = max(step.output.load() for step in run.steps.values())
    print(json.dumps({"seconds": seconds[1:], "output": last}))


if __name__ == "__main__":
    main()
