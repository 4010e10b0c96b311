"""The KFP store's SQLite file: opening, schema version, transactions, and big JSON kept once by content hash.

One connection, one writer; a `kill -9` loses no committed row (WAL), a power cut at most the last moments.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxError
from sandbox.runstore.schema import SCHEMA_VERSION, STEPS

_HELD_BYTES = 16 * 1024 * 1024  # of documents that are held decoded, as text; decoded they take some times that
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Damaged(SandboxError):
    """The file is no database, or one whose pages contradict each other; a locked or full disk is not that."""


def canonical(value: Any) -> str:
    """`value` as compact ASCII JSON with sorted keys: equal documents give equal text, and any text can be kept."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class Document(dict[str, Any]):
    """A kept document, decoded, with the JSON `text` that it was decoded from: what is shown is not encoded again."""

    text: str = ""


def text_bytes(document: dict[str, Any]) -> int:
    """How long a document from the store is as text; 0 for any other."""
    return len(document.text) if isinstance(document, Document) else 0


class Database:
    """An open store file, created on first use. Every statement of one `transaction` is kept, or none is."""

    def __init__(self, path: Path) -> None:
        """Raises Damaged, and SandboxError when the file was written by a newer Kanary or cannot be had."""
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
        except (OSError, sqlite3.OperationalError) as error:
            raise SandboxError(f"The store {path} cannot be opened: {error}.") from error
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
            raise (Damaged if damaged else SandboxError)(
                f"The store {path} cannot be read: {error}.", "Move the file away to start with an empty one."
            ) from error
        except SandboxError:
            self._connection.close()
            raise
        # Specs are shared by many runs and never change: each is decoded once, while it is used.
        self._decoded: OrderedDict[str, Document] = OrderedDict()
        self._held = 0  # bytes of their texts

    def _prepare(self) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "cache_size=-16384"):
            self._connection.execute(f"PRAGMA {pragma}")
        (self.opened_version,) = self._connection.execute("PRAGMA user_version").fetchone()
        version = self.opened_version
        if version > SCHEMA_VERSION:
            raise SandboxError(
                f"The store {self.path} has schema version {version}; this Kanary knows up to {SCHEMA_VERSION}.",
                "Use the newer Kanary, or another home folder.",
            )
        if version:
            (found,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise Damaged(f"The store {self.path} is damaged: {found}.")
        for number, step in enumerate(STEPS[version:], version + 1):
            self._connection.executescript(f"BEGIN IMMEDIATE;{step}PRAGMA user_version={number};COMMIT;")

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
        if not digest:
            return {}
        with self._lock:
            found = self._decoded.get(digest)
            if found is None:
                found = self._decoded[digest] = self._decode(digest)
                self._held += len(found.text)
                while self._held > _HELD_BYTES and len(self._decoded) > 1:
                    self._held -= len(self._decoded.popitem(last=False)[1].text)
            self._decoded.move_to_end(digest)
            return found

    def _decode(self, digest: str) -> Document:
        row = self.row("SELECT body FROM blobs WHERE hash = ?", (digest,))
        if row is None:
            raise SandboxError(f"The store {self.path} lacks the document {digest[:12]}.")
        document = Document(json.loads(row["body"]))
        document.text = row["body"]
        return document

    def drop_blobs(self, *digests: str) -> None:
        """Forgets those documents that no run and no pipeline version refers to any more."""
        with self.transaction() as connection:
            for digest in filter(None, digests):
                connection.execute(
                    "DELETE FROM blobs WHERE hash = :h"
                    " AND NOT EXISTS (SELECT 1 FROM runs WHERE spec_hash = :h OR platform_hash = :h)"
                    " AND NOT EXISTS (SELECT 1 FROM versions WHERE spec_hash = :h OR platform_hash = :h)"
                    " AND NOT EXISTS (SELECT 1 FROM recurring_runs WHERE spec_hash = :h OR platform_hash = :h)",
                    {"h": digest},
                )
