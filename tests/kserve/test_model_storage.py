"""Where a model comes from: copies that nothing changes, and reasons where there is none."""

from __future__ import annotations

import functools
import io
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sandbox.modelserver import storage
from sandbox.modelserver.storage import StorageFailed, delete, discard_unused, fetch


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.json").write_text("{}", encoding="utf-8")
    (folder / "sub" / "weights").write_bytes(b"1234")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_copied_once_and_anew_when_it_has_changed(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = fetch(str(source), home)
    assert first == fetch(str(source), home)
    assert files(first) == files(source)
    (source / "model.json").write_text("{ }", encoding="utf-8")
    second = fetch(str(source), home)
    assert second != first
    assert (first / "model.json").read_text(encoding="utf-8") == "{}"


def test_a_single_file_lies_in_the_folder_under_its_name(source: Path, tmp_path: Path) -> None:
    assert files(fetch(f"file://{source}/model.json", tmp_path / "home")) == {"model.json": b"{}"}


def test_a_claim_is_a_folder_of_the_home_and_nothing_outside_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "pvc" / "claim" / "m").mkdir(parents=True)
    (home / "pvc" / "claim" / "m" / "model").write_text("x", encoding="utf-8")
    assert files(fetch("pvc://claim/m", home)) == {"model": b"x"}
    with pytest.raises(StorageFailed, match="leaves the claim"):
        fetch("pvc://claim/../../..", home)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("/no/such/folder", "does not exist"),
        ("relative/path", "must be absolute"),
        ("minio://mlpipeline/m", "s3://"),
        ("oci://registry/m", "scheme oci"),
        ("pvc://claim/none", "does not exist"),
    ],
)
def test_what_cannot_be_had_is_a_reason(uri: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(StorageFailed) as failed:
        fetch(uri, tmp_path)
    assert words in str(failed.value)


def test_an_empty_folder_is_no_model_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageFailed, match="holds no file"):
        fetch(str(tmp_path / "empty"), tmp_path / "home")
    assert list((tmp_path / "home" / "kserve" / "models").iterdir()) == []


def archive(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "model.tar.gz", mode="w:gz") as made:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 2
            made.addfile(entry, io.BytesIO(b"{}"))


def test_a_remote_archive_is_unpacked_inside_its_folder(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            uri = f"http://127.0.0.1:{server.server_port}/model.tar.gz"
            archive(tmp_path / "served", "model.json")
            assert files(fetch(uri, tmp_path / "home")) == {"model.json": b"{}"}
            archive(tmp_path / "served", "model.json", "../escape")
            with pytest.raises(StorageFailed, match="outside the destination"):
                fetch(uri, tmp_path / "home")
        finally:
            server.shutdown()
            thread.join()
    assert not list(tmp_path.rglob("escape"))


def test_only_models_that_no_server_has_are_deleted(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    kept = fetch(str(source), home)
    (source / "model.json").write_text("other", encoding="utf-8")
    unused = fetch(str(source), home)
    delete(discard_unused(home, {kept}))
    assert list(kept.parent.iterdir()) == [kept]
    assert fetch(str(source), home) == unused


def test_a_model_that_is_deleted_meanwhile_is_nobodys_to_move(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    first = fetch(str(source), home)
    (source / "model.json").write_text("other", encoding="utf-8")
    second = fetch(str(source), home)
    goes, listed = discard_unused(home, {second})[0], list(first.parent.iterdir())
    delete([goes])
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(listed))  # as it was a moment ago
    delete(discard_unused(home, set()))
    monkeypatch.undo()
    assert list(first.parent.iterdir()) == []


def test_two_that_fetch_the_same_model_at_once_have_one_copy(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, quicker = tmp_path / "home", []

    def another(_: Path) -> None:
        monkeypatch.undo()
        quicker.append(fetch(str(source), home))

    monkeypatch.setattr(storage, "_make_read_only", another)
    assert [fetch(str(source), home)] == quicker == list((home / "kserve" / "models").iterdir())
