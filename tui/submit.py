"""Starting a run: of a compiled pipeline in a file, or of the same pipeline as another run, with its parameters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widgets import Button, Input, Static

from kanary import kfp
from kanary.errors import InputError, KanaryError
from kanary.kfp_spec import Pipeline, bind, read_pipeline
from kanary.kfp_types import Run
from kanary.snapshot_hub import RUNS, Hub
from kanary.text import one_line
from tui.actions import bindings

_FOLDERS = ("build/pipelines", "pipelines", ".")  # where compiled pipelines use to lie


class SubmitScreen(ModalScreen[None]):
    """A form: the pipeline, the run's name and experiment, a line a parameter."""

    PLACES: ClassVar[tuple[str, ...]] = ("form",)
    BINDINGS = bindings("form")
    DEFAULT_CSS = """
    SubmitScreen { align: center middle; background: $background 70%; }
    SubmitScreen > Vertical { width: 90; max-width: 100%; height: auto; max-height: 100%; border: round $primary;
        background: $surface; padding: 0 1; border-title-color: $primary; border-title-style: bold; }
    SubmitScreen VerticalScroll { height: auto; max-height: 60vh; }
    SubmitScreen .field { height: 1; }
    SubmitScreen .label { width: 28; color: $foreground 70%; height: 1; }
    SubmitScreen Input { width: 1fr; height: 1; border: none; padding: 0 1; background: $panel; }
    SubmitScreen #wrong { color: $error; height: auto; max-height: 4; }
    SubmitScreen #buttons { height: 1; margin-top: 1; align-horizontal: right; }
    SubmitScreen #hint { width: 1fr; color: $foreground 60%; height: 1; }
    SubmitScreen Button { min-width: 10; margin-left: 2; }
    SubmitScreen Button:focus { text-style: bold reverse; }
    """

    def __init__(self, hub: Hub, like: Run | None = None) -> None:
        super().__init__()
        self._hub, self._like = hub, like
        self._pipeline: Pipeline | None = None
        self._origin: kfp.Origin | None = None
        self._box = Vertical()
        self._parameters = VerticalScroll(id="parameters", can_focus=False)
        self._wrong = Static("", id="wrong", markup=False)
        self._start = Button("Start", id="go", variant="warning", compact=True)
        self._file = Input(
            id="file", placeholder="PIPELINE.yaml, then Enter", suggester=SuggestFromList(_candidates()), compact=True
        )
        self._run_name = Input(id="name", compact=True)
        self._experiment = Input("Default", id="experiment", compact=True)

    def compose(self) -> ComposeResult:
        with self._box:
            if self._like is None:
                yield from _labelled("Compiled pipeline", self._file)
            yield from _labelled("Name of the run", self._run_name)
            yield from _labelled("Experiment", self._experiment)
            yield self._parameters
            yield self._wrong
            with Horizontal(id="buttons"):
                yield Static("Tab next field   Enter press   Esc cancel", id="hint", markup=False)
                yield Button("Cancel", id="cancel", compact=True)
                yield self._start

    def on_mount(self) -> None:
        self._box.border_title = "Clone a run" if self._like else "Start a run"
        if self._like is None:
            self._file.focus()
        else:
            self._run_name.value = f"{one_line(self._like.name)} again"
            self.query_one("#cancel").focus()
            self.run_worker(self._read_run(self._like), exit_on_error=False)

    # ---- what is to run

    async def _read_run(self, run: Run) -> None:
        self._complain("Asking the server for its pipeline ...")
        try:
            self._origin = await self._hub.connections.call(kfp.get_origin(run.run_id))
        except KanaryError as error:
            self._complain(f"{error.message} {error.hint}")
            return
        self._complain("")
        self._experiment.value = self._origin.experiment_name or "Default"
        if self._origin.spec:
            self._pipeline = Pipeline(self._origin.spec, self._origin.platform_spec)
        declared = self._pipeline.parameters if self._pipeline else {}
        names = dict.fromkeys((*declared, *self._origin.parameters))
        entries = {name: declared.get(name, {}) for name in names}
        await self._ask_for(entries, self._origin.parameters)

    @on(Input.Submitted, "#file")
    async def _read_file(self) -> None:
        try:
            self._pipeline = await asyncio.to_thread(_read, self._file.value.strip())
        except KanaryError as error:
            self._complain(f"{error.message} {error.hint}")
            return
        self._complain("")
        self._run_name.value = f"{self._pipeline.name} {datetime.now():%Y-%m-%d %H-%M-%S}"
        await self._ask_for(self._pipeline.parameters, {})

    async def _ask_for(self, declared: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]) -> None:
        await self._parameters.remove_children()
        for index, (name, entry) in enumerate(declared.items()):
            kind = str(entry.get("parameterType", "")).removeprefix("NUMBER_").lower()
            value = values.get(name, entry.get("defaultValue"))
            optional = entry.get("isOptional") or "defaultValue" in entry
            made = Input(
                "" if value is None else _written(value),
                id=f"parameter-{index}",
                name=name,
                placeholder=f"{kind}{', may stay empty' if optional else ', needed'}",
                compact=True,
            )
            row = Horizontal(Static(f"{one_line(name)} {kind}", classes="label", markup=False), made, classes="field")
            await self._parameters.mount(row)
        if declared:
            self._parameters.query(Input).first().focus()

    # ---- starting it

    @on(Button.Pressed, "#go")
    async def _go(self) -> None:
        self._start.disabled = True
        try:
            run = await self._submit()
        except KanaryError as error:
            self._complain(f"{error.message} {error.hint}")
            self._start.disabled = False
            return
        self._hub.wake(RUNS)
        self.app.notify(f"{run.name} has begun: {run.run_id[:8]}", markup=False)
        self.dismiss(None)

    async def _submit(self) -> Run:
        given = {entry.name or "": entry.value for entry in self._parameters.query(Input)}
        call, namespace = self._hub.connections.call, self._hub.connections.config.namespace
        name = self._run_name.value.strip()
        if not name:
            raise InputError("The run has no name.", "Give it one.")
        origin = self._origin
        if self._pipeline is not None:
            before = origin.parameters if origin else {}
            # An empty line leaves a parameter to its default; bind misses one that has none.
            kept = [f"{key}={text}" for key, text in given.items() if text or before.get(key) == ""]
            parameters = bind(self._pipeline, kept)
        elif origin is not None:
            parameters = {key: _read_value(text, origin.parameters.get(key)) for key, text in given.items()}
        else:
            raise InputError("There is no pipeline yet.", "Name a compiled pipeline, and press Enter there.")
        experiment = await call(kfp.ensure_experiment(self._experiment.value.strip() or "Default", namespace=namespace))
        return await call(
            kfp.create_run(
                self._pipeline.spec if self._pipeline else {},
                name=name,
                parameters=parameters,
                platform_spec=self._pipeline.platform_spec if self._pipeline else None,
                experiment_id=experiment.experiment_id,
                version=origin.version if origin and not self._pipeline else None,
                pipeline_root=origin.pipeline_root if origin else "",
                service_account=origin.service_account if origin else "",
            )
        )

    @on(Button.Pressed, "#cancel")
    def _cancelled(self) -> None:
        self.action_cancel()

    def action_cancel(self) -> None:
        self.dismiss(None)

    def _complain(self, text: str) -> None:
        self._wrong.update(one_line(text))


def _labelled(label: str, field: Input) -> ComposeResult:
    with Horizontal(classes="field"):
        yield Static(label, classes="label", markup=False)
        yield field


def _candidates() -> list[str]:
    """Compiled pipelines that lie about."""
    found = [str(path) for folder in _FOLDERS for path in sorted(Path(folder).glob("*.yaml"))]
    return found[:50]


def _read(path: str) -> Pipeline:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path or 'The file'} cannot be read: {error}", "Name a compiled pipeline.") from error
    return read_pipeline(text, path)


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _read_value(text: str, before: Any) -> Any:
    """The value of a parameter whose type nobody declares: of the type that it had."""
    if isinstance(before, str) or before is None:
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise InputError(f"{text!r} is no JSON, as {json.dumps(before)} was.", "Write it as JSON.") from None
