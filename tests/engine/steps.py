"""Small components that the pipelines of these tests are made of."""

# ruff: noqa: I002 -- kfp reads the types of components from live annotations
import functools
from typing import NamedTuple

from kfp import dsl

component = functools.partial(dsl.component, base_image="python:3.11", install_kfp_package=False)


@component
def text(value: str) -> str:
    return value


@component
def number(value: int) -> int:
    return value


@component
def real(value: float) -> float:
    return value


@component
def truth(value: bool) -> bool:
    return value


@component
def listed(value: list) -> list:  # type: ignore[type-arg]
    return value


@component
def mapped(value: dict) -> dict:  # type: ignore[type-arg]
    return value


@component
def kind_of(value: dict) -> str:  # type: ignore[type-arg]
    return ",".join(f"{name}:{type(item).__name__}" for name, item in sorted(value.items()))


@component
def double(value: int) -> int:
    return 2 * value


@component
def total(values: list) -> int:  # type: ignore[type-arg]
    return sum(values)


@component
def joined(values: list) -> str:  # type: ignore[type-arg]
    return ",".join(str(value) for value in values)


@component
def several() -> NamedTuple("Several", [("good", bool), ("score", float), ("name", str)]):  # type: ignore[valid-type]
    return (True, 0.75, 'it\'s "quoted"')


@component
def defaulted(value: str = "the default", count: int = 3) -> str:
    return f"{value} {count}"


@component
def fallback(value: str = "the default") -> str:
    return value


@component
def optional(value: str = None) -> str:  # type: ignore[assignment]  # noqa: RUF013
    return "nothing" if value is None else value


@component
def boom(message: str = "boom") -> str:
    raise ValueError(message)


@component
def fails_if(value: int, bad: int) -> int:
    assert value != bad, f"{value} is bad"
    return value


@component
def status_of(status: dsl.PipelineTaskFinalStatus) -> dict:  # type: ignore[type-arg]
    return {
        "state": status.state,
        "task": status.pipeline_task_name,
        "job": status.pipeline_job_resource_name,
        "error": status.error_message or "",
    }


@component
def write(value: str, data: dsl.Output[dsl.Dataset]) -> None:
    with open(data.path, "w") as file:
        file.write(value)
    data.metadata["letters"] = len(value)


@component
def read(data: dsl.Input[dsl.Dataset]) -> str:
    with open(data.path) as file:
        return file.read()


@component
def read_all(data: dsl.Input[list[dsl.Dataset]]) -> str:
    found = []
    for one in data or []:
        with open(one.path) as file:
            found.append(file.read())
    return ",".join(found)


@component
def read_maybe(data: dsl.Input[dsl.Dataset] = None) -> str:
    return "nothing" if data is None else open(data.path).read()


@component
def described(data: dsl.Input[dsl.Artifact]) -> dict:  # type: ignore[type-arg]
    return {"uri": data.uri, "metadata": data.metadata, "type": type(data).__name__}


@component
def measured(metrics: dsl.Output[dsl.Metrics]) -> None:
    metrics.log_metric("accuracy", 0.9)


@component
def environment(name: str) -> str:
    import os

    return os.environ.get(name, "")


@component
def count_in(path: str, fail_until: int = 0) -> int:
    with open(path, "a+") as file:
        file.write("x")
        file.seek(0)
        runs = len(file.read())
    assert runs > fail_until, f"attempt {runs} fails"
    return runs


@component
def wait_for(path: str, seconds: float = 60.0) -> str:
    import os
    import time

    with open(path + ".began", "a") as file:
        file.write("x")
    deadline = time.time() + seconds
    while not os.path.exists(path) and time.time() < deadline:
        time.sleep(0.01)
    return "waited"
