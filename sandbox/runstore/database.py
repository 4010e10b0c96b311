"""The KFP store's SQLite file: opening, schema version, transactions, and big JSON kept once by content hash.

One connection, one writer; a `kill -9` loses no committed row (WAL), a power cut at most the last moments.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxError

SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE blobs (hash TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE experiments (
    experiment_id TEXT PRIMARY KEY, display_name TEXT NOT NULL, description TEXT NOT NULL, namespace TEXT NOT NULL,
    storage_state TEXT NOT NULL, created_at REAL NOT NULL, last_run_created_at REAL NOT NULL,
    UNIQUE (namespace, display_name)
) WITHOUT ROWID;
CREATE INDEX experiments_by_age ON experiments (created_at, experiment_id);

CREATE TABLE pipelines (
    pipeline_id TEXT PRIMARY KEY, name TEXT NOT NULL, display_name TEXT NOT NULL, description TEXT NOT NULL,
    namespace TEXT NOT NULL, created_at REAL NOT NULL,
    UNIQUE (namespace, name)
) WITHOUT ROWID;
CREATE INDEX pipelines_by_age ON pipelines (created_at, pipeline_id);

CREATE TABLE versions (
    pipeline_version_id TEXT PRIMARY KEY, pipeline_id TEXT NOT NULL, name TEXT NOT NULL, display_name TEXT NOT NULL,
    description TEXT NOT NULL, code_source_url TEXT NOT NULL, created_at REAL NOT NULL,
    spec_hash TEXT NOT NULL, platform_hash TEXT NOT NULL,
    UNIQUE (pipeline_id, name)
) WITHOUT ROWID;
CREATE INDEX versions_by_age ON versions (pipeline_id, created_at, pipeline_version_id);
CREATE INDEX versions_by_spec ON versions (spec_hash);

CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, experiment_id TEXT NOT NULL, display_name TEXT NOT NULL, description TEXT NOT NULL,
    namespace TEXT NOT NULL, pipeline_id TEXT NOT NULL, pipeline_version_id TEXT NOT NULL,
    state TEXT NOT NULL, storage_state TEXT NOT NULL, error TEXT NOT NULL,
    created_at REAL NOT NULL, scheduled_at REAL NOT NULL, finished_at REAL,
    pipeline_root TEXT NOT NULL, service_account TEXT NOT NULL, enable_caching INTEGER,
    parameters TEXT NOT NULL, state_history TEXT NOT NULL, spec_hash TEXT NOT NULL, platform_hash TEXT NOT NULL
);
CREATE INDEX runs_by_age ON runs (created_at, run_id);
CREATE INDEX runs_by_experiment ON runs (experiment_id, created_at, run_id);
CREATE INDEX runs_by_storage ON runs (storage_state, created_at, run_id);
CREATE INDEX runs_by_name ON runs (display_name, run_id);
CREATE INDEX runs_by_state ON runs (state, run_id);
CREATE INDEX runs_by_spec ON runs (spec_hash);

CREATE TABLE tasks (
    task_id TEXT PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs ON DELETE CASCADE,
    parent_task_id TEXT NOT NULL, name TEXT NOT NULL, display_name TEXT NOT NULL, kind TEXT NOT NULL,
    state TEXT NOT NULL, created_at REAL NOT NULL, started_at REAL, finished_at REAL,
    error TEXT NOT NULL, pod_name TEXT NOT NULL, attempt INTEGER NOT NULL, cached INTEGER NOT NULL,
    fingerprint TEXT NOT NULL, inputs TEXT NOT NULL, outputs TEXT NOT NULL, state_history TEXT NOT NULL,
    iteration_index INTEGER, iteration_count INTEGER
);
CREATE INDEX tasks_by_run ON tasks (run_id, created_at, task_id);
CREATE INDEX tasks_by_pod ON tasks (pod_name);
CREATE INDEX tasks_by_fingerprint ON tasks (fingerprint, finished_at)
    WHERE fingerprint <> '' AND state = 'SUCCEEDED' AND kind = 'POD';
"""

# What makes a file of version n one of version n + 1.
_CHANGES = {
    1: """
ALTER TABLE tasks ADD COLUMN iteration_index INTEGER;
ALTER TABLE tasks ADD COLUMN iteration_count INTEGER;
""",
}


def canonical(value: Any) -> str:
    """`value` as compact ASCII JSON with sorted keys: equal documents give equal text, and any text can be kept."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class Database:
    """An open store file, created on first use. Every statement of one `transaction` is kept, or none is."""

    def __init__(self, path: Path) -> None:
        """Raises SandboxError when the file is damaged or was written by a newer Kanary."""
        self.path = path
        self._lock = threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise SandboxError(
                f"The store {path} cannot be read: {error}.", "Move the file away to start with an empty one."
            ) from error
        except SandboxError:
            self._connection.close()
            raise
        # Specs are shared by many runs and never change: decode each once. The cache is bounded, big ones included.
        self._decoded = functools.lru_cache(maxsize=64)(self._decode)

    def _prepare(self) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "cache_size=-16384"):
            self._connection.execute(f"PRAGMA {pragma}")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise SandboxError(
                f"The store {self.path} has schema version {version}; this Kanary knows up to {SCHEMA_VERSION}.",
                "Use the newer Kanary, or another home folder.",
            )
        if version == 0:
            self._connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
            return
        for before in range(version, SCHEMA_VERSION):
            self._connection.executescript(f"BEGIN;{_CHANGES[before]}PRAGMA user_version={before + 1};COMMIT;")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection inside one transaction; nested ones join the outermost."""
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, values: tuple[Any, ...] = ()) -> sqlite3.Row | None:
        with self._lock:
            found: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
            return found

    def put_blob(self, value: dict[str, Any]) -> str:
        """Keeps `value` once and gives its hash; the empty document is "" and takes no room."""
        if not value:
            return ""
        body = canonical(value)
        digest = hashlib.sha256(body.encode()).hexdigest()
        with self.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", (digest, body))
        return digest

    def get_blob(self, digest: str) -> dict[str, Any]:
        """The document of that hash. Shared with other callers: read it, never change it."""
        return self._decoded(digest) if digest else {}

    def _decode(self, digest: str) -> dict[str, Any]:
        row = self.row("SELECT body FROM blobs WHERE hash = ?", (digest,))
        if row is None:
            raise SandboxError(f"The store {self.path} lacks the document {digest[:12]}.")
        document: dict[str, Any] = json.loads(row["body"])
        return document

    def drop_blobs(self, *digests: str) -> None:
        """Forgets those documents that no run and no pipeline version refers to any more."""
        with self.transaction() as connection:
            for digest in filter(None, digests):
                connection.execute(
                    "DELETE FROM blobs WHERE hash = :h"
                    " AND NOT EXISTS (SELECT 1 FROM runs WHERE spec_hash = :h OR platform_hash = :h)"
                    " AND NOT EXISTS (SELECT 1 FROM versions WHERE spec_hash = :h OR platform_hash = :h)",
                    {"h": digest},
                )
