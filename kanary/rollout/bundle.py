"""The evidence bundle: what a rollout rested on, as one JSON document: the same bytes for the same record."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kanary.rollout import record as records
from kanary.rollout.record import Record

FORMAT = "kanary-rollout-evidence/1"


def bundle(record: Record, service: str, namespace: str) -> dict[str, Any]:
    """The document: policy, numbers by step, verdicts, who said and did what and when, the judge's last evidence."""
    plain = records.as_json(record)
    return {
        "format": FORMAT,
        "service": service,
        "namespace": namespace,
        "rollout": record.id,
        "run_id": record.run_id,
        "outcome": record.outcome or record.phase,
        "why": record.why,
        "who": record.who,
        "started": record.started,
        "ended": record.ended,
        "canary": {"revision": record.canary, "version": record.version, "digest": record.digest},
        "stable": {"revision": record.stable, "version": record.stable_version},
        "policy": plain["policy"],
        "profile": record.profile,
        "steps": plain["steps"],
        "verdict": {"kind": record.verdict, "sentence": record.sentence, "findings": plain["findings"]},
        "acts": plain["acts"],
        "log": plain["log"],
        "points": plain["points"],
        "evidence": plain["evidence"],
    }


def written(document: dict[str, Any]) -> bytes:
    """The document as it is stored and hashed: UTF-8, keys sorted."""
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def sha256(content: bytes) -> str:
    """The hash that the release history keeps of a bundle: hexadecimal."""
    return hashlib.sha256(content).hexdigest()
