from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kanary import __version__, cli
from kanary.cli import VERBS, main, parser, resolve
from kanary.settings import SETTINGS
from tests.core.fake_kfp import FakeKfp, run_json, serving, task_json

ROOT = Path(__file__).parents[2]
RUN = "11111111-0000-4000-8000-000000000000"
SPEC = """
pipelineInfo: {name: train}
root:
  inputDefinitions:
    parameters:
      uri: {parameterType: STRING}
      epochs: {parameterType: NUMBER_INTEGER, defaultValue: 3.0, isOptional: true}
"""


@pytest.fixture
def fake() -> Iterator[FakeKfp]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but those a test gives."""
    for setting in SETTINGS:
        monkeypatch.delenv(setting.environment, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def kanary(fake: FakeKfp, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs one command line against the fake server: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--endpoint", fake.url])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def program(*arguments: str, **more: Any) -> subprocess.Popen[str]:
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-P", *arguments], env=environ, text=True,
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more),
    )  # fmt: skip


# ---- the command itself


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_resolves_and_documents_itself_and_its_options(verb: str) -> None:
    command = resolve(verb)
    made, action = parser(verb, command)
    assert callable(action)
    assert VERBS[verb].help
    assert re.match(r"[A-Z].*\.", inspect.getdoc(command) or "", re.DOTALL), "the docstring is the help"
    for option in made._actions:
        assert option.help, f"{verb} {option.option_strings or option.dest} has no help"
    assert f"kanary {verb}" in made.format_help()


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    for verb, entry in VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(entry.help)}$", text, re.MULTILINE)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"kanary {__version__}\n"


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_load_nothing_but_the_standard_library(argument: str) -> None:
    script = f"""
import sys
before = set(sys.modules)
from kanary.cli import main
try:
    main([{argument!r}])
except SystemExit:
    pass
names = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(sorted(names - set(sys.stdlib_module_names)), file=sys.stderr)
"""
    child = program("-c", script)
    _, loaded = child.communicate(timeout=120)
    assert loaded.strip() == "['kanary']"


def test_a_mistyped_verb_gets_a_suggestion(kanary: Callable[..., tuple[int, str, str]]) -> None:
    code, _, said = kanary("rnus")
    assert code == 2
    assert "Did you mean runs?" in said


def test_an_unknown_option_is_wrong_use(kanary: Callable[..., tuple[int, str, str]]) -> None:
    with pytest.raises(SystemExit, match="2"):
        kanary("runs", "--everything")


def test_settings_may_stand_before_and_after_the_verb(fake: FakeKfp, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--endpoint", fake.url, "runs"]) == 0
    assert main(["runs", "--endpoint", fake.url]) == 0
    # The nearer one counts.
    assert main(["--endpoint", "http://127.0.0.1:1", "runs", "--endpoint", fake.url]) == 0
    assert capsys.readouterr().err == ""


def test_an_expected_error_is_message_and_hint_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--endpoint", "http://127.0.0.1:1"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(
        r"kanary: Kubeflow Pipelines at http://127\.0\.0\.1:1 cannot be reached: .*\n  The address is .*\n", said.err
    )


def test_a_bad_setting_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--timeout", "soon"]) == 2
    assert "timeout = 'soon' (from flag --timeout)" in capsys.readouterr().err


def test_a_missing_extra_says_the_pip_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert main(["up"]) == 1
    assert 'pip install "kanary[sandbox]"' in capsys.readouterr().err


def test_a_package_that_a_verb_misses_when_it_runs_says_the_pip_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def needs(parser: argparse.ArgumentParser) -> Callable[..., int]:
        return lambda given, config: bool(__import__("no_such_package.part"))

    monkeypatch.setitem(globals(), "needs", needs)
    monkeypatch.setitem(sys.modules, "a_verb_of_this_test", sys.modules[__name__])
    monkeypatch.setitem(VERBS, "needs", cli.Verb("a_verb_of_this_test:needs", "x", "train"))
    assert main(["needs"]) == 1
    said = capsys.readouterr().err
    assert "needs no_such_package" in said
    assert 'pip install "kanary[train]"' in said


def test_an_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERBS, "broken", cli.Verb("kanary.cli:no_such_function", "x"))
    with pytest.raises(AttributeError):
        main(["broken"])
    monkeypatch.setitem(VERBS, "gone", cli.Verb("kanary.no_such_module:x", "x", "sandbox"))
    with pytest.raises(ModuleNotFoundError):
        main(["gone"])


def test_a_closed_pipe_is_no_error(fake: FakeKfp) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    fake.runs = [run_json(RUN)]
    child = program("-m", "kanary", "runs", "--endpoint", fake.url, stdout=writing)
    _, said = child.communicate(timeout=120)
    assert (child.returncode, said) == (141, "")
    os.close(writing)


def test_interrupting_is_130_without_a_traceback(fake: FakeKfp) -> None:
    fake.runs = [run_json(RUN, state="RUNNING")]
    child = program("-m", "kanary", "run", RUN, "--watch", "--endpoint", fake.url)
    deadline = time.monotonic() + 60
    while len(fake.asked) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=120)
    assert (child.returncode, said) == (130, "")


def test_folders_named_like_ours_are_not_mistaken_for_us(tmp_path: Path) -> None:
    for name in ("kanary", "sandbox", "tui", "argparse"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('decoy')", encoding="utf-8")
    child = program("-m", "kanary", "info", "--json", cwd=tmp_path)
    out, said = child.communicate(timeout=120)
    assert child.returncode == 0, said
    document = json.loads(out)
    assert document["settings"]["home"] == {"value": str(tmp_path / ".kanary"), "source": "default"}
    assert "decoy" not in out + said


def test_the_monitor_needs_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    child = program("-m", "kanary", stdin=subprocess.DEVNULL)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 2
    assert "needs a terminal" in said


# ---- info


def test_info_prints_every_setting_with_value_source_and_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KFP_ENDPOINT", "http://somewhere:1")
    assert main(["info", "--readonly", "--home", "h"]) == 0
    text = capsys.readouterr().out
    for setting in SETTINGS:
        assert re.search(rf"^{setting.key} ", text, re.MULTILINE)
    assert re.search(r"^kfp_endpoint +http://somewhere:1 +environment KFP_ENDPOINT$", text, re.MULTILINE)
    assert re.search(r"^readonly +True +flag --readonly$", text, re.MULTILINE)
    assert re.search(rf"^configuration +{tmp_path}/config/kanary/config.toml +\(not there\)$", text, re.MULTILINE)
    assert str(tmp_path / "h") in text
    assert "SANDBOX" in text


# ---- runs


def test_runs_are_a_table_and_json(fake: FakeKfp, kanary: Callable[..., tuple[int, str, str]]) -> None:
    fake.runs = [
        run_json(RUN, "first \x1b[31mred\nline", tasks=[task_json("a"), task_json("b", "RUNNING")]),
        run_json("2", "second", "FAILED"),
    ]
    code, out, said = kanary("runs")
    lines = out.splitlines()
    assert (code, said) == (0, "")
    assert lines[0].split() == ["RUN", "NAME", "STATE", "TASKS", "STARTED", "DURATION"]
    assert re.match(rf"{RUN}  first red line  SUCCEEDED  1/2    \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d  1m 05s$", lines[1])
    code, out, _ = kanary("runs", "--json")
    assert [(run["run_id"], run["state"]) for run in json.loads(out)] == [(RUN, "SUCCEEDED"), ("2", "FAILED")]
    assert json.loads(out)[0]["created_at"] == "2026-11-21T07:00:00+00:00"


def test_runs_says_that_there_are_more(fake: FakeKfp, kanary: Callable[..., tuple[int, str, str]]) -> None:
    fake.runs = [run_json(f"run-{i}") for i in range(5)]
    code, out, said = kanary("runs", "--limit", "3")
    assert (code, len(out.splitlines())) == (0, 4)
    assert said == "3 of 5; --limit shows more\n"


def test_runs_asks_for_state_experiment_and_what_is_not_archived(
    fake: FakeKfp, kanary: Callable[..., tuple[int, str, str]]
) -> None:
    fake.experiments = [{"experiment_id": "e-7", "display_name": "Mine"}]
    assert kanary("runs", "--state", "failed", "--experiment", "Mine")[0] == 0
    params = fake.asked[-1].params
    assert params["experiment_id"] == "e-7"
    assert [p["string_value"] for p in json.loads(params["filter"])["predicates"]] == ["ARCHIVED", "FAILED"]
    assert kanary("runs", "--archived")[0] == 0
    assert "filter" not in fake.asked[-1].params
    assert kanary("runs", "--experiment", "Nobody's")[0] == 2


def test_a_run_shows_its_tasks_and_why_it_failed(fake: FakeKfp, kanary: Callable[..., tuple[int, str, str]]) -> None:
    error = {"message": "gate accuracy: 0.7 < 0.9\nreason two"}
    fake.runs = [
        run_json(
            RUN, state="FAILED",
            tasks=[task_json("root", "FAILED"),
                   task_json("evaluate", "FAILED", parent_task_id="task-root", error=error),
                   task_json("deploy", "SKIPPED", parent_task_id="task-root")],
        )
    ]  # fmt: skip
    code, out, _ = kanary("run", "1111")
    assert code == 0
    assert "evaluate: gate accuracy: 0.7 < 0.9\nreason two" in out
    assert re.search(r"^· evaluate +FAILED +3\.5 s", out, re.MULTILINE)
    assert re.search(r"^· deploy +SKIPPED", out, re.MULTILINE)
    code, out, _ = kanary("run", "latest", "--json")
    assert [task["name"] for task in json.loads(out)["tasks"]] == ["root", "evaluate", "deploy"]


def test_watching_prints_each_step_and_ends_with_the_runs_exit_code(fake: FakeKfp) -> None:
    fake.runs = [run_json(RUN, state="RUNNING", tasks=[task_json("train", "RUNNING")])]
    child = program("-m", "kanary", "run", RUN, "--watch", "--endpoint", fake.url)
    assert child.stdout is not None
    assert re.fullmatch(r"\d\d:\d\d:\d\d  train  RUNNING\n", child.stdout.readline())
    fake.run(RUN)["run_details"]["task_details"] = [
        task_json("train", "FAILED", error={"message": "CUDA out of memory"}, create_time="2026-11-21T07:00:00Z")
    ]
    fake.run(RUN)["state"] = "FAILED"
    out, said = child.communicate(timeout=120)
    assert (child.returncode, said) == (1, "")
    lines = out.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  train  FAILED  3\.5 s", lines[0])
    assert lines[1].startswith("training: FAILED after ")
    assert lines[2] == "  train: CUDA out of memory"


def test_watching_gives_up_at_its_deadline(fake: FakeKfp, kanary: Callable[..., tuple[int, str, str]]) -> None:
    fake.runs = [run_json(RUN, state="RUNNING")]
    code, _, said = kanary("run", RUN, "--watch", "--deadline", "1")
    assert code == 1
    assert "still RUNNING after 1 s" in said


@pytest.mark.parametrize("follows", [True, False])
def test_a_log_is_followed_to_the_tasks_end_whether_the_server_follows_or_not(fake: FakeKfp, follows: bool) -> None:
    fake.follows = follows
    fake.runs = [run_json(RUN, state="RUNNING", tasks=[task_json("train", "RUNNING")])]
    fake.logs["pod-train"] = "epoch 1\n"
    child = program("-m", "kanary", "run", RUN, "--log", "train", "-f", "--endpoint", fake.url)
    assert child.stdout is not None
    assert child.stdout.readline() == "epoch 1\n"
    fake.logs["pod-train"] += "epoch 2\nno newline at the end"
    assert child.stdout.readline() == "epoch 2\n"
    fake.run(RUN)["run_details"]["task_details"] = [task_json("train")]
    out, said = child.communicate(timeout=120)
    assert (child.returncode, out, said) == (0, "no newline at the end\n", "")


def test_a_log_goes_raw_into_a_file(fake: FakeKfp, kanary: Callable[..., tuple[int, str, str]]) -> None:
    fake.runs = [run_json(RUN, tasks=[task_json("train")])]
    fake.logs["pod-train"] = "\x1b[31mred\x1b[0m\n  10%\r 100%\n"
    assert kanary("run", RUN, "--log", "train") == (0, fake.logs["pod-train"], "")


def test_a_task_that_is_not_there_is_named_with_those_that_are(
    fake: FakeKfp, kanary: Callable[..., tuple[int, str, str]]
) -> None:
    fake.runs = [run_json(RUN, tasks=[task_json("train"), task_json("ingest")])]
    code, _, said = kanary("run", RUN, "--log", "trian")
    assert code == 2
    assert "train, ingest" in said
    code, _, said = kanary("run", RUN, "--log", "train")
    assert code == 1
    assert "cannot read the log" in said


def test_retry_and_terminate(fake: FakeKfp, kanary: Callable[..., tuple[int, str, str]]) -> None:
    fake.runs = [run_json(RUN, state="FAILED")]
    assert kanary("retry", "1111")[0] == 0
    assert fake.run(RUN)["state"] == "RUNNING"
    assert kanary("terminate", "latest")[0] == 2
    assert kanary("terminate", "1111", "--readonly")[0] == 1
    assert fake.run(RUN)["state"] == "RUNNING"
    assert kanary("terminate", RUN)[0] == 0
    assert fake.run(RUN)["state"] == "CANCELING"


# ---- submit


def test_submit_starts_a_run_with_typed_parameters_in_its_experiment(
    fake: FakeKfp, kanary: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(f"# a comment\n{SPEC}---\nplatforms: {{kubernetes: {{}}}}\n", encoding="utf-8")
    code, out, said = kanary("submit", str(path), "uri=data.csv", "epochs=5", "--experiment", "Mine")
    assert (code, said) == (0, "")
    assert re.fullmatch(r"Run 00000001-\S+ of train has begun\.\n", out)
    experiment, run = (asked.body for asked in fake.asked if asked.method == "POST")
    assert experiment == {"display_name": "Mine"}
    assert run["experiment_id"] == "experiment-1"
    assert run["runtime_config"] == {"parameters": {"uri": "data.csv", "epochs": 5}}
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"] == {"name": "train"}
    assert run["pipeline_spec"]["platform_spec"] == {"platforms": {"kubernetes": {}}}
    assert re.fullmatch(r"train \d{4}-\d\d-\d\d \d\d-\d\d-\d\d", run["display_name"])


def test_submit_sends_nothing_that_is_wrong(
    fake: FakeKfp, kanary: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(SPEC, encoding="utf-8")
    assert kanary("submit", str(path), "epochs=many", "uri=x")[0] == 2
    assert kanary("submit", str(path))[0] == 2
    assert kanary("submit", str(tmp_path / "nowhere.yaml"))[0] == 2
    assert kanary("submit", str(path), "uri=x", "--readonly")[0] == 1
    assert fake.paths("POST") == []


def test_submit_and_watch_end_with_the_runs_exit_code(
    fake: FakeKfp, kanary: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(SPEC, encoding="utf-8")
    fake.override = lambda request: (
        fake.runs[0].update(state="CANCELED") if request.method == "GET" and fake.runs else None
    )
    code, out, _ = kanary("submit", str(path), "uri=x", "--watch", "--name", "mine")
    assert code == 1
    assert "mine: CANCELED after" in out
    code, out, _ = kanary("submit", str(path), "uri=x", "--json", "--name", "third")
    assert (code, json.loads(out)["name"]) == (0, "third")


def test_a_log_can_be_followed_before_its_task_has_begun(fake: FakeKfp) -> None:
    fake.runs = [run_json(RUN, state="RUNNING", tasks=[task_json("train", "PENDING")])]
    fake.logs["pod-train"] = "begun\n"
    child = program("-m", "kanary", "run", RUN, "--log", "train", "-f", "--endpoint", fake.url)
    deadline = time.monotonic() + 60
    while len(fake.asked) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    fake.run(RUN)["run_details"]["task_details"] = [task_json("train", "SUCCEEDED")]
    out, said = child.communicate(timeout=120)
    assert (child.returncode, out, said) == (0, "begun\n", "")
