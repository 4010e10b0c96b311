"""How Kanary talks to an HTTP API: an operation says what to ask, a client (blocking or async) asks it.

An operation is a generator that yields Requests and is sent the JSON answers; one definition serves the command
line and the monitor. Read-only is enforced here, in the one place every request passes. Never retries a change.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import httpx

from kanary.errors import ApiError, ConfigError, KanaryError, Unreachable
from kanary.operations import Operation, Request
from kanary.text import one_line, shortened

if TYPE_CHECKING:
    from kanary.kubeconfig import Access

T = TypeVar("T")


@dataclass(frozen=True)
class Server:
    """An HTTP API and how to enter it. `hint` says what to do when it does not answer.

    `settings`: how the settings' names begin that a person would change to get in. `access`: it is entered as the API
    server of a cluster is, through whose service proxy it is asked. `place`: what it is called instead of its URL;
    `found`: how it was found.
    """

    name: str
    url: str
    timeout: float = 10.0
    token_file: Path | None = None
    cookie_file: Path | None = None
    cookie: str = field(default="", repr=False)
    token: Callable[[], str] | None = None  # gives a bearer token; asked for every request, may take its time
    readonly: bool = False
    hint: str = ""
    ca_file: Path | None = None  # PEM; None trusts the system's authorities
    headers: Mapping[str, str] = field(default_factory=dict)
    settings: str = ""
    access: Access | None = None
    place: str = ""
    found: str = ""

    @property
    def named(self) -> str:
        """What it is called in messages, and where it is."""
        return f"{self.name} at {self.place or self.url}"


class Client:
    """Runs operations against one server, blocking. Use it as a context manager, or close it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._http = httpx.Client(**_options(server))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def call(self, operation: Operation[T]) -> T:
        """The operation's result. Raises Unreachable, ApiError, ConfigError (token file), KanaryError (read-only)."""
        step = _begin(operation)
        while step.request is not None:
            try:
                answer = self._send(step.request)
            except ApiError as error:
                step = _throw(operation, error)
            else:
                step = _send(operation, answer)
        result: T = step.result
        return result

    def _send(self, request: Request) -> Any:
        _allow(self.server, request)
        with _transport_errors(self.server):
            response = self._http.request(**_arguments(self.server, request))
        return _read(self.server, request, response)

    def stream(self, request: Request) -> Iterator[str]:
        """The body as it comes, decoded from UTF-8. Only the start of the answer is under the time limit."""
        _allow(self.server, request)
        with (
            _transport_errors(self.server),
            self._http.stream(**_arguments(self.server, request), timeout=_patient(self.server)) as response,
        ):
            if response.status_code != 200:
                response.read()
                _refuse(self.server, request, response)
            yield from response.iter_text()


