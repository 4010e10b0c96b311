"""The Kubernetes API: requests as values, and the client that runs acts, generators that ask and are sent the answers.

An act is I/O-free: it can be stopped at any request, and tested without a server. Read-only is enforced here. Objects
are plain dicts, patches are sent as they are, nulls included. Never retries a change.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, TypeVar
from urllib.parse import quote

import httpx

from kanary.config import Config
from kanary.errors import ApiError, KanaryError, Unreachable
from kanary.kubeconfig import Access, access
from kanary.operations import Request
from kanary.text import one_line, shortened

T = TypeVar("T")
Document = dict[str, Any]

MERGE_PATCH, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
SELF_REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
ACCESS_REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
HARMLESS = frozenset({SELF_REVIEW, ACCESS_REVIEW})  # created to be answered, never stored
_ACCOUNT_TOKEN = re.compile(r"/api/v1/namespaces/[^/]+/serviceaccounts/[^/]+/token")  # neither is a token


@dataclass(frozen=True)
class Together:
    """Requests sent at once. The answer is a list in their order; one that failed stands there as its ApiError."""

    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Change:
    """Waits for the next event on one object after `resource_version`, at most `seconds`. The answer is the object.

    None where nothing happened, it was deleted, or the version is too old: then read it again.
    """

    collection: str
    name: str
    resource_version: str
    seconds: float


Step = Request | Together | Change
# Yields steps, is sent their answers (or thrown the ApiError of a Request), and returns its result.
Act: TypeAlias = Generator[Step, Any, T]


def inference_services(namespace: str, name: str = "") -> str:
    """The path of a namespace's InferenceServices ("": of all namespaces'), or of one."""
    return _path("/apis/serving.kserve.io/v1beta1", namespace, "inferenceservices", name)


def config_maps(namespace: str, name: str = "") -> str:
    """The path of a namespace's ConfigMaps, or of one."""
    return _path("/api/v1", namespace, "configmaps", name)


def http_routes(namespace: str, name: str = "") -> str:
    """The path of a namespace's HTTPRoutes (Gateway API), or of one."""
    return _path("/apis/gateway.networking.k8s.io/v1", namespace, "httproutes", name)


def deployments(namespace: str, name: str = "") -> str:
    """The path of a namespace's Deployments, or of one."""
    return _path("/apis/apps/v1", namespace, "deployments", name)


def revisions(namespace: str, name: str = "") -> str:
    """The path of a namespace's Knative Revisions, or of one."""
    return _path("/apis/serving.knative.dev/v1", namespace, "revisions", name)


def leases(namespace: str, name: str = "") -> str:
    """The path of a namespace's Leases, or of one."""
    return _path("/apis/coordination.k8s.io/v1", namespace, "leases", name)


def events(namespace: str) -> str:
    """The path of a namespace's Events."""
    return _path("/api/v1", namespace, "events", "")


def pods(namespace: str, name: str = "") -> str:
    """The path of a namespace's Pods, or of one."""
    return _path("/api/v1", namespace, "pods", name)


def account_token(namespace: str, account: str, audience: str, seconds: int) -> Request:
    """Asks for a token of a ServiceAccount (TokenRequest), good for so long, for those who call themselves so."""
    spec = {"audiences": [audience], "expirationSeconds": seconds}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return Request("POST", f"{_path('/api/v1', namespace, 'serviceaccounts', account)}/token", body=body)


def services(selector: str) -> Request:
    """The first Services of all namespaces with these labels."""
    return Request("GET", "/api/v1/services", {"labelSelector": selector, "limit": "100"})


def proxied(namespace: str, service: str) -> str:
    """The path under which the API server passes requests on to a service, named [SCHEME:]NAME:PORT."""
    return f"{_path('/api/v1', namespace, 'services', '')}/{quote(service, safe=':')}/proxy"


def log(
    namespace: str, pod: str, *, container: str = "", tail: int = 0, follow: bool = False, times: bool = False
) -> Request:
    """The request whose body is a pod's log, the newest `tail` lines of it, or all; `times`: each after its time."""
    params = {"container": container} if container else {}
    params |= {"tailLines": str(tail)} if tail else {}
    params |= {"timestamps": "true"} if times else {}
    params |= {"follow": "true"} if follow else {}
    return Request("GET", f"{pods(namespace, pod)}/log", params)


