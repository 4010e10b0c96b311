"""Asks a model server whether it is ready, as a kubelet would. Never keeps a connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

_DEFAULT_PATH = "/v2/health/ready"
_MAX_ANSWER = 1 << 16


async def is_ready(port: int, inside: int, probe: Mapping[str, Any] | None) -> bool:
    """Whether the server on `port` of 127.0.0.1 is ready by a container's readinessProbe.

    Without one: GET /v2/health/ready; a server that does not know that path (4xx) is ready as soon as it answers.
    `inside` is the container's port: a probe of another port is a probe of whether there is a server at all.
    """
    timeout = float((probe or {}).get("timeoutSeconds") or 1)
    http = (probe or {}).get("httpGet")
    try:
        async with asyncio.timeout(timeout):
            if probe is not None and http is None:
                return await _connects(port)
            if http is not None and http.get("port") not in (inside, str(inside), None) and _number(http["port"]):
                return await _connects(port)
            headers = {entry["name"]: entry["value"] for entry in (http or {}).get("httpHeaders") or []}
            status, body = await _get(port, (http or {}).get("path") or ("/" if http else _DEFAULT_PATH), headers)
    except (OSError, TimeoutError, ValueError):
        return False
    if http is not None:
        return 200 <= status < 400
    return (200 <= status < 400 and _says_ready(body)) or 400 <= status < 500


def period(probe: Mapping[str, Any] | None) -> float:
    """Seconds between two probes of a server that was ready."""
    return float((probe or {}).get("periodSeconds") or 10)


def initial_delay(probe: Mapping[str, Any] | None) -> float:
    """Seconds from the start to the first probe."""
    return float((probe or {}).get("initialDelaySeconds") or 0)


def failure_threshold(probe: Mapping[str, Any] | None) -> int:
    """So many misses in a row count as a failure."""
    return int((probe or {}).get("failureThreshold") or 3)


def success_threshold(probe: Mapping[str, Any] | None) -> int:
    """So many answers in a row after a failure count as a success."""
    return int((probe or {}).get("successThreshold") or 1)


def _says_ready(body: bytes) -> bool:
    """The V2 protocol answers 200 with {"ready": false} while models load."""
    try:
        answer = json.loads(body)
    except ValueError:
        return True
    return not isinstance(answer, dict) or answer.get("ready") is not False


def _number(port: object) -> bool:
    return isinstance(port, int) or (isinstance(port, str) and port.isdigit())


async def _connects(port: int) -> bool:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    return True


async def _get(port: int, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close", "User-Agent: kube-probe/1.36"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join((*lines, "", "")).encode())
        status = int((await reader.readline()).split()[1:2][0])
        length = _MAX_ANSWER
        while header := (await reader.readline()).strip():
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = min(int(value), _MAX_ANSWER)
        body = b""
        while len(body) < length and (chunk := await reader.read(length - len(body))):
            body += chunk
        return status, body
    except IndexError as error:
        raise ValueError("not an HTTP answer") from error
    finally:
        writer.close()
