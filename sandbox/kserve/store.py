"""What the controller remembers on disk: one record a service, by the uid of its InferenceService. Survives kill -9."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from sandbox.kserve.knative import Components, Knative, Revision, Target, Template
from sandbox.kserve.standard import Backend, Deployment, Leaving, Scaler, Standard

_SCHEMA = "CREATE TABLE IF NOT EXISTS services (uid TEXT PRIMARY KEY, record TEXT NOT NULL)"

_logger = logging.getLogger(__name__)
Record = TypeVar("Record", Components, Standard)


class Store(Generic[Record]):
    """The records of one mode; `read` makes one of its JSON document, or raises KeyError, TypeError, ValueError or
    AttributeError.

    Every method is done in well under a millisecond. A file that cannot be read is put aside.
    """

    def __init__(self, path: Path, read: Callable[[Mapping[str, Any]], Record]) -> None:
        self._read: Callable[[Mapping[str, Any]], Record] = read
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = _open(path)
        except sqlite3.DatabaseError as error:
            _logger.error("%s cannot be read (%s); it is put aside", path, error)
            for part in path.parent.glob(f"{path.name}*"):
                part.replace(part.with_name(f"unreadable.{part.name}"))
            self._connection = _open(path)

    def load(self) -> dict[str, Record]:
        """Every record by uid; one that makes no sense is left out."""
        found: dict[str, Record] = {}
        for uid, record in self._connection.execute("SELECT uid, record FROM services"):
            try:
                found[uid] = self._read(json.loads(record))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                _logger.error("the record of %s cannot be read: %s", uid, error)
        return found

    def save(self, uid: str, record: Record | None) -> None:
        """Keep a record; an empty one, or None, is forgotten."""
        if not record:
            self._connection.execute("DELETE FROM services WHERE uid = ?", (uid,))
            return
        text = json.dumps(record, default=asdict, separators=(",", ":"))
        self._connection.execute("INSERT OR REPLACE INTO services VALUES (?, ?)", (uid, text))

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


def components_from(document: Mapping[str, Any]) -> Components:
    """The record in a JSON document."""
    return {kind: _knative_from(part) for kind, part in document.items()}


def _knative_from(document: Mapping[str, Any]) -> Knative:
    made: dict[str, Any] = dict(document)
    made["traffic"] = tuple(Target(**target) for target in document["traffic"])
    made["routed"] = tuple(Target(**target) for target in document["routed"])
    made["revisions"] = tuple(_revision(revision) for revision in document["revisions"])
    return Knative(**made)


def _revision(document: Mapping[str, Any]) -> Revision:
    template = dict(document["template"])
    template["preload"] = tuple(template["preload"])
    return Revision(**{**document, "template": Template(**template)})


def standard_from(document: Mapping[str, Any]) -> Standard:
    """The record in a JSON document."""
    made: dict[str, Any] = dict(document)
    made["deployments"] = tuple(_deployment_from(one) for one in document["deployments"])
    made["scalers"] = tuple(Scaler(**one) for one in document["scalers"])
    made["leaving"] = tuple(Leaving(**{**one, "revision": _revision(one["revision"])}) for one in document["leaving"])
    made["routed"] = tuple(Backend(**one) for one in document["routed"])
    return Standard(**made)


def _deployment_from(document: Mapping[str, Any]) -> Deployment:
    return Deployment(**{**document, "revisions": tuple(_revision(one) for one in document["revisions"])})
