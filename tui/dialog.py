"""The dialog before every change: what is, what will be, Cancel first; then what happens, step by step.

What was begun goes on when its dialog is closed: its end is then told in a corner.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from kanary.errors import KanaryError
from kanary.snapshot import FAULT
from kanary.text import one_line
from tui.actions import bindings
from tui.look import Spans, harmless, styled, styles

Lines = Sequence[Spans]
log = logging.getLogger("kanary.tui")

AGREED = "go"
HINT = "←→ choose   Enter press   Esc "


@dataclass(frozen=True)
class Field:
    """Something to type: its name, what stands there at first, and why a text is not allowed ("" where it is)."""

    name: str
    label: str
    value: str = ""
    check: Callable[[str], str] = lambda text: ""


@dataclass(frozen=True)
class Question:
    """What is asked. `lines` gives what will happen with what was typed so far; `type_name`: must be typed first."""

    title: str
    lines: Callable[[dict[str, str]], Lines]
    go: str
    fields: Sequence[Field] = field(default_factory=tuple)
    type_name: str = ""
    watch: Callable[[], Lines] | None = None  # how it stands, while it is being done
    stay: bool = False  # the dialog stays when it is done, until it is closed
    look: Callable[[], Awaitable[str]] | None = None  # finds out more for `lines`; gives another word than `go`, or ""


# What is done: it is given what was typed and a function that tells a step (text, style), and gives its last word.
# Under AGREED stands the word that was agreed to.
Act = Callable[[dict[str, str], Callable[[str, str], None]], Awaitable[str]]


class Dialog(ModalScreen[None]):
    """Asks, does, tells."""

    PLACES: ClassVar[tuple[str, ...]] = ("dialog",)
    BINDINGS = bindings("dialog")
    DEFAULT_CSS = """
    Dialog { align: center middle; background: $background 70%; }
    Dialog > Vertical { width: 78; max-width: 100%; height: auto; max-height: 100%; border: round $primary;
        background: $surface; padding: 0 1; border-title-color: $primary; border-title-style: bold; }
    Dialog VerticalScroll { height: auto; max-height: 16; }
    Dialog Static { height: auto; }
    Dialog #steps, Dialog #watch, Dialog #wrong { display: none; }
    Dialog #steps, Dialog #wrong { margin-top: 1; }
    Dialog.doing #steps, Dialog.watching #watch, Dialog.wrong #wrong { display: block; }
    Dialog #wrong { color: $error; }
    Dialog .label { color: $foreground 60%; height: 1; }
    Dialog Input { height: 1; border: none; padding: 0 1; background: $panel; }
    Dialog .field { height: 1; margin-top: 1; }
    Dialog .field > .label { width: 22; }
    Dialog .field > Input { width: 1fr; }
    Dialog.doing .field, Dialog.watching #lines { display: none; }
    Dialog #buttons { height: 1; margin-top: 1; align-horizontal: right; }
    Dialog #hint { width: 1fr; color: $foreground 60%; }
    Dialog Button { min-width: 10; margin-left: 2; }
    Dialog Button:focus { text-style: bold reverse; }
    Dialog.doing #go { display: none; }
    """

    def __init__(self, question: Question, act: Act) -> None:
        super().__init__()
        self._question, self._act = question, act
        self._phase = "asking"
        self._said: list[tuple[str, str]] = []
        self._lines = Static(id="lines", markup=False)
        self._steps = Static(id="steps", markup=False)
        self._watch = Static(id="watch", markup=False)
        self._wrong = Static(id="wrong", markup=False)
        self._cancel = Button("Cancel", id="cancel", compact=True)
        self._go = Button(question.go, id="go", variant="warning", compact=True)
        self._hint = Static(f"{HINT}cancel", id="hint", markup=False)
        self._box = Vertical()
        self._fields = list(question.fields)
        if question.type_name:
            wanted = question.type_name
            label = "Type its name to go on"
            self._fields.append(Field("name", label, "", lambda text: "" if text == wanted else f"Type: {wanted}"))

    def compose(self) -> ComposeResult:
        with self._box:
            with VerticalScroll(can_focus=False):
                yield self._lines
                yield self._watch
                yield self._steps
            for entry in self._fields:
                with Horizontal(classes="field"):
                    yield Static(entry.label, classes="label", markup=False)
                    yield Input(entry.value, id=f"field-{entry.name}", compact=True, select_on_focus=True)
            yield self._wrong
            with Horizontal(id="buttons"):
                yield self._hint
                yield self._cancel
                yield self._go

    def on_mount(self) -> None:
        self._box.border_title = harmless(self._question.title).replace("[", "(")
        self._tell()
        self.set_focus(self._cancel)
        self.set_interval(0.25, self._look)
        if self._question.look is not None:
            self.run_worker(self._find_out(self._question.look), exit_on_error=False)

    async def _find_out(self, look: Callable[[], Awaitable[str]]) -> None:
        word = await look()
        if self._phase == "asking":
            self._go.label = word or self._question.go
            self._go.refresh(layout=True)
            self._tell()

    @property
    def typed(self) -> dict[str, str]:
        return {entry.name: self.query_one(f"#field-{entry.name}", Input).value.strip() for entry in self._fields}

    def styled(self, lines: Lines) -> Text:
        return styled(lines, styles(self.app), wrap=True)

    # ---- asking

    @on(Input.Changed)
    def _typed(self) -> None:
        if self._phase == "asking":
            self._tell()

    def _tell(self) -> None:
        try:
            typed = self.typed
        except KeyError:
            return
        self._lines.update(self.styled(self._question.lines(typed)))

    def _why_not(self) -> str:
        typed = self.typed
        return next((why for entry in self._fields if (why := entry.check(typed[entry.name]))), "")

    def _complain(self, text: str) -> None:
        self.set_class(bool(text), "wrong")
        self._wrong.update(Text(text, overflow="fold"))

    @on(Input.Submitted)
    def _entered(self) -> None:
        self.set_focus(self._go)

    @on(Button.Pressed, "#cancel")
    def _cancelled(self) -> None:
        self.action_cancel()

    @on(Button.Pressed, "#go")
    def _agreed(self) -> None:
        if self._phase != "asking":
            return
        if why := self._why_not():
            self._complain(why)
            return
        self._complain("")
        self._phase = "doing"
        typed = self.typed | {AGREED: str(self._go.label)}
        self.add_class("doing")
        self._cancel.label = "Close"
        self._hint.update("Enter, Esc close; what was begun goes on")
        self.set_focus(self._cancel)
        # The application's: closing the dialog must not stop the act between two of its steps.
        self.app.run_worker(self._do(typed), group="acts", exit_on_error=False)

    def action_cancel(self) -> None:
        self.dismiss(None)

    def action_previous(self) -> None:
        self.focus_previous()

    def action_next(self) -> None:
        self.focus_next()

    # ---- doing

    async def _do(self, typed: dict[str, str]) -> None:
        try:
            last = await self._act(typed, self._say)
        except KanaryError as error:
            self._end(f"✗ {one_line(error.message)}", "bold bad", error.hint)
        except Exception:  # an act's outermost frame: a fault of ours must not end the monitor
            log.exception("%s failed in a way nobody foresaw", self._question.title)
            self._end(f"✗ {FAULT[0]}", "bold bad", FAULT[1])
        else:
            self._end(f"✓ {last}", "good", "")

    def _say(self, text: str, style: str = "") -> None:
        self._said.append((text, style))
        if self.is_mounted and self.is_attached:
            self._steps.update(self.styled([[entry] for entry in self._said[-10:]]))
            self._look()

    def _end(self, text: str, style: str, hint: str) -> None:
        self._phase = "done"
        good = style == "good"
        for entry in [(text, style), *([(f"  {one_line(hint)}", "dim")] if hint else [])]:
            self._say(*entry)
        here = self.is_attached and self.is_current
        if here and (self._question.stay or not good):
            self._hint.update("Enter, Esc close")
            return
        if here:
            self.dismiss(None)
        said = f"{text} {one_line(hint)}".strip()
        self.app.notify(said, title=self._question.title, severity="information" if good else "error", markup=False)

    def _look(self) -> None:
        if self._phase != "asking" and self._question.watch is not None and self.is_attached:
            self.add_class("watching")
            self._watch.update(self.styled(self._question.watch()))
