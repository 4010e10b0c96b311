"""Where steps run: environments of packages, containers, the imports an image allows, the causes of a worker's end."""

# ruff: noqa: I002 -- kfp reads the types of components and pipelines from live annotations
import functools
import json
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from sandbox.engine import containers, lightweight, packages
from sandbox.engine.placeholders import RunFacts, TaskFailed, words
from sandbox.errors import Unsupported
from tests.engine import steps

FACTS = RunFacts("r", "run", "p", "/artifacts", "then", "then", "/w", "t", "task")


def wheel(folder: Path, name: str, version: str, body: str) -> Path:
    """A package of one module."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", body)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def greeting(package: str) -> Any:
    """A pipeline of two steps that both ask for the package at that path."""

    @dsl.component(base_image="python:3.11", packages_to_install=[package])
    def greet(name: str) -> str:
        import os

        import kanary_greeting  # type: ignore[import-not-found]

        return f"{kanary_greeting.WORD} {name} {os.getppid()}"

    @dsl.pipeline(name="greeting")
    def pipeline() -> None:
        greet(name="a").set_caching_options(False)
        greet(name="b").set_caching_options(False)

    return pipeline


def test_packages_to_install_are_there_for_the_step_and_made_once(engine: Any, compiled: Any, tmp_path: Path) -> None:
    package = wheel(tmp_path, "kanary_greeting", "1.0", "WORD = 'hello'\n")
    outcome = engine.run(compiled(greeting(str(package))))
    assert outcome.run.state == "SUCCEEDED", outcome.run.error
    (one, two) = (value.split() for value in outcome.outputs().values())
    assert (one[0], two[0]) == ("hello", "hello")
    assert one[2] == two[2], "both were forked from the environment's one warm parent"
    logs = outcome.log("greet") + outcome.log("greet-2")
    assert logs.count("[sandbox] installing") == 1
    assert len(list((engine.home / "kfp" / "packages").glob("*/installed"))) >= 1


def test_two_sets_of_packages_do_not_see_each_other(engine: Any, compiled: Any, tmp_path: Path) -> None:
    for version, word in (("1.0", "old"), ("2.0", "new")):
        package = wheel(tmp_path, "kanary_greeting", version, f"WORD = {word!r}\n")
        outcome = engine.run(compiled(greeting(str(package))))
        assert outcome.outputs()["greet"].split()[0] == word, outcome.run.error


def test_packages_that_cannot_be_installed_fail_the_step_with_pips_reason(
    engine: Any, compiled: Any, tmp_path: Path
) -> None:
    missing = tmp_path / "kanary_greeting-9.9-py3-none-any.whl"
    outcome = engine.run(compiled(greeting(str(missing))))
    assert outcome.run.state == "FAILED"
    assert "cannot be installed" in outcome.run.error
    assert "kanary_greeting-9.9" in outcome.log("greet")


def test_a_step_with_packages_still_imports_nothing_else_that_its_image_lacks(
    engine: Any, compiled: Any, tmp_path: Path
) -> None:
    package = wheel(tmp_path, "kanary_greeting", "1.0", "WORD = 'hello'\n")

    @dsl.component(base_image="python:3.11", packages_to_install=[str(package)])
    def wants_torch() -> None:
        import kanary_greeting  # noqa: F401
        import torch  # noqa: F401

    @dsl.pipeline(name="wants")
    def pipeline() -> None:
        wants_torch()

    assert "No module named 'torch' in the image python:3.11" in engine.run(compiled(pipeline)).run.error


INDEXES = ["https://a/simple", "https://b/simple"]


@pytest.mark.parametrize(
    ("keywords", "found", "options"),
    [
        ({}, (), set()),
        ({"packages_to_install": ["numpy==1.26.4", "p[x]>=2,<3"]}, ("numpy==1.26.4", "p[x]>=2,<3"), set()),
        (
            {"packages_to_install": ["six"], "pip_index_urls": INDEXES},
            ("six",),
            {("--index-url", INDEXES[0]), ("--extra-index-url", INDEXES[1])},
        ),
        ({"packages_to_install": ["kfp-kubernetes"]}, ("kfp-kubernetes",), set()),
        ({"packages_to_install": ["x; python_version<'3.9'"], "use_venv": True}, ("x; python_version<'3.9'",), set()),
    ],
)
def test_what_is_to_be_installed_is_read_from_the_command(
    compiled: Any, keywords: dict[str, Any], found: tuple[str, ...], options: set[tuple[str, str]]
) -> None:
    @dsl.component(base_image="python:3.11", **keywords)
    def step() -> None:
        pass

    @dsl.pipeline(name="packages")
    def pipeline() -> None:
        step()

    container = compiled(pipeline)["deploymentSpec"]["executors"]["exec-step"]["container"]
    assert lightweight.is_lightweight(container, "here")
    read = lightweight.read(container, "here")
    assert read.packages == found
    pairs = zip(read.pip_options[::2], read.pip_options[1::2], strict=True)
    assert {pair for pair in pairs if pair[0] != "--trusted-host"} == options


def test_the_order_of_packages_does_not_make_another_environment() -> None:
    key = packages.key_of(["a", "b"], ["--pre"])
    assert key == packages.key_of(["b", "a"], ["--pre"])
    assert key != packages.key_of(["b", "a"], [])


@dsl.container_component
def shell(value: str, out: dsl.OutputPath(str), data: dsl.Output[dsl.Dataset], extra: str = None):  # type: ignore[no-untyped-def,valid-type,assignment]  # noqa: RUF013
    return dsl.ContainerSpec(
        image="example/shell:1",
        command=["sh", "-c", 'mkdir -p "$(dirname "$3")"; printf "%s" "$1 $2 $COLOUR" > "$4"; echo "$5" > "$3"', "sh"],
        args=[
            value,
            dsl.IfPresentPlaceholder("extra", then=["with", extra], else_=["without"]),
            data.path,
            out,
            dsl.ConcatPlaceholder(["<", value, ">"]),
        ],
    )


PODMAN = """#!{python}
import json, os, sys, time
arguments = sys.argv[1:]
if arguments[0] == "info":
    sys.exit(0)
