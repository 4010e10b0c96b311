"""Responses as JSON text. Documents that the store keeps as text go into it as they are."""

from __future__ import annotations

import json
import math
import re
import secrets
from dataclasses import dataclass
from typing import Any

# Stands for such a text until all around it is encoded. Nobody outside this process can know it, so none can send it.
_MARK = secrets.token_hex(16)
_MARKED = re.compile(f'"{_MARK}:([0-9]+)"')


@dataclass(frozen=True, eq=False)
class Encoded:
    """JSON text that is part of a response."""

    text: str


def encode(content: Any) -> str:
    """`content` as compact JSON. Numbers JSON lacks, which a step may well have produced, are shown as text."""
    texts: list[str] = []

    def mark(value: Any) -> str:
        if not isinstance(value, Encoded):
            raise TypeError(f"{type(value).__name__} has no JSON")
        texts.append(value.text)
        return f"{_MARK}:{len(texts) - 1}"

    try:
        text = json.dumps(content, allow_nan=False, separators=(",", ":"), default=mark)
    except ValueError:
        texts.clear()
        text = json.dumps(_finite(content), separators=(",", ":"), default=mark)
    return _MARKED.sub(lambda found: texts[int(found[1])], text) if texts else text


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
