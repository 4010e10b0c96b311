"""The service proxy: /api/v1/namespaces/NS/services/NAME:PORT/proxy/... to the sandbox's parts in endpoints.json.

As the real one does (kubernetes#38775), it does not pass the caller's Authorization on.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sandbox.kubernetes.status import ApiError, not_found

if TYPE_CHECKING:
    import httpx

# The names that KFP's and the usual Prometheus charts' Services have.
ALIASES = {
    "ml-pipeline": "kfp",
    "ml-pipeline-ui": "kfp",
    "prometheus": "prometheus",
    "prometheus-k8s": "prometheus",
    "prometheus-server": "prometheus",
    "prometheus-operated": "prometheus",
    "kube-prometheus-stack-prometheus": "prometheus",
}
# Headers of one hop, and those that the proxy keeps to itself.
HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "authorization"}


@cache
def _client() -> httpx.AsyncClient:
    import httpx

    client = httpx.AsyncClient(timeout=httpx.Timeout(60.0, connect=2.0), trust_env=False)
    # Headers of our own would get answers that the caller cannot read, compressed ones above all.
    for name in list(client.headers):
        del client.headers[name]
    return client


def endpoint(home: Path, service: str) -> str:
    """The URL of a service, named as in the path: [scheme:]name[:port]. Raises ApiError 404, 503."""
    parts = service.split(":")
    name = parts[1] if len(parts) == 3 else parts[0]
    part = ALIASES.get(name, name)
    try:
        known = json.loads((home / "endpoints.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unavailable(service) from error
    entry = known.get(part)
    if isinstance(entry, dict) and isinstance(entry.get("url"), str):
        return str(entry["url"]).rstrip("/")
    if name in ALIASES:
        raise unavailable(service)
    raise not_found("", "services", name)


def unavailable(service: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", f'no endpoints available for service "{service}"')


async def forward(request: Request, home: Path, service: str, path: str, body: bytes) -> Response:
    """Sends the request on and streams the answer back. Raises ApiError 404, 503."""
    import httpx

    url = f"{endpoint(home, service)}/{path}"
    headers = [(key, value) for key, value in request.headers.items() if key not in HOP | {"content-length"}]
    query = request.url.query
    outgoing = _client().build_request(
        request.method, f"{url}?{query}" if query else url, headers=headers, content=body
    )
    try:
        answer = await _client().send(outgoing, stream=True)
    except httpx.TransportError as error:
        raise ApiError(
            503, "ServiceUnavailable", f"error trying to reach service: {error or type(error).__name__}"
        ) from error
    kept = {key: value for key, value in answer.headers.items() if key.lower() not in HOP}
    return StreamingResponse(_relay(answer), answer.status_code, kept)


async def _relay(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()
