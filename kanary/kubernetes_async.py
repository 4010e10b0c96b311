"""The same acts as kanary.kubernetes runs, without blocking the event loop: for the monitor. Never retries a change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import httpx

from kanary.config import Config
from kanary.errors import ApiError, Unreachable
from kanary.kubeconfig import Access, access
from kanary.kubernetes import (
    Act,
    Change,
    Document,
    Step,
    allow,
    arguments,
    client_options,
    decoded,
    refuse,
    transport_errors,
    watching,
)
from kanary.operations import Request

T = TypeVar("T")
_GRACE = 5.0  # seconds that a watch may overrun the time that it was asked for


class AsyncKubernetes:
    """Runs acts against one API server. Close it at the end; what is cancelled stops at its next request."""

    def __init__(self, entered: Access, *, timeout: float = 10.0, readonly: bool = False) -> None:
        self.access = entered
        self.readonly = readonly
        self._timeout = timeout
        self._http = httpx.AsyncClient(**client_options(entered, timeout))

    async def close(self) -> None:
        await self._http.aclose()

    async def call(self, act: Act[T]) -> T:
        """The act's result. Raises Unreachable, ApiError, ConfigError (credentials), KanaryError (read-only)."""
        answer: Any = None
        error: ApiError | None = None
        while True:
            try:
                step = act.send(answer) if error is None else act.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            answer, error = None, None
            try:
                answer = await self._take(step)
            except ApiError as failed:
                error = failed

    async def send(self, request: Request) -> Document:
        """One request's answer. Raises as `call`."""
        allow(self.access, request, self.readonly)
        with transport_errors(self.access):
            response = await self._http.request(**await self._arguments(request))
            if response.status_code == 401 and self.access.credentials.forget():
                response = await self._http.request(**await self._arguments(request))
        return decoded(self.access, request, response)

    async def watch(
        self, collection: str, resource_version: str, seconds: float, *, name: str = "", selector: str = ""
    ) -> AsyncIterator[Document]:
        """The events ({type, object}) of a collection after a version, bookmarks included, for so long.

        Raises Unreachable also where the connection has fallen silent for longer than was asked.
        """
        params = watching(resource_version, seconds, name) | {"allowWatchBookmarks": "true"}
        params |= {"labelSelector": selector} if selector else {}
        async for line in self.lines(Request("GET", collection, params), read=seconds + _GRACE):
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
                raise ApiError(f"The Kubernetes API sent no event in the watch of {collection}.")
            yield event

    async def lines(self, request: Request, read: float | None = None) -> AsyncIterator[str]:
        """The lines of an answer as they come, empty ones left out; `read`: seconds of silence that end it."""
        limit = httpx.Timeout(self._timeout, read=read)
        with transport_errors(self.access):
            async with self._http.stream(**await self._arguments(request), timeout=limit) as response:
                if response.status_code != 200:
                    await response.aread()
                    refuse(self.access, request, response)
                async for line in response.aiter_lines():
                    if line:
                        yield line

    async def _arguments(self, request: Request) -> dict[str, Any]:
        # An exec plugin may take seconds, a person's hand included.
        return await asyncio.to_thread(arguments, self.access, request)

    async def _take(self, step: Step) -> Any:
        if isinstance(step, Request):
            return await self.send(step)
        if isinstance(step, Change):
            return await self._changed(step)
        for request in step.requests:
            allow(self.access, request, self.readonly)
        return await asyncio.gather(*(self._tried(request) for request in step.requests))

    async def _tried(self, request: Request) -> Document | ApiError:
        try:
            return await self.send(request)
        except ApiError as error:
            return error

    async def _changed(self, step: Change) -> Document | None:
        try:
            async with asyncio.timeout(max(step.seconds, 0.05)):
                async for event in self.watch(step.collection, step.resource_version, step.seconds, name=step.name):
                    if event.get("type") == "BOOKMARK":
                        continue
                    changed: Document = event["object"]
                    return changed if event.get("type") in ("ADDED", "MODIFIED") else None
        except (Unreachable, TimeoutError):
            return None  # the act reads again, and hears what is wrong
        return None


def connect(config: Config) -> AsyncKubernetes:
    """A client for the API server of the settings. Raises ConfigError where there is none."""
    return AsyncKubernetes(access(config), timeout=config.timeout, readonly=config.readonly)
