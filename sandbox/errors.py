"""The sandbox's own exception tree; it shares none with the clients that are tested against it.

SandboxError
├── NotFound        the named thing does not exist
├── Conflict        the state of the thing does not allow this
├── InvalidSpec     a pipeline, manifest or parameter is malformed; `where` is the path to the fault
│   └── Unsupported well-formed, but the sandbox cannot run it
└── AlreadyRunning  another sandbox holds this home folder
"""

from __future__ import annotations


class SandboxError(Exception):
    """An expected failure. `message` says what and where; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class NotFound(SandboxError):
    """The named thing does not exist."""


class Conflict(SandboxError):
    """The state of the thing does not allow this."""


class InvalidSpec(SandboxError):
    """A pipeline, manifest or parameter is malformed. `where` is the path to the fault in the document."""

    def __init__(self, message: str, where: str = "", hint: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message, hint)
        self.where = where


class Unsupported(InvalidSpec):
    """Well-formed, but the sandbox cannot run it; refused at submission, by name."""


class AlreadyRunning(SandboxError):
    """Another sandbox holds this home folder."""
