"""The one exception tree of Kanary: what a person is told when something expected goes wrong.

KanaryError
├── ConfigError        a setting, project file or environment variable is wrong
├── InputError         what the user handed in (arguments, a schema, a file) is wrong
│   └── DataError      rows or columns break their schema
├── GateError          a quality gate cannot be judged as it is written
├── ModelError         a model directory is incomplete, altered or of another format
├── ApiError           a server answered with an error, or with something else than its API promises
│   └── Unreachable    a server did not answer at all
├── Held               somebody else has acted: an automation stops
└── MissingExtra       an optional part of Kanary is not installed

Every error carries a message (what, where) and a hint (what to do). The process's outermost loop prints
both; nobody else does.
"""

from __future__ import annotations


class KanaryError(Exception):
    """An expected failure. `message` says what went wrong and where; `hint` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ConfigError(KanaryError):
    """A setting, project file or environment variable is wrong."""

    exit_code = 2


class InputError(KanaryError):
    """What the user handed in is wrong: an argument, a schema, a file."""

    exit_code = 2


class DataError(InputError):
    """Rows or columns break their schema, or a data file cannot be read as what it claims to be."""


class GateError(KanaryError):
    """A quality gate cannot be judged as it is written."""

    exit_code = 2


class ModelError(KanaryError):
    """A model directory is incomplete, altered since its digest was taken, or of another format."""


class ApiError(KanaryError):
    """A server answered with an error, or with something its API does not promise.

    `status` is the HTTP status it answered with, or None where there was none.
    """

    def __init__(self, message: str, hint: str = "", status: int | None = None) -> None:
        super().__init__(message, hint)
        self.status = status


class Unreachable(ApiError):
    """A server did not answer at all."""


class Held(KanaryError):
    """Somebody else has acted since: this automation stops and changes nothing more. `who` names them."""

    def __init__(self, message: str, hint: str = "", who: str = "") -> None:
        super().__init__(message, hint)
        self.who = who


class MissingExtra(KanaryError):
    """An optional part of Kanary is not installed; the hint is the pip line that mends it."""