pids = os.path.join({folder!r}, arguments[-1] + ".pid")
if arguments[0] == "rm":
    if os.path.exists(pids):
        os.kill(int(open(pids).read()), 9)
    sys.exit(0)
rest, seen = iter(arguments[1:]), {{"volumes": [], "env": {{}}}}
entry, name = [], ""
for word in rest:
    if word == "--rm":
        continue
    if not word.startswith("--"):
        break
    value = next(rest)
    if word == "--volume":
        seen["volumes"].append(value)
    if word == "--env":
        key, _, text = value.partition("=")
        os.environ[key] = text
    if word == "--entrypoint":
        entry = [value]
    if word == "--name":
        name = value
seen["image"], command = word, [*entry, *rest]
with open(os.path.join({folder!r}, "seen"), "w") as file:
    json.dump(seen | {{"command": command}}, file)
with open(os.path.join({folder!r}, name + ".pid"), "w") as file:
    file.write(str(os.getpid()))
os.execvp(command[0], command)
"""


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name that runs a container's command here and writes down what it was asked for."""
    import sys

    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "podman"
    program.write_text(PODMAN.format(python=sys.executable, folder=str(folder)), encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_a_container_component_is_run_with_its_placeholders_filled_in(engine: Any, compiled: Any, podman: Path) -> None:
    @dsl.pipeline(name="containers")
    def pipeline(value: str) -> None:
        made = shell(value=value).set_env_variable("COLOUR", "green")
        steps.text(value=made.outputs["out"])
        steps.read(data=made.outputs["data"])

    outcome = engine.run(compiled(pipeline), value="it's 1")
    assert outcome.run.state == "SUCCEEDED", outcome.run.error
    assert outcome.outputs()["text"] == "it's 1 without green"
    assert outcome.outputs()["read"].strip() != ""
    seen = json.loads((podman / "seen").read_text())
    assert seen["image"] == "example/shell:1"
    assert seen["command"][-1] == "<it's 1>"
    run = engine.engine.folder / outcome.run.run_id
    assert any(volume.startswith(str(run)) for volume in seen["volumes"])


@pytest.mark.parametrize(
    ("script", "cause"),
    [("exit 3", "exit status 3"), ("exit 137", "signal 9"), ("exit 127", "its command was not found")],
)
def test_how_a_container_ended_is_told(engine: Any, compiled: Any, podman: Path, script: str, cause: str) -> None:
    @dsl.container_component
    def fails():  # type: ignore[no-untyped-def]
        return dsl.ContainerSpec(image="example/shell:1", command=["sh", "-c", script])

    @dsl.pipeline(name="container-fails")
    def pipeline() -> None:
        fails()

    outcome = engine.run(compiled(pipeline))
    assert outcome.run.state == "FAILED"
    assert cause in outcome.run.error


def test_a_container_ends_with_its_run(engine: Any, compiled: Any, podman: Path, tmp_path: Path) -> None:
    @dsl.container_component
    def sleeps(path: str):  # type: ignore[no-untyped-def]
        return dsl.ContainerSpec(image="i", command=["sh", "-c", 'touch "$0.began"; exec sleep 300'], args=[path])

    @dsl.pipeline(name="container-sleeps")
    def pipeline(path: str) -> None:
        sleeps(path=path)

    run_id = engine.submit(compiled(pipeline), path=str(tmp_path / "it"))
    engine.until(run_id, lambda _: (tmp_path / "it.began").exists())
    engine.call(engine.engine.terminate(run_id))
    assert engine.finish(run_id).states() == {"sleeps": "CANCELED"}


def test_a_container_component_is_refused_where_nothing_runs_it(
    engine: Any, compiled: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @dsl.pipeline(name="no-containers")
    def pipeline() -> None:
        shell(value="x")

    spec = compiled(pipeline)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported) as caught:
        engine.submit(spec)
    assert "neither podman nor docker answers" in caught.value.message
    assert caught.value.where == "deploymentSpec.executors.exec-shell"


def test_the_command_line_names_mounts_environment_and_entry_point(tmp_path: Path) -> None:
    order = containers.Order("n", "image:1", ["sh", "-c", "x"], ["a"], {"K": "v"}, [tmp_path], tmp_path / "log")
    line = containers.command_line("/usr/bin/podman", order)
    assert line[-6:] == ["--entrypoint", "sh", "image:1", "-c", "x", "a"]
    assert f"{tmp_path}:{tmp_path}" in line
    assert "--user" not in line
    assert "--user" in containers.command_line("/usr/bin/docker", order)


def entered(**parameters: Any) -> dict[str, Any]:
    artifact = {"name": "d", "uri": "/u/d", "metadata": {"k": 1}}
    return {
        "inputs": {"parameterValues": parameters, "artifacts": {"d": {"artifacts": [artifact]}}},
        "outputs": {
            "parameters": {"o": {"outputFile": "/f/o"}},
            "artifacts": {"m": {"artifacts": [{"name": "m", "uri": "/u/m", "metadata": {}}]}},
            "outputFile": "/f/executor_output.json",
        },
    }


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--n={{$.inputs.parameters['n']}}", ["--n=3"]),
        ("{{$.inputs.parameters['list']}}", ["[1,2]"]),
        ("{{$.inputs.parameters['flag']}}", ["true"]),
        ("{{$.inputs.artifacts['d'].path}} {{$.inputs.artifacts['d'].uri}}", ["/u/d /u/d"]),
        ("{{$.inputs.artifacts['d'].metadata}}", ['{"k": 1}']),
        ("{{$.inputs.artifacts['d'].metadata['k']}}", ["1"]),
        ("{{$.outputs.parameters['o'].output_file}}", ["/f/o"]),
        ("{{$.outputs.artifacts['m'].path}}", ["/u/m"]),
        ("{{$.outputs.output_file}}", ["/f/executor_output.json"]),
        ("{{$.pipeline_job_uuid}}", ["r"]),
        ('{"IfPresent": {"InputName": "n", "Then": ["--n", "{{$.inputs.parameters[\'n\']}}"]}}', ["--n", "3"]),
        ('{"IfPresent": {"InputName": "absent", "Then": ["--n"]}}', []),
        ('{"IfPresent": {"InputName": "default", "Then": "given", "Else": "not given"}}', ["not given"]),
        ('{"Concat": ["a=", {"IfPresent": {"InputName": "n", "Then": "{{$.inputs.parameters[\'n\']}}"}}]}', ["a=3"]),
        ("{{$.inputs.parameters['default']}}", ["d"]),
        ('{"json": "of the user"}', ['{"json": "of the user"}']),
    ],
)
def test_placeholders_of_a_command_are_filled_in(word: str, expected: list[str]) -> None:
    given = entered(n=3, list=[1, 2], flag=True, default="d")
    assert words([word], given, frozenset({"default"}), FACTS) == expected


