"""Objects and the log of their changes, in SQLite (WAL), with a copy in memory that answers every read.

One process holds a store (a lock file says so); all calls come from its one thread. A change is on disk before it is
in memory and before any watcher hears of it. Bodies are stored without apiVersion and kind: a resource may have views.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sandbox.errors import AlreadyRunning, SandboxError

Body = dict[str, Any]
Key = tuple[str, str]
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]

# The first versions are a cluster's own start; a client that asks for them is told that they are too old.
SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
  resource TEXT, namespace TEXT, name TEXT, version INTEGER, body BLOB, PRIMARY KEY (resource, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (
  version INTEGER PRIMARY KEY, at REAL, type TEXT, resource TEXT, namespace TEXT, name TEXT, body BLOB, before BLOB
);
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value INTEGER);
INSERT OR IGNORE INTO marks VALUES ('version', 200), ('compacted', 200);
"""


@dataclass(frozen=True, eq=False)
class Stored:
    """One state of one object. `raw` is its JSON; `body` is parsed once, until `fold`, and never changed by anyone."""

    namespace: str
    name: str
    version: int
    raw: bytes

    @cached_property
    def body(self) -> Body:
        return json.loads(self.raw)  # type: ignore[no-any-return]

    @property
    def key(self) -> Key:
        return (self.namespace, self.name)

    def fold(self) -> None:
        """Lets go of the parsed body, several times as big as its JSON."""
        self.__dict__.pop("body", None)


@dataclass(frozen=True, eq=False)
class Change:
    """One write: the state after it (for DELETED the last one, under the deletion's version) and the state before."""

    version: int
    at: float
    type: ChangeType
    resource: str
    after: Stored
    before: Stored | None


class Damaged(SandboxError):
    """The database file cannot be read as one."""


class StorageFailed(SandboxError):
    """A write did not reach the disk; nothing changed."""


