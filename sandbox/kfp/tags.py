"""Tags of pipelines and versions: what is taken for one. Source: model/pipeline_tags.go of kubeflow/pipelines."""

from __future__ import annotations

from typing import Any

from sandbox.documents import parse_json
from sandbox.errors import InvalidSpec

_MOST = 20
_LONGEST = 63


def checked(value: Any, where: str) -> dict[str, str]:
    """`value` as tags. Raises InvalidSpec."""
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidSpec("not an object of texts", where)
    if len(value) > _MOST:
        raise InvalidSpec(f"{len(value)} tags, at most {_MOST} are kept", where)
    for key, item in value.items():
        if not key or "." in key or len(key) > _LONGEST:
            raise InvalidSpec(f"{key[:80]!r} cannot be a key: 1 to {_LONGEST} characters, and no dot", where)
        if len(item) > _LONGEST:
            raise InvalidSpec(f"the value of {key!r} is longer than {_LONGEST} characters", where)
    return value


def parsed(text: str, where: str) -> dict[str, str]:
    """The tags of an upload's query parameter, {} for "". Raises InvalidSpec."""
    return checked(parse_json(text, where), where) if text else {}