def test_a_placeholder_that_nobody_knows_is_never_left_standing() -> None:
    fill_in = functools.partial(words, entered=entered(), defaulted=frozenset(), facts=FACTS)
    for word in ("{{$.unknown}}", "{{$.inputs.parameters['x']}}", "{{$.outputs.artifacts['x'].path}}"):
        with pytest.raises(TaskFailed, match="unknown placeholder"):
            fill_in([word])


def test_a_worker_that_runs_out_of_memory_says_so(engine: Any, compiled: Any) -> None:
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def greedy() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
        print("filling", flush=True)
        bytearray(2**34)

    @dsl.pipeline(name="greedy")
    def pipeline() -> None:
        greedy()

    outcome = engine.run(compiled(pipeline))
    assert "MemoryError" in outcome.run.error
    assert "filling" in outcome.log("greedy")


def test_everything_written_before_a_crash_is_in_the_log(engine: Any, compiled: Any) -> None:
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def crashes() -> None:
        import ctypes
        import sys

        for number in range(1000):
            print("line", number)
        print("the last word", file=sys.stderr)
        ctypes.string_at(0)

    @dsl.pipeline(name="crashes")
    def pipeline() -> None:
        crashes()

    outcome = engine.run(compiled(pipeline))
    assert "SIGSEGV" in outcome.run.error
    assert "line 999" in outcome.log("crashes")
    assert "the last word" in outcome.log("crashes")