class Store:
    """All objects by resource; `listeners` are called with every change, in order."""

    def __init__(self, path: Path, *, keep_changes: int = 5000, keep_seconds: float = 600.0) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _locked(path.with_suffix(".lock"))
        self._database = _opened(path)
        self._keep = (keep_changes, keep_seconds)
        self._objects: dict[str, dict[Key, Stored]] = {}
        self._order: dict[str, list[Key]] = {}
        self._changes: list[Change] = []
        self.listeners: list[Callable[[Change], None]] = []
        marks = dict(self._database.execute("SELECT name, value FROM marks"))
        self.version: int = marks["version"]
        self.compacted: int = marks["compacted"]
        self._load()

    def close(self) -> None:
        self._database.close()
        self._lock.close()

    def get(self, resource: str, namespace: str, name: str) -> Stored | None:
        return self._objects.get(resource, {}).get((namespace, name))

    def objects(self, resource: str, namespace: str = "") -> Iterator[Stored]:
        """Every object of a resource by namespace and name; of one namespace if one is given."""
        objects = self._objects.get(resource, {})
        keys = self._order.get(resource, [])
        if not namespace:
            return (objects[key] for key in keys)
        first = bisect_right(keys, (namespace, ""))
        last = bisect_right(keys, (namespace, "\U0010ffff"))
        return (objects[key] for key in keys[first:last])

    def objects_at(self, resource: str, namespace: str, version: int) -> list[Stored]:
        """The objects as they were at `version`, which must not be older than `compacted`."""
        past = {stored.key: stored for stored in self.objects(resource, namespace)}
        for change in reversed(self.since(version)):
            if change.resource == resource and (not namespace or change.after.namespace == namespace):
                if change.before is None:
                    past.pop(change.after.key, None)
                else:
                    past[change.after.key] = change.before
        return [past[key] for key in sorted(past)]

    def resources(self) -> list[str]:
        return [resource for resource, objects in self._objects.items() if objects]

    def since(self, version: int) -> list[Change]:
        """Changes after `version`, oldest first; the caller has compared `version` with `compacted`."""
        return self._changes[bisect_right(self._changes, version, key=lambda change: change.version) :]

    def put(self, resource: str, namespace: str, name: str, body: Body) -> Stored:
        """Writes an object under the next version, which is also set in its metadata."""
        before = self.get(resource, namespace, name)
        stored = self._next(namespace, name, body)
        self._commit(Change(stored.version, time.time(), "MODIFIED" if before else "ADDED", resource, stored, before))
        return stored

    def delete(self, resource: str, namespace: str, name: str, body: Body | None = None) -> Stored:
        """Removes an object that exists; its last state (`body`, else what was stored) carries the new version."""
        before = self._objects[resource][namespace, name]
        stored = self._next(namespace, name, before.body if body is None else body)
        self._commit(Change(stored.version, time.time(), "DELETED", resource, stored, before))
        return stored

    def compact(self, version: int | None = None) -> None:
        """Forgets changes up to `version`; without one, those beyond the number and age that are kept."""
        if version is None:
            number, seconds = self._keep
            oldest = time.time() - seconds
            old = [c for i, c in enumerate(self._changes) if i < len(self._changes) - number or c.at < oldest]
            if not old:
                return
            version = old[-1].version
        with self._transaction() as database:
            database.execute("DELETE FROM changes WHERE version <= ?", (version,))
            database.execute("UPDATE marks SET value = ? WHERE name = 'compacted'", (version,))
        self._changes = self.since(version)
        self.compacted = version

    def _next(self, namespace: str, name: str, body: Body) -> Stored:
        version = self.version + 1
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
        raw = json.dumps(body, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
        return Stored(namespace, name, version, raw)

    def _commit(self, change: Change) -> None:
        after = change.after
        key = (change.resource, after.namespace, after.name)
        with self._transaction() as database:
            if change.type == "DELETED":
                database.execute("DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?", key)
            else:
                database.execute("REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", (*key, after.version, after.raw))
            before = change.before.raw if change.before else None
            row = (change.version, change.at, change.type, *key, after.raw, before)
            database.execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            database.execute("UPDATE marks SET value = ? WHERE name = 'version'", (change.version,))
        self.version = change.version
        self._remember(change.resource, after, gone=change.type == "DELETED")
        self._changes.append(change)
        for listener in self.listeners:
            listener(change)
        # What is past is in the log for minutes, and is asked for by few.
        for past in (change.before, after if change.type == "DELETED" else None):
            if past is not None:
                past.fold()
        if len(self._changes) > self._keep[0] * 1.2:
            with contextlib.suppress(StorageFailed):  # the change itself is stored and told; the next one tries again
                self.compact()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._database)

    def _remember(self, resource: str, stored: Stored, *, gone: bool = False) -> None:
        objects = self._objects.setdefault(resource, {})
        keys = self._order.setdefault(resource, [])
        if gone:
            del objects[stored.key]
            del keys[bisect_right(keys, stored.key) - 1]
            return
        if stored.key not in objects:
            insort(keys, stored.key)
        objects[stored.key] = stored

    def _load(self) -> None:
        for resource, namespace, name, version, raw in self._database.execute(
            "SELECT resource, namespace, name, version, body FROM objects ORDER BY resource, namespace, name"
        ):
            self._remember(resource, Stored(namespace, name, version, raw))
        for version, at, kind, resource, namespace, name, raw, old in self._database.execute(
            "SELECT version, at, type, resource, namespace, name, body, before FROM changes ORDER BY version"
        ):
            before = None if old is None else Stored(namespace, name, _version_of(old), old)
            after = Stored(namespace, name, version, raw)
            self._changes.append(Change(version, at, kind, resource, after, before))


class _Transaction:
    """BEGIN to COMMIT, or back to how it was; a disk that refuses is a StorageFailed."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise StorageFailed(f"the change was not stored: {error}", "Does another program hold the file?") from error
        return self._database

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self._database.execute("ROLLBACK" if error else "COMMIT")
        except sqlite3.Error as failed:
            error = error or failed
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise StorageFailed(f"the change was not stored: {error}", "Is the disk full?") from error


def _version_of(raw: bytes) -> int:
    return int(json.loads(raw)["metadata"]["resourceVersion"])


def _locked(path: Path) -> Any:
    handle = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise AlreadyRunning(f"{path} is held by another Kubernetes API", "Stop it, or use another --home.") from None
    return handle


def _opened(path: Path) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        os.chmod(path, 0o600)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        # The log is read in ranges only; a small page cache keeps the process small.
        database.execute("PRAGMA cache_size = -2000")
        verdict = database.execute("PRAGMA quick_check").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        database.executescript(SCHEMA)
    except sqlite3.DatabaseError as error:
        hint = f"Move it away, with {path.name}-wal and -shm, to start with nothing stored."
        raise Damaged(f"{path} is damaged: {error}", hint) from error
    return database
