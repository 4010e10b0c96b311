from __future__ import annotations

import csv
import decimal
import functools
import gzip
import http.server
import importlib.util
import io
import json
import statistics
import threading
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.content import ContentHash, canonical
from components.ingest.table import ingest_table, profile_page
from components.profile import DISTINCT_LIMIT, Profiler
from components.source import read_text, shown
from kanary.errors import DataError, InputError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def packed(content: bytes) -> bytes:
    """Gzip without a timestamp: test ids are made of it, and must be the same in every process."""
    return gzip.compress(content, mtime=0)


def raw(folder: Path, content: bytes, name: str = "data.csv") -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def refusal(folder: Path, content: bytes, name: str = "data.csv", format: str = "") -> str:
    with pytest.raises(DataError) as caught:
        ingest_table(raw(folder, content, name), folder / "out.parquet", format)
    assert not list(folder.glob("out.parquet*")), "a refused file leaves nothing behind"
    return caught.value.message


def test_csv_is_kept_as_text_just_as_it_is_written(tmp_path: Path) -> None:
    content = 'id,size,note\n007,1e400,"a ""b"", c"\n2, 5 ,\n\n3,abc,"two\nlines"\n'
    ingested = ingest_table(raw(tmp_path, content.encode()), tmp_path / "out.parquet")
    assert rows_of(tmp_path / "out.parquet") == [
        {"id": "007", "size": "1e400", "note": 'a "b", c'},
        {"id": "2", "size": " 5 ", "note": ""},
        {"id": "3", "size": "abc", "note": "two\nlines"},
    ]
    assert (ingested.rows, ingested.format) == (3, "csv")


def test_a_column_without_a_name_is_named_after_its_position(tmp_path: Path) -> None:
    ingest_table(raw(tmp_path, b",size,\n0,1.5,x\n"), tmp_path / "out.parquet")
    assert rows_of(tmp_path / "out.parquet") == [{"column_1": "0", "size": "1.5", "column_3": "x"}]


def test_compression_line_ends_byte_order_mark_and_quoting_leave_the_hash_alone(tmp_path: Path) -> None:
    plain = b"name,size\nM\xc3\xbcller,1\nx,2\n"
    spellings = {
        "plain.csv": plain,
        "packed.csv.gz": packed(plain),
        "packed-without-a-name": packed(plain),
        "windows.csv": plain.replace(b"\n", b"\r\n"),
        "marked.csv": b"\xef\xbb\xbf" + plain,
        "quoted.csv": b'"name","size"\n"M\xc3\xbcller","1"\n"x","2"',
        "blank-lines.csv": plain.replace(b"\n", b"\n\n"),
    }
    hashes = {
        name: ingest_table(raw(tmp_path, content, name), tmp_path / "out.parquet").sha256
        for name, content in spellings.items()
    }
    assert set(hashes.values()) == {hashes["plain.csv"]}


