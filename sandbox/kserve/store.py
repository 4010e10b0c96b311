"""Revision history on disk: one record a service, by the uid of its InferenceService. Survives kill -9."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sandbox.kserve.knative import Components, Knative, Revision, Target, Template

_SCHEMA = "CREATE TABLE IF NOT EXISTS services (uid TEXT PRIMARY KEY, record TEXT NOT NULL)"

_logger = logging.getLogger(__name__)


class Store:
    """The records. Every method is done in well under a millisecond. A file that cannot be read is put aside."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = _open(path)
        except sqlite3.DatabaseError as error:
            _logger.error("%s cannot be read (%s); it is put aside", path, error)
            for part in path.parent.glob(f"{path.name}*"):
                part.replace(part.with_name(f"unreadable.{part.name}"))
            self._connection = _open(path)

    def load(self) -> dict[str, Components]:
        """Every record by uid; one that makes no sense is left out."""
        found: dict[str, Components] = {}
        for uid, record in self._connection.execute("SELECT uid, record FROM services"):
            try:
                found[uid] = {kind: knative_from(part) for kind, part in json.loads(record).items()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                _logger.error("the record of %s cannot be read: %s", uid, error)
        return found

    def save(self, uid: str, components: Components) -> None:
        """Keep a record; an empty one is forgotten."""
        if not components:
            self._connection.execute("DELETE FROM services WHERE uid = ?", (uid,))
            return
        record = json.dumps({kind: asdict(part) for kind, part in components.items()}, separators=(",", ":"))
        self._connection.execute("INSERT OR REPLACE INTO services VALUES (?, ?)", (uid, record))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_SCHEMA)
        connection.execute("PRAGMA quick_check").fetchall()
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def knative_from(document: Mapping[str, Any]) -> Knative:
    """The record in a JSON document."""
    made: dict[str, Any] = dict(document)
    made["traffic"] = tuple(Target(**target) for target in document["traffic"])
    made["routed"] = tuple(Target(**target) for target in document["routed"])
    made["revisions"] = tuple(_revision(revision) for revision in document["revisions"])
    return Knative(**made)


def _revision(document: Mapping[str, Any]) -> Revision:
    template = dict(document["template"])
    template["preload"] = tuple(template["preload"])
    return Revision(**{**document, "template": Template(**template)})