def read(path: str, **params: str) -> Request:
    """Gets an object or a list."""
    return Request("GET", path, params)


def create(collection: str, document: Document) -> Request:
    """Creates an object; 409 where there is one."""
    return Request("POST", collection, body=document)


def replace(path: str, document: Document) -> Request:
    """Replaces an object; with a resourceVersion in it, 409 where it has changed since."""
    return Request("PUT", path, body=document)


def patch(path: str, body: Document | list[Document], *, dry_run: bool = False) -> Request:
    """Patches an object: a dict is a merge patch, in which None removes; a list is a JSON patch.

    `dry_run`: the API server checks it, admission included, answers as if, and stores nothing.
    """
    return Request("PATCH", path, {"dryRun": "All"} if dry_run else {}, body)


def who_am_i() -> Request:
    """Asks whom the API takes us for; the answer is for `username`."""
    return Request("POST", SELF_REVIEW, body={"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})


def username(answer: Document | ApiError) -> str:
    """The user of a SelfSubjectReview; "unknown" where the API would not say."""
    if isinstance(answer, ApiError):
        return "unknown"
    info = (answer.get("status") or {}).get("userInfo") or {}
    return str(info.get("username") or "unknown")


class Kubernetes:
    """Runs acts against one API server, blocking. Use it as a context manager, or close it."""

    def __init__(self, entered: Access, *, timeout: float = 10.0, readonly: bool = False) -> None:
        self.access = entered
        self._readonly = readonly
        self._timeout = timeout
        self._http = httpx.Client(**client_options(entered, timeout))
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> Kubernetes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        self._http.close()

    def call(self, act: Act[T]) -> T:
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
                answer = self._take(step)
            except ApiError as failed:
                error = failed

    def events(self, collection: str, resource_version: str, seconds: float, name: str = "") -> Iterator[Document]:
        """The events ({type, object}) of a collection, or of one object in it, for so long."""
        request = Request("GET", collection, watching(resource_version, seconds, name))
        limit = httpx.Timeout(self._timeout, read=max(seconds, 0.05))
        with (
            transport_errors(self.access),
            self._http.stream(**arguments(self.access, request), timeout=limit) as response,
        ):
            if response.status_code != 200:
                response.read()
                refuse(self.access, request, response)
            yield from (json.loads(line) for line in response.iter_lines() if line)

    def _take(self, step: Step) -> Any:
        if isinstance(step, Request):
            return self._send(step)
        if isinstance(step, Change):
            return self._changed(step)
        for request in step.requests:
            allow(self.access, request, self._readonly)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="kubernetes")
        return list(self._threads.map(self._tried, step.requests))

    def _tried(self, request: Request) -> Document | ApiError:
        try:
            return self._send(request)
        except ApiError as error:
            return error

    def _changed(self, step: Change) -> Document | None:
        try:
            for event in self.events(step.collection, step.resource_version, step.seconds, step.name):
                return event["object"] if event["type"] in ("ADDED", "MODIFIED") else None
        except Unreachable:
            return None  # the act reads again, and hears what is wrong
        return None

    def _send(self, request: Request) -> Document:
        allow(self.access, request, self._readonly)
        with transport_errors(self.access):
            response = self._http.request(**arguments(self.access, request))
            if response.status_code == 401 and self.access.credentials.forget():
                response = self._http.request(**arguments(self.access, request))
        return decoded(self.access, request, response)


def connect(config: Config) -> Kubernetes:
    """A client for the API server of the settings. Raises ConfigError where there is none."""
    return Kubernetes(access(config), timeout=config.timeout, readonly=config.readonly)


def allow(entered: Access, request: Request, readonly: bool) -> None:
    """Raises KanaryError for a change where nothing may be changed; a server-side dry run is none."""
    if not readonly or not request.changes or request.params.get("dryRun") == "All":
        return
    if request.path in HARMLESS or _ACCOUNT_TOKEN.fullmatch(request.path):
        return
    raise KanaryError(
        f"Read-only: {request.method} {request.path} was not sent to {entered.url}.",
        "Take away --readonly, KANARY_READONLY or `readonly` in the configuration file to allow it.",
    )


def client_options(entered: Access, timeout: float) -> dict[str, Any]:
    """What an httpx client of this API server is made with."""
    return {
        "base_url": entered.url,
        "verify": entered.tls,
        "timeout": httpx.Timeout(timeout, connect=min(timeout, 5.0)),
        # An operator who watches for minutes must not pay for new connections when it matters.
        "limits": httpx.Limits(keepalive_expiry=60.0),
        "proxy": entered.proxy or None,
        "trust_env": not _is_local(entered.url),
    }


def arguments(entered: Access, request: Request) -> dict[str, Any]:
    """The request as httpx takes it, credentials included; these may run the kubeconfig's exec plugin."""
    headers = {"Accept": "application/json"}
    if authorization := entered.credentials.header():
        headers["Authorization"] = authorization
    found: dict[str, Any] = {"method": request.method, "url": request.path, "params": request.params}
    if request.body is not None:
        headers["Content-Type"] = _content_type(request)
        found["content"] = json.dumps(request.body, separators=(",", ":")).encode()
    if entered.server_name:
        found["extensions"] = {"sni_hostname": entered.server_name}
    return found | {"headers": headers}


def watching(resource_version: str, seconds: float, name: str = "") -> dict[str, str]:
    """The parameters of a watch of a collection, or of one object in it, for so long."""
    params = {"watch": "true", "timeoutSeconds": str(max(1, math.ceil(seconds))), "resourceVersion": resource_version}
    return params | ({"fieldSelector": f"metadata.name={name}"} if name else {})


def decoded(entered: Access, request: Request, response: httpx.Response) -> Document:
    """The JSON of an answer. Raises ApiError for a refusal, and for what is no JSON object."""
    if not 200 <= response.status_code < 300:
        refuse(entered, request, response)
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ApiError(
            f"{entered.url} answered {request.method} {request.path} with something that is not JSON.",
            f"Is it a Kubernetes API? It is the server of the kubeconfig {entered.source}.",
        )
    return found


def refuse(entered: Access, request: Request, response: httpx.Response) -> NoReturn:
    """Raises what a refusal means."""
    try:
        said = response.json().get("message")
    except (ValueError, AttributeError):
        said = None
    reason = f": {shortened(one_line(said), 500)}" if isinstance(said, str) and said else ""
    raise ApiError(
        f"The Kubernetes API answered {request.method} {request.path} with {response.status_code}{reason}",
        _hint(response.status_code, entered),
        status=response.status_code,
    )


def _path(api: str, namespace: str, plural: str, name: str) -> str:
    if not namespace:
        return f"{api}/{plural}"  # of all namespaces
    return f"{api}/namespaces/{quote(namespace, safe='')}/{plural}" + (f"/{quote(name, safe='')}" if name else "")


def _content_type(request: Request) -> str:
    if request.method != "PATCH":
        return "application/json"
    return JSON_PATCH if isinstance(request.body, list) else MERGE_PATCH


def _is_local(url: str) -> bool:
    return httpx.URL(url).host in ("localhost", "127.0.0.1", "::1")


@contextmanager
def transport_errors(entered: Access) -> Generator[None, None, None]:
    """Turns what goes wrong below HTTP into Unreachable."""
    try:
        yield
    except (httpx.TransportError, httpx.InvalidURL, OSError) as error:
        slow = isinstance(error, httpx.TimeoutException)
        raise Unreachable(
            f"The Kubernetes API at {entered.url} "
            + ("did not answer in time." if slow else f"cannot be reached: {error}"),
            f"It is the server of the kubeconfig {entered.source}; `kanary up` starts the sandbox.",
        ) from error


def _hint(status: int, entered: Access) -> str:
    if status in (401, 403):
        return f"The kubeconfig {entered.source} lacks the credentials or the rights."
    if status == 429 or status >= 500:
        return "The server has a problem of its own; try again."
    return ""