@pytest.mark.parametrize(
    "other",
    [b"a,b\n1,3\n", b"a,c\n1,2\n", b"b,a\n1,2\n", b"a,b\n1,2\n1,2\n", b"a,b\n12,\n", b"a,b\n1, 2\n", b"a,b\n,12\n"],
)
def test_other_content_has_another_hash(tmp_path: Path, other: bytes) -> None:
    one = ingest_table(raw(tmp_path, b"a,b\n1,2\n"), tmp_path / "one.parquet")
    two = ingest_table(raw(tmp_path, other), tmp_path / "two.parquet")
    assert one.sha256 != two.sha256


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@given(st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1)))
@settings(max_examples=60, deadline=None)
def test_any_text_survives_csv(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    folder = tmp_path_factory.mktemp("csv")
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([[f"c{index}" for index in range(len(rows[0]))], *rows])
    content = stream.getvalue().encode()
    ingested = ingest_table(raw(folder, content), folder / "out.parquet")
    zipped = ingest_table(raw(folder, packed(content), "data.csv.gz"), folder / "out.parquet")
    assert [list(row.values()) for row in rows_of(folder / "out.parquet")] == rows
    assert ingested.sha256 == zipped.sha256


values = st.tuples(
    st.none() | cells,
    st.none() | st.floats(width=64),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.booleans(),
)


@given(st.lists(values, min_size=1, max_size=12), st.integers(1, 5))
@settings(deadline=None)
def test_the_hash_does_not_depend_on_the_size_of_batches(rows: list[tuple[Any, ...]], size: int) -> None:
    types = [pa.string(), pa.float64(), pa.int64(), pa.bool_()]
    columns = [pa.array(column, type=kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)]
    whole = pa.RecordBatch.from_arrays(columns, names=["a", "b", "c", "d"])
    one, other = ContentHash(whole.schema), ContentHash(whole.schema)
    one.update(whole)
    for start in range(0, len(rows), size):
        other.update(whole.slice(start, size))
    assert one.hexdigest() == other.hexdigest()


def test_a_null_is_not_an_empty_text_nor_a_zero() -> None:
    tables = [
        pa.table({"a": pa.array(column, type=kind)})
        for column, kind in [
            (["", "x"], pa.string()),
            ([None, "x"], pa.string()),
            ([0, 1], pa.int64()),
            ([None, 1], pa.int64()),
        ]
    ]
    hashes = set()
    for table in tables:
        content = ContentHash(table.schema)
        content.update(table.to_batches()[0])
        hashes.add(content.hexdigest())
    assert len(hashes) == len(tables)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (packed(b""), "is empty"),
        (b"a,b\n", "has column names and no rows"),
        (b"a,b,a\n1,2,3\n", "duplicate column names: 'a' (columns 1, 3)"),
        (b"column_2,\n1,2\n", "duplicate column names: 'column_2' (columns 1, 2)"),
        (b"a,b\n1,2\n3\n", "line 3: 1 field, but the header has 2"),
        (b'a,b\n"1\n1",2\n\n3,4,5\n', "line 5: 3 fields, but the header has 2"),
        (b"a,b\n1,2\n3,\xe9t\xe9\n", "line 3: byte 3 (0xe9) is not UTF-8"),
        (packed(b"a,b\n1,\xe9\n"), "line 2: byte 3 (0xe9) is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "line 1: a zero byte"),
        (b'a,b\n1,"2\n3,4\n', "line 2: unexpected end of data"),
        (b'a,b\n1,"2"x\n3,4\n', "line 2: ',' expected after '\"'"),
        (b"a\r1\r2\r", "line 1: new-line character seen in unquoted field"),
        (b"a,b\n1," + b"x" * 200_000 + b"\n", "line 2: field larger than field limit"),
        (packed(b"a,b\n" + b"1,2\n" * 999)[:-20], "the gzip data break off or are damaged"),
        (b"\x1f\x8b\x08junk", "the gzip data break off or are damaged"),
        (b"PK\x03\x04\x14\x00\x08\x00", "line 1: a zero byte"),
    ],
)
def test_a_csv_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, fault: str) -> None:
    message = refusal(tmp_path, content)
    assert fault in message
    assert "data.csv" in message


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def test_parquet_keeps_its_types_in_their_widest_form(tmp_path: Path) -> None:
    table = pa.table(
        {
            "small": pa.array([1, None], pa.int8()),
            "half": pa.array([0.5, float("nan")], pa.float32()),
            "money": pa.array([decimal.Decimal("1.25"), None], pa.decimal128(9, 2)),
            "kind": pa.array(["a", None]).dictionary_encode(),
            "day": pa.array([date(2024, 2, 29), None], pa.date32()),
            "moment": pa.array([datetime(2024, 2, 29, 12), None], pa.timestamp("ns")),
            "flag": [True, None],
            "nothing": pa.nulls(2),
        }
    )
    ingested = ingest_table(raw(tmp_path, parquet_bytes(table), "data.parquet"), tmp_path / "out.parquet")
    kept = pq.read_table(tmp_path / "out.parquet")
    moment = pa.timestamp("us", tz="UTC")
    assert kept.schema.types == [
        *(pa.int64(), pa.float64(), pa.float64(), pa.string()),
        *(moment, moment, pa.bool_(), pa.string()),
    ]
    first = kept.to_pylist()[0]
    assert (first["small"], first["half"], first["money"], first["kind"], first["flag"]) == (1, 0.5, 1.25, "a", True)
    assert first["moment"].isoformat() == "2024-02-29T12:00:00+00:00"
    assert ingested.format == "parquet"
    again = ingest_table(str(tmp_path / "out.parquet"), tmp_path / "again.parquet")
    assert again.sha256 == ingested.sha256


def test_row_groups_and_compression_leave_the_hash_of_parquet_alone(tmp_path: Path) -> None:
    table = pa.table({"a": list(range(1000)), "b": [f"v{index % 7}" for index in range(1000)]})
    hashes = set()
    for name, options in {
        "one": {},
        "two": {"row_group_size": 10, "compression": "zstd", "use_dictionary": False},
    }.items():
        pq.write_table(table, tmp_path / f"{name}.parquet", **options)
        hashes.add(ingest_table(str(tmp_path / f"{name}.parquet"), tmp_path / "out.parquet").sha256)
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is not a Parquet file"),
        (b"a,b\n1,2\n", "is not a Parquet file"),
        (b"PAR1" + b"\0" * 64 + b"PAR1", "is not a Parquet file"),
        (parquet_bytes(pa.table({"a": pa.array([], pa.int64())})), "has column names and no rows"),
        (parquet_bytes(pa.table({"a": [[1], [2]]})), "column 'a' holds list"),
        (parquet_bytes(pa.table({"a": [b"x"]})), "column 'a' holds binary"),
        (parquet_bytes(pa.table([[1], [2]], names=["a", "a"])), "duplicate column names: 'a' (columns 1, 2)"),
        (parquet_bytes(pa.table({"a": pa.array([2**63], pa.uint64())})), "column 'a': Integer value"),
    ],
)
def test_a_parquet_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes, fault: str) -> None:
    assert fault in refusal(tmp_path, content, "data.parquet")


