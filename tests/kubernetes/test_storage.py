"""The store: what is written stays, the past can be read until it is compacted, a bad file or disk is said plainly."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import AlreadyRunning
from sandbox.kubernetes.storage import Damaged, StorageFailed, Store

Body = dict[str, Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store(path)
    yield opened
    opened.close()


def thing(name: str, **more: Any) -> Body:
    return {"metadata": {"name": name}, **more}


def names(store: Store, namespace: str = "") -> list[str]:
    return [stored.name for stored in store.objects("things", namespace)]


def test_objects_are_listed_by_namespace_and_name(store: Store) -> None:
    for namespace, name in (("b", "x"), ("a", "z"), ("a", "y"), ("aa", "w")):
        store.put("things", namespace, name, thing(name))
    assert names(store) == ["y", "z", "w", "x"]
    assert names(store, "a") == ["y", "z"]


def test_each_write_has_its_own_version(store: Store) -> None:
    first = store.put("things", "n", "a", thing("a"))
    second = store.put("things", "n", "a", thing("a", spec=1))
    gone = store.delete("things", "n", "a")
    assert first.version < second.version < gone.version == store.version
    assert gone.body["metadata"]["resourceVersion"] == str(gone.version)
    assert [change.type for change in store.since(first.version - 1)] == ["ADDED", "MODIFIED", "DELETED"]


def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    store = Store(path)
    written = store.put("things", "n", "a", thing("a", spec={"k": "ü"}))
    store.put("things", "n", "b", thing("b"))
    store.delete("things", "n", "b")
    store.close()
    again = Store(path)
    assert names(again) == ["a"]
    found = again.get("things", "n", "a")
    assert found is not None
    assert (found.body, found.version) == (written.body, written.version)
    assert [change.type for change in again.since(written.version)] == ["ADDED", "DELETED"]
    assert again.put("things", "n", "c", thing("c")).version == again.version > written.version + 2
    again.close()


def test_the_past_can_be_listed(store: Store) -> None:
    store.put("things", "n", "a", thing("a", spec=1))
    store.put("things", "n", "b", thing("b"))
    then = store.version
    store.put("things", "n", "a", thing("a", spec=2))
    store.delete("things", "n", "b")
    store.put("things", "n", "c", thing("c"))
    past = store.objects_at("things", "n", then)
    assert [(stored.name, stored.body.get("spec")) for stored in past] == [("a", 1), ("b", None)]
    assert names(store) == ["a", "c"]


def test_compaction_forgets_changes_and_keeps_objects(path: Path) -> None:
    store = Store(path, keep_changes=10)
    for number in range(100):
        store.put("things", "n", f"a{number % 7}", thing("a", spec=number))
    assert len(store.since(0)) <= 12
    store.compact()
    assert store.compacted == store.version - 10
    assert len(names(store)) == 7
    store.close()
    again = Store(path)
    assert (again.compacted, len(again.since(0))) == (again.version - 10, 10)
    again.close()


def test_changes_older_than_a_while_go(path: Path) -> None:
    store = Store(path, keep_seconds=0.0)
    store.put("things", "n", "a", thing("a"))
    store.compact()
    assert store.compacted == store.version
    store.close()


def test_listeners_hear_of_a_change_once_it_is_stored(store: Store, path: Path) -> None:
    seen = []

    def listen(change: Any) -> None:
        with sqlite3.connect(path) as other:
            seen.append(other.execute("SELECT max(version) FROM objects").fetchone()[0] == change.version)

    store.listeners.append(listen)
    store.put("things", "n", "a", thing("a"))
    assert seen == [True]


def test_a_second_store_on_the_same_file_is_refused(store: Store, path: Path) -> None:
    with pytest.raises(AlreadyRunning):
        Store(path)


def test_a_damaged_file_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever its name says" * 100)
    before = path.read_bytes()
    with pytest.raises(Damaged, match=r"state\.sqlite"):
        Store(path)
    assert path.read_bytes() == before


def test_a_full_disk_changes_nothing(store: Store) -> None:
    store.put("things", "n", "a", thing("a", spec=1))
    version = store.version
    heard: list[Any] = []
    store.listeners.append(heard.append)
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFailed, match="full"):
        store.put("things", "n", "a", thing("a", spec="x" * 1_000_000))
    found = store.get("things", "n", "a")
    assert found is not None
    assert (found.body["spec"], store.version, heard) == (1, version, [])
    store._database.execute("PRAGMA max_page_count = 1000000")
    assert store.put("things", "n", "a", thing("a", spec=2)).version == version + 1


def test_a_database_that_somebody_else_holds_refuses_a_change_and_changes_nothing(store: Store, path: Path) -> None:
    store._database.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageFailed, match="locked"):
        store.put("things", "n", "a", thing("a"))
    other.close()
    assert names(store) == []
    store.put("things", "n", "a", thing("a"))
    assert names(store) == ["a"]


def test_the_database_is_its_owners_alone(store: Store, path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0


def test_what_is_past_is_kept_as_json_alone(store: Store) -> None:
    for number in range(3):
        store.put("things", "a", "x", thing("x", data={"number": str(number)}))
        assert store.get("things", "a", "x").body["data"] == {"number": str(number)}  # type: ignore[union-attr]
    store.delete("things", "a", "x")
    states = [one for change in store.since(0) for one in (change.before, change.after) if one is not None]
    assert not [one.version for one in states if "body" in vars(one)]
    assert [one.body["data"]["number"] for one in states] == ["0", "0", "1", "1", "2", "2", "2"]


def test_a_change_is_told_though_there_is_no_room_to_forget_older_ones(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, heard = Store(path, keep_changes=1), []
    store.listeners.append(lambda change: heard.append(change.after.name))

    def full(version: int | None = None) -> None:
        raise StorageFailed("the disk is full")

    monkeypatch.setattr(store, "compact", full)
    for name in ("a", "b", "c"):
        store.put("things", "n", name, thing(name))
    assert heard == names(store) == ["a", "b", "c"]
    store.close()