class AsyncClient:
    """Runs operations against one server without blocking the event loop."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._http = httpx.AsyncClient(**_options(server))

    async def close(self) -> None:
        await self._http.aclose()

    async def call(self, operation: Operation[T]) -> T:
        """As Client.call."""
        step = _begin(operation)
        while step.request is not None:
            try:
                answer = await self._send(step.request)
            except ApiError as error:
                step = _throw(operation, error)
            else:
                step = _send(operation, answer)
        result: T = step.result
        return result

    async def _send(self, request: Request) -> Any:
        _allow(self.server, request)
        with _transport_errors(self.server):
            response = await self._http.request(**await self._arguments(request))
        return _read(self.server, request, response)

    async def stream(self, request: Request) -> AsyncIterator[str]:
        """As Client.stream."""
        _allow(self.server, request)
        with _transport_errors(self.server):
            arguments = await self._arguments(request)
            async with self._http.stream(**arguments, timeout=_patient(self.server)) as response:
                if response.status_code != 200:
                    await response.aread()
                    _refuse(self.server, request, response)
                async for text in response.aiter_text():
                    yield text

    async def _arguments(self, request: Request) -> dict[str, Any]:
        if self.server.token is None and self.server.access is None:
            return _arguments(self.server, request)
        # Credentials may have to be asked for.
        return await asyncio.to_thread(_arguments, self.server, request)


@dataclass(frozen=True)
class _Step:
    """Where an operation stands: what it asks next, or, with no request, its result."""

    request: Request | None
    result: Any = None


def _begin(operation: Operation[Any]) -> _Step:
    return _send(operation, None)


def _send(operation: Operation[Any], answer: Any) -> _Step:
    try:
        return _Step(operation.send(answer))
    except StopIteration as end:
        return _Step(None, end.value)


def _throw(operation: Operation[Any], error: ApiError) -> _Step:
    try:
        return _Step(operation.throw(error))
    except StopIteration as end:
        return _Step(None, end.value)


def _options(server: Server) -> dict[str, Any]:
    if server.access is not None:
        from kanary.kubernetes import client_options

        return client_options(server.access, server.timeout) | {"default_encoding": "utf-8"}
    return {
        "verify": _trust(server),
        "timeout": httpx.Timeout(server.timeout, connect=min(server.timeout, 5.0)),
        "default_encoding": "utf-8",
        # A proxy of the environment cannot reach this machine's own loopback.
        "trust_env": not _is_loopback(server.url),
    }


def _trust(server: Server) -> ssl.SSLContext | bool:
    if server.ca_file is None:
        # Reading the authorities takes 25 ms, which an address without TLS does not need; redirects are not followed.
        return urlsplit(server.url).scheme != "http"
    try:
        return ssl.create_default_context(cafile=str(server.ca_file))
    except OSError as error:
        key = f"{server.settings}ca_file"
        raise ConfigError(f"The {key} {server.ca_file} cannot be used: {error}", f"Set {key} to a PEM file.") from error


def _patient(server: Server) -> httpx.Timeout:
    # A task may be silent for hours; connecting may not.
    return httpx.Timeout(None, connect=min(server.timeout, 5.0), write=server.timeout, pool=server.timeout)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _arguments(server: Server, request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": server.url + request.path,
        "params": {key: value for key, value in request.params.items() if value != ""},
        "json": request.body,
        "headers": _credentials(server),
        "extensions": {"sni_hostname": server.access.server_name}
        if server.access and server.access.server_name
        else {},
    }


def _credentials(server: Server) -> dict[str, str]:
    headers = dict(server.headers)
    if server.token_file is not None:
        headers["Authorization"] = f"Bearer {_secret(server.token_file, f'{server.settings}token_file')}"
    elif server.token is not None:
        headers["Authorization"] = f"Bearer {server.token()}"
    elif server.access is not None and (authorization := server.access.credentials.header()):
        headers["Authorization"] = authorization
    if server.cookie_file is not None:
        headers["Cookie"] = _secret(server.cookie_file, f"{server.settings}cookie_file")
    elif server.cookie:
        headers["Cookie"] = server.cookie
    return headers


def _secret(path: Path, key: str) -> str:
    try:
        value = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The {key} {path} cannot be read: {error}", f"Set {key} to a readable file.") from error
    if not value or not value.isascii() or not value.isprintable():
        raise ConfigError(f"The {key} {path} holds no single line of printable text.", "Put the bare value into it.")
    return value


def _allow(server: Server, request: Request) -> None:
    if request.changes and server.readonly:
        raise KanaryError(
            f"Read-only: {request.method} {request.path} was not sent to {server.name}.",
            "Take away --readonly, KANARY_READONLY or `readonly` in the configuration file to allow it.",
        )


@contextmanager
def _transport_errors(server: Server) -> Generator[None, None, None]:
    """Turns what goes wrong below HTTP into Unreachable, and what is not HTTP into ApiError."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise Unreachable(f"{server.named} did not answer in time.", server.hint) from error
    except (httpx.ProtocolError, httpx.DecodingError) as error:
        # RemoteProtocolError is also what a server that dies during its answer looks like.
        raise Unreachable(f"{server.named} broke off its answer: {error}", server.hint) from error
    except (httpx.TransportError, OSError) as error:
        raise Unreachable(f"{server.named} cannot be reached: {error}", server.hint) from error
    except httpx.InvalidURL as error:
        raise ConfigError(f"{server.url} is no usable address for {server.name}: {error}") from error


def _read(server: Server, request: Request, response: httpx.Response) -> Any:
    if not 200 <= response.status_code < 300:
        _refuse(server, request, response)
    if not response.content.strip():
        return {}
    try:
        return json.loads(response.content)
    except (ValueError, RecursionError):
        raise ApiError(
            f"{server.named} answered {request.method} {request.path} with "
            f"{response.headers.get('content-type', 'no content type')}, not JSON.",
            f"Is {server.url} really the address of this API, and not that of a web page or a login?",
            status=response.status_code,
        ) from None


def _refuse(server: Server, request: Request, response: httpx.Response) -> NoReturn:
    status = response.status_code
    if status == 401 and server.access is not None:
        server.access.credentials.forget()  # the next request asks for new ones
    raise ApiError(
        f"{server.name} answered {request.method} {request.path} with {status} {response.reason_phrase}"
        f"{_reason(response)}",
        _status_hint(server, status),
        status=status,
    )


def _reason(response: httpx.Response) -> str:
    """`: ` and what the server says of its refusal, made harmless; empty where it says nothing readable."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return ""
    text = ""
    if isinstance(body, Mapping):
        # google.rpc.Status has `message`, older KFP `error` or `error_message`.
        text = next((body[k] for k in ("message", "error_message", "error") if isinstance(body.get(k), str)), "")
    return f": {shortened(one_line(text), 500)}" if text else ""


def _status_hint(server: Server, status: int) -> str:
    if status in (301, 302, 303, 307, 308, 401, 403):
        if server.access is not None:
            return (
                f"It was asked through the API server of {server.access.source}, which may have refused: {server.hint}"
            )
        if server.settings:
            return f"It wants a login, or refuses this one: set {server.settings}token_file."
        return (
            "It wants a login, or refuses this one: set token_file, token_account or cookie_file, and the namespace "
            "in multi-user use."
        )
    if status == 404:
        return f"Check the id, and that {server.url} is the right server (`kanary info` says where it came from)."
    if status == 429 or status >= 500:
        return "The server has a problem of its own; try again, then look at its log."
    return ""