def test_damaged_parquet_pages_are_refused(tmp_path: Path) -> None:
    content = bytearray(parquet_bytes(pa.table({"a": [f"value {index}" for index in range(5000)]})))
    content[200:2000] = b"\xff" * 1800
    assert "damaged" in refusal(tmp_path, bytes(content), "data.parquet")


def test_text_in_parquet_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    broken = pa.array([b"\xe9"]).view(pa.string())
    assert "damaged" in refusal(tmp_path, parquet_bytes(pa.table({"a": broken})), "data.parquet")


def test_the_content_tells_the_format_where_the_name_does_not(tmp_path: Path) -> None:
    typed = raw(tmp_path, parquet_bytes(pa.table({"a": [1]})), "data")
    assert ingest_table(typed, tmp_path / "out.parquet").format == "parquet"
    text = raw(tmp_path, b"a\n1\n", "data.txt")
    assert ingest_table(text, tmp_path / "out.parquet").format == "csv"


def test_a_given_format_counts_more_than_the_name(tmp_path: Path) -> None:
    assert "is not a Parquet file" in refusal(tmp_path, b"a\n1\n", "data.csv", "parquet")
    with pytest.raises(InputError, match="no format is called 'xlsx'"):
        ingest_table(raw(tmp_path, b"a\n1\n"), tmp_path / "out.parquet", "xlsx")


@pytest.mark.parametrize("uri", ["", "no/such/file.csv", "file:///no/such/file.csv", "memory://no-such/file.csv"])
def test_what_is_not_there_is_an_input_error(tmp_path: Path, uri: str) -> None:
    with pytest.raises(InputError, match=r"there is no file|no file is named"):
        ingest_table(uri, tmp_path / "out.parquet")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file"):
        ingest_table(str(tmp_path), tmp_path / "out.parquet")


def test_an_unknown_protocol_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="protocol 'minio' is not known") as caught:
        ingest_table("minio://bucket/data.csv", tmp_path / "out.parquet")
    assert "s3://" in caught.value.hint


@pytest.mark.skipif(importlib.util.find_spec("smbprotocol") is not None, reason="smbprotocol is installed")
def test_a_missing_package_is_named_as_pip_knows_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="smb://") as caught:
        ingest_table("smb://host/share/data.csv", tmp_path / "out.parquet")
    assert caught.value.hint == "pip install smbprotocol"


def test_a_file_url_and_another_filesystem_are_read(tmp_path: Path) -> None:
    path = raw(tmp_path, b"a\n1\n")
    with fsspec.open(f"memory://{tmp_path.name}/data.csv", "wb") as stream:
        stream.write(b"a\n1\n")
    local = ingest_table(f"file://{path}", tmp_path / "one.parquet")
    remote = ingest_table(f"memory://{tmp_path.name}/data.csv", tmp_path / "two.parquet")
    assert local.sha256 == remote.sha256
    assert sorted(item.name for item in tmp_path.iterdir()) == ["data.csv", "one.parquet", "two.parquet"]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The URL of a folder `web` of tmp_path, served by a web server."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self.path.startswith("/broken"):
                self.send_error(503)
            else:
                super().do_GET()

    (tmp_path / "web").mkdir()
    handler = functools.partial(Handler, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_table_is_read_over_http_and_a_signed_url_leaves_no_key_behind(tmp_path: Path, web: str) -> None:
    raw(tmp_path / "web", packed(b"a,b\n1,2\n"), "data.csv.gz")
    raw(tmp_path / "web", parquet_bytes(pa.table({"a": ["1"], "b": ["2"]})), "data.parquet")
    text = ingest_table(f"{web}/data.csv.gz?signature=secret", tmp_path / "out.parquet")
    typed = ingest_table(f"{web}/data.parquet", tmp_path / "out.parquet")
    assert text.sha256 == typed.sha256
    assert "secret" not in json.dumps(text.metadata())


@pytest.mark.parametrize(("path", "fault"), [("/none.csv", "there is no file"), ("/broken.csv", "cannot be read")])
def test_a_server_that_does_not_give_the_file_is_an_input_error(
    tmp_path: Path, web: str, path: str, fault: str
) -> None:
    with pytest.raises(InputError, match=fault) as caught:
        ingest_table(f"{web}{path}?signature=secret", tmp_path / "out.parquet")
    assert "secret" not in caught.value.message


def test_a_server_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/data\.csv cannot be read"):
        ingest_table("http://127.0.0.1:9/data.csv", tmp_path / "out.parquet")


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("https://me:pass@host:8443/a/b.csv?key=1#x", "https://host:8443/a/b.csv"),
        ("s3://bucket/a#1?.csv", "s3://bucket/a#1?.csv"),
        ("/data/a?b#c@d.csv", "/data/a?b#c@d.csv"),
        ("http://[broken/a.csv", "http://[broken/a.csv"),
    ],
)
def test_a_uri_is_shown_without_credentials(uri: str, text: str) -> None:
    assert shown(uri) == text


