"""The words of a rollback: its kinds, and its next step. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kanary import manifests
from kanary.manifests import Document

CANARY, PROMOTION, CONTENT, IN_PLACE = "canary", "promotion", "content", "in place"
STOP, RESTORE, FINISH, WAIT, COMPLETE, STUCK = "stop", "restore", "finish", "wait", "complete", "stuck"


@dataclass(frozen=True)
class Action:
    """The next step: a merge patch to send (STOP, RESTORE, FINISH), or, with none, to wait, to be complete or stuck."""

    kind: str
    patch: Document | None = None
    why: str = ""


def same(content: Mapping[str, Any], target: Mapping[str, Any]) -> bool:
    """Whether two predictors, their percentage left out, are the same."""
    return not manifests.merge_patch(content, target)


def patch_of(service: Mapping[str, Any], spec: Document) -> Document:
    """The merge patch of the spec that is refused (409) where the service has changed."""
    version = (service.get("metadata") or {}).get("resourceVersion")
    return {"metadata": {"resourceVersion": version}, "spec": spec}
