"""Requests and operations as values: what to ask an HTTP API, apart from how it is sent. Imports no HTTP library."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """One HTTP request. `path` is relative to the server's URL and quoted already; empty params are not sent."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def changes(self) -> bool:
        """Whether it may change the server's state."""
        return self.method != "GET"


# Yields requests, is sent the decoded JSON of each answer (or thrown the ApiError), and returns its result.
Operation: TypeAlias = Generator[Request, Any, T]