def test_text_over_its_limit_or_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="larger than 10 bytes"):
        read_text(raw(tmp_path, b"x" * 11), limit=10)
    with pytest.raises(InputError, match="is not UTF-8 text: byte 1"):
        read_text(raw(tmp_path, b"x\xe9"))


def test_the_profile_says_what_is_in_the_columns(tmp_path: Path) -> None:
    content = b"size,kind,day\n1,a,2024-01-01\n2.5,b,\nabc,a,x\n,a,x\ninf,<i>,x\n"
    ingested = ingest_table(raw(tmp_path, content), tmp_path / "out.parquet")
    size, kind, _ = ingested.columns
    assert (size.rows, size.missing, size.numbers, size.distinct) == (5, 1, 2, 4)
    assert (size.minimum, size.maximum, size.mean, size.std) == (1.0, 2.5, 1.75, statistics.stdev([1, 2.5]))
    assert kind.top == (("a", 3), ("<i>", 1), ("b", 1))
    assert (kind.numbers, kind.minimum, kind.mean) == (0, None, None)
    metadata = json.loads(json.dumps(ingested.metadata(), allow_nan=False))
    assert metadata["profile"]["size"]["mean"] == 1.75
    html = profile_page(ingested)
    assert "&lt;i&gt;" in html
    assert "<i>" not in html


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), min_size=1, max_size=5),
    st.sampled_from([pa.string(), pa.float64()]),
)
@settings(deadline=None)
def test_figures_gathered_in_batches_are_those_of_all_rows(batches: list[list[float]], kind: pa.DataType) -> None:
    profiler = Profiler("x", kind)
    for batch in batches:
        profiler.update(pa.array([repr(value) for value in batch] if kind == pa.string() else batch, type=kind))
    profile = profiler.profile()
    everything = [value for batch in batches for value in batch]
    assert (profile.rows, profile.numbers, profile.minimum) == (len(everything), len(everything), min(everything))
    assert profile.mean == pytest.approx(statistics.fmean(everything), rel=1e-9, abs=1e-6)
    spread = statistics.stdev(everything) if len(everything) > 1 else None
    assert profile.std == (None if spread is None else pytest.approx(spread, rel=1e-6, abs=1e-6))


def test_figures_no_float_can_hold_are_left_out(tmp_path: Path) -> None:
    ingested = ingest_table(raw(tmp_path, b"a\n1e308\n1.5e308\n-1e308\n"), tmp_path / "out.parquet")
    assert ingested.columns[0].std is None
    json.dumps(ingested.metadata(), allow_nan=False)


def test_a_column_of_very_many_values_is_profiled_in_bounded_memory() -> None:
    profiler = Profiler("id", pa.int64())
    profiler.update(pa.array(range(DISTINCT_LIMIT + 1)))
    profiler.update(pa.array([5, 5]))
    profile = profiler.profile()
    assert (profile.distinct, profile.top, profile.maximum) == (None, (), float(DISTINCT_LIMIT))


def test_types_that_cannot_be_canonical_are_refused() -> None:
    with pytest.raises(DataError, match="column 't' holds time"):
        canonical(pa.record_batch({"t": pa.array([1], pa.time32("s"))}))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize(("name", "rows", "columns"), [("adult.csv.gz", 32_561, 16), ("elec.csv.gz", 45_312, 7)])
def test_real_data_are_read_whole(tmp_path: Path, name: str, rows: int, columns: int) -> None:
    ingested = ingest_table(str(SHARED / name), tmp_path / "out.parquet")
    assert (ingested.rows, len(ingested.columns)) == (rows, columns)
    assert pq.ParquetFile(tmp_path / "out.parquet").metadata.num_rows == rows
