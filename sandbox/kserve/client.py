"""A Kubernetes client as small as this controller needs: list, watch, create, patch, delete, all asynchronous."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import httpx

from sandbox.errors import SandboxError
from sandbox.kserve.knative import Document

_PAGE = 500
# The API server sends a bookmark every half minute; a watch that is silent for longer is dead.
_WATCH_SILENCE_S = 90.0
_TIMEOUT_S = 10.0
MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"


class Refused(SandboxError):
    """The API server answered with an error status. `code` is 409 for a conflict, 404 where there is no such thing."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Expired(SandboxError):
    """The resource version is too old to watch from: list again."""


class Unreachable(SandboxError):
    """The API server does not answer."""


@dataclass(frozen=True)
class Kind:
    """A kind by its place in the API."""

    api_version: str
    plural: str

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of an object, or of the collection."""
        root = f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"
        within = f"/namespaces/{namespace}" if namespace else ""
        return "/".join(part for part in (f"{root}{within}/{self.plural}", name, subresource) if part)


INFERENCE_SERVICES = Kind("serving.kserve.io/v1beta1", "inferenceservices")
RUNTIMES = Kind("serving.kserve.io/v1alpha1", "servingruntimes")
CLUSTER_RUNTIMES = Kind("serving.kserve.io/v1alpha1", "clusterservingruntimes")
CONFIG_MAPS = Kind("v1", "configmaps")
EVENTS = Kind("v1", "events")


class Kubernetes:
    """One API server, found through HOME/kubeconfig. Every method raises Unreachable where it does not answer."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._client: httpx.AsyncClient | None = None

    async def list(self, kind: Kind) -> tuple[list[Document], str]:
        """All objects of a kind, and the resource version to watch from."""
        found: list[Document] = []
        query: dict[str, str] = {"limit": str(_PAGE)}
        while True:
            page = await self._ask("GET", kind.path(), params=query)
            found += page.get("items") or []
            more = page["metadata"].get("continue")
            if not more:
                return found, page["metadata"]["resourceVersion"]
            query = {"limit": str(_PAGE), "continue": more}

    async def watch(self, kind: Kind, version: str) -> AsyncIterator[tuple[str, Document]]:
        """What happens from `version` on, bookmarks included, until the server ends the watch. Raises Expired."""
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        timeout = httpx.Timeout(_TIMEOUT_S, read=_WATCH_SILENCE_S)
        client = self._connected()
        try:
            async with client.stream("GET", kind.path(), params=query, timeout=timeout) as response:
                if response.status_code == 410:
                    raise Expired(f"resource version {version} has expired")
                if response.status_code != 200:
                    raise Refused(response.status_code, (await response.aread()).decode(errors="replace"))
                async for line in response.aiter_lines():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        _raise(event["object"])
                    yield event["type"], event["object"]
        except httpx.HTTPError as error:
            await self._lost(client, error)

    async def create(self, kind: Kind, namespace: str, body: Document) -> Document:
        """Create an object; as the server stored it."""
        return await self._ask("POST", kind.path(namespace), body)

    async def patch(
        self, kind: Kind, namespace: str, name: str, patch: Any, *, subresource: str = "", media: str = MERGE
    ) -> Document:
        """Patch an object; as the server stored it."""
        return await self._ask("PATCH", kind.path(namespace, name, subresource), patch, media)

    async def apply(self, kind: Kind, namespace: str, name: str, body: Document, manager: str) -> Document:
        """Server-side apply by `manager`, who takes over every field it names; as the server stored it."""
        query = {"fieldManager": manager, "force": "true"}
        return await self._ask("PATCH", kind.path(namespace, name), body, "application/apply-patch+yaml", query)

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete an object; nothing happens where there is none."""
        try:
            await self._ask("DELETE", kind.path(namespace, name))
        except Refused as refused:
            if refused.code != 404:
                raise

    async def close(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _ask(
        self, method: str, path: str, body: Any = None, media: str = "application/json", params: Any = None
    ) -> Document:
        content = None if body is None else json.dumps(body).encode()
        headers = {"content-type": media} if content is not None else {}
        client = self._connected()
        try:
            answer = await client.request(method, path, content=content, headers=headers, params=params)
        except httpx.HTTPError as error:
            await self._lost(client, error)
        document: Document = answer.json() if answer.content else {}
        if answer.is_error:
            raise Refused(answer.status_code, document.get("message", answer.text))
        return document

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            try:
                config = json.loads(self._kubeconfig.read_text(encoding="utf-8"))
                self._client = _connect(config)
            except (OSError, ValueError, KeyError) as error:
                raise Unreachable(f"{self._kubeconfig} cannot be used: {error}", "is the sandbox up?") from error
        return self._client

    async def _lost(self, client: httpx.AsyncClient, error: httpx.HTTPError) -> NoReturn:
        """The next request reads the kubeconfig anew: a restarted server may have another port."""
        if self._client is client:  # else somebody who lost it, too, was quicker: the new one is others' already
            await self.close()
        raise Unreachable(f"the Kubernetes API does not answer: {type(error).__name__} {error}") from error


def _connect(config: Document) -> httpx.AsyncClient:
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = cluster.get("certificate-authority-data")
    context = ssl.create_default_context(cadata=base64.b64decode(authority).decode()) if authority else True
    return httpx.AsyncClient(
        base_url=cluster["server"],
        headers={"authorization": f"Bearer {user['token']}", "user-agent": "kserve-controller"},
        verify=context,
        timeout=_TIMEOUT_S,
        trust_env=False,
    )


def _raise(status: Document) -> None:
    message = str(status.get("message", ""))
    if status.get("code") == 410:
        raise Expired(message)
    raise Refused(int(status.get("code", 500)), message)
