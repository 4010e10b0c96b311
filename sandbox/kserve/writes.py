"""What the controller writes to an InferenceService: its status and its finalizer, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.kserve.client import INFERENCE_SERVICES, JSON_PATCH, Kubernetes, Refused
from sandbox.kserve.knative import Document

FINALIZER = "inferenceservice.finalizers"


class Writes:
    """Patches one InferenceService at a time; `learn` is told what the server has stored."""

    def __init__(self, client: Kubernetes, learn: Callable[[Document], None]) -> None:
        self._client = client
        self._learn = learn

    async def status(self, service: Document, status: Document) -> None:
        """Replace the status of this very object: one of the same name created since is another."""
        test = {"op": "test", "path": "/metadata/uid", "value": service["metadata"]["uid"]}
        replace = {"op": "add", "path": "/status", "value": status}
        await self._patch(service, [test, replace], subresource="status", media=JSON_PATCH)

    async def add_finalizer(self, service: Document) -> None:
        """Have the object wait for this controller before it goes."""
        known = service["metadata"].get("finalizers") or []
        await self._patch(service, {"metadata": {"finalizers": [*known, FINALIZER]}})

    async def remove_finalizer(self, service: Document) -> None:
        """Let the object go."""
        left = [name for name in service["metadata"].get("finalizers") or [] if name != FINALIZER]
        await self._patch(service, {"metadata": {"finalizers": left, "uid": service["metadata"]["uid"]}})

    async def _patch(self, service: Document, patch: Any, **how: str) -> None:
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        try:
            self._learn(await self._client.patch(INFERENCE_SERVICES, namespace, name, patch, **how))
        except Refused as refused:
            if refused.code != 404:
                raise
