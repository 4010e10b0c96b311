"""What could not be read, kept for a person to look at: the newest of it, in two files of bounded size."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

_BODY_BYTES = 16 * 1024
_SHOWN = (b"ce-id", b"ce-type", b"ce-time", b"ce-namespace", b"ce-inferenceservicename", b"ce-revision")


@dataclass
class Quarantine:
    """`limit` is in bytes of both files together: FOLDER/quarantine.jsonl and the one before it."""

    folder: Path
    limit: int

    def put(self, at: float, reason: str, why: str, headers: Mapping[bytes, bytes], body: bytes) -> None:
        """Keep one event, its body cut to 16 KiB. A full disk loses it: it is counted all the same."""
        line = orjson.dumps(
            {
                "at": at,
                "reason": reason,
                "why": why[:500],
                "headers": {
                    name.decode(): headers[name].decode("utf-8", "replace")[:500] for name in _SHOWN if name in headers
                },
                "body": base64.b64encode(body[:_BODY_BYTES]).decode(),
                "bytes": len(body),
            }
        )
        path = self.folder / "quarantine.jsonl"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size + len(line) > self.limit // 2:
                os.replace(path, self.folder / "quarantine.1.jsonl")
            with path.open("ab") as file:
                file.write(line + b"\n")
        except OSError:
            return
