"""Container components by a real podman (or docker), with an image made here of a static busybox; none is fetched."""

# ruff: noqa: I002 -- kfp reads the types of components and pipelines from live annotations
import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from sandbox.engine import containers

IMAGE = "localhost/kanary-test/busybox:1"
SECONDS = 240.0  # a runtime takes a second or two where nothing else runs, and half a minute where much does
pytestmark = pytest.mark.timeout(600)


def run(*command: str, given: bytes = b"") -> str:
    """Skips the test, with the reason, where the command fails."""
    done = subprocess.run(command, input=given, capture_output=True, timeout=120)
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"no container can be run here: {' '.join(command[:3])}: {last}")
    return done.stdout.decode(errors="replace")


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    program, busybox = containers.runtime(), shutil.which("busybox")
    if program is None:
        pytest.skip("neither podman nor docker answers here")
    if busybox is None or b"/ld-linux" in Path(busybox).read_bytes():
        pytest.skip("no static busybox to make an image of (apt-get install busybox-static)")
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name in ("busybox", "sh", "cat", "tr", "sleep"):
            archive.add(busybox, f"bin/{name}")
    run(program, "import", "-", IMAGE, given=layer.getvalue())
    run(program, "run", "--rm", "--network", "host", IMAGE, "/bin/busybox", "true")
    yield IMAGE
    subprocess.run([program, "rmi", "--force", IMAGE], capture_output=True, timeout=60)


@dsl.container_component
def shouted(value: str, out: dsl.OutputPath(str), data: dsl.Output[dsl.Dataset]):  # type: ignore[no-untyped-def,valid-type]
    script = (
        'echo "hears $0"; echo "to stderr, $MOOD" >&2; echo "$0" | tr a-z A-Z > "$1"; echo "rows of $0" > "$2";'
        ' printf "no line at the end"'
    )
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", script], args=[value, out, data.path])


@dsl.container_component
def read(data: dsl.Input[dsl.Dataset], number: int, out: dsl.OutputPath(int)):  # type: ignore[no-untyped-def,valid-type]
    script = 'cat "$0"; echo $(($1 + 1)) > "$2"'
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", script], args=[data.path, number, out])


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def together(text: str, number: int, data: dsl.Input[dsl.Dataset]) -> str:
    with open(data.path) as file:
        return f"{text.strip()} {number} {file.read().strip()}"


def test_parameters_and_artifacts_go_into_a_container_and_come_out(
    engine: Any, compiled: Callable[[Any], dict[str, Any]], image: str
) -> None:
    @dsl.pipeline(name="real-containers")
    def pipeline(value: str = "a $(quoted) 'word'") -> None:
        first = shouted(value=value).set_env_variable("MOOD", "calm").set_caching_options(False)
        second = read(data=first.outputs["data"], number=41).set_caching_options(False)
        together(text=first.outputs["out"], number=second.outputs["out"], data=first.outputs["data"])

    outcome = engine.finish(engine.submit(compiled(pipeline)), SECONDS)
    assert outcome.run.state == "SUCCEEDED", outcome.run.error
    assert outcome.output("together") == "A $(QUOTED) 'WORD' 42 rows of a $(quoted) 'word'"
    log = outcome.log("shouted")
    assert "hears a $(quoted) 'word'\n" in log
    assert "to stderr, calm\n" in log
    assert log.endswith("no line at the end")
    assert outcome.log("read").endswith("rows of a $(quoted) 'word'\n")


def test_a_container_that_fails_tells_its_exit_status_and_its_log_is_whole(
    engine: Any, compiled: Callable[[Any], dict[str, Any]], image: str
) -> None:
    @dsl.container_component
    def fails():  # type: ignore[no-untyped-def]
        return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", "echo last words; exit 7"])

    @dsl.pipeline(name="real-container-fails")
    def pipeline() -> None:
        fails()

    outcome = engine.finish(engine.submit(compiled(pipeline)), SECONDS)
    assert (outcome.run.state, outcome.tasks["fails"].state) == ("FAILED", "FAILED")
    assert "exit status 7" in outcome.tasks["fails"].error
    assert "last words\n" in outcome.log("fails")


def test_an_image_that_is_not_there_fails_its_step_and_is_named(
    engine: Any, compiled: Callable[[Any], dict[str, Any]], image: str
) -> None:
    @dsl.container_component
    def nowhere():  # type: ignore[no-untyped-def]
        return dsl.ContainerSpec(image="localhost/kanary-test/nosuch:1", command=["sh"])

    @dsl.pipeline(name="real-container-nowhere")
    def pipeline() -> None:
        nowhere()

    outcome = engine.finish(engine.submit(compiled(pipeline)), SECONDS)
    assert outcome.run.state == "FAILED"
    assert "nosuch" in outcome.tasks["nowhere"].error + outcome.log("nowhere")


@dsl.container_component
def sleeps():  # type: ignore[no-untyped-def]
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", "echo asleep; sleep 600"])


@dsl.pipeline(name="real-container-sleeps")
def sleeping() -> None:
    sleeps()


@pytest.mark.parametrize(("killed", "state"), [(True, "FAILED"), (False, "CANCELED")])
def test_a_container_that_is_killed_says_so_and_one_of_a_terminated_run_goes_with_it(
    engine: Any, compiled: Callable[[Any], dict[str, Any]], image: str, killed: bool, state: str
) -> None:
    program = containers.runtime()
    assert program is not None
    run_id = engine.submit(compiled(sleeping))
    outcome = engine.until(run_id, lambda outcome: "sleeps" in outcome.tasks and _logged(outcome, "asleep"), SECONDS)
    name = f"kanary-{outcome.tasks['sleeps'].task_id}"
    if killed:
        run(program, "kill", "--signal", "KILL", name)
    else:
        engine.call(engine.engine.terminate(run_id))
    outcome = engine.finish(run_id, SECONDS)
    assert outcome.run.state == state
    assert not killed or "killed by signal 9" in outcome.tasks["sleeps"].error
    assert name not in run(program, "ps", "--all", "--format", "{{.Names}}")


def _logged(outcome: Any, text: str) -> bool:
    path = outcome.engine.log_path(outcome.run.run_id, outcome.tasks["sleeps"].task_id)
    return path.exists() and text in path.read_text(encoding="utf-8")
